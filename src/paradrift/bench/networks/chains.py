r"""Chain molecules: places of ten equal beads whose bonds, angles and torsions are drawn as in polymer physics.

Bonds have length one and angles 112 degrees, both with thermal noise; every torsion sits in one of three wells, at 180
(trans, probability 0.6) and at :math:`\pm 60` degrees (gauche), with noise of ten degrees. The chain is turned at
random and its centre of mass put at the origin. The wells of the seven torsions, :math:`3^7` conformers, are the modes.

Source: Flory 1969, Statistical Mechanics of Chain Molecules: rotational isomeric states, here independent of each
other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BEADS = 10
ANGLE = math.radians(112)
WELLS = (math.pi, math.pi / 3, -math.pi / 3)
SHARES = (0.6, 0.2, 0.2)


def chains(count: int, generator: torch.Generator) -> Tensor:
    """Independent conformers.

    Args:
        count: How many.
        generator: Of all of it.

    Returns:
        Places, shape (count, 10, 3), centred.
    """
    bonds = 1 + 0.03 * torch.randn(count, BEADS - 1, generator=generator)
    angles = ANGLE + math.radians(4) * torch.randn(count, BEADS - 2, generator=generator)
    wells = torch.multinomial(torch.tensor(SHARES), count * (BEADS - 3), replacement=True, generator=generator)
    torsions = torch.tensor(WELLS)[wells].reshape(count, BEADS - 3)
    torsions = torsions + math.radians(10) * torch.randn(count, BEADS - 3, generator=generator)
    # two normal vectors make a frame that is turned evenly over all rotations
    along, other = torch.nn.functional.normalize(torch.randn(2, count, 3, generator=generator), dim=2)
    normal = torch.nn.functional.normalize(torch.linalg.cross(along, other), dim=1)
    places = [torch.zeros(count, 3), bonds[:, :1] * along]
    for bead in range(2, BEADS):
        turn, twist = angles[:, bead - 2, None], torsions[:, bead - 3, None] if bead > 2 else torch.zeros(count, 1)
        aside = torch.linalg.cross(normal, along)
        # the new bond in the frame of the last one: torsion 180 degrees is the flat zigzag
        step = -turn.cos() * along + turn.sin() * (twist.cos() * aside + twist.sin() * normal)
        normal = torch.nn.functional.normalize(torch.linalg.cross(along, step), dim=1)
        along = step
        places.append(places[-1] + bonds[:, bead - 1, None] * step)
    stacked = torch.stack(places, dim=1)
    return stacked - stacked.mean(1, keepdim=True)


def torsions(places: Tensor) -> Tensor:
    """The torsion of every three bonds in a row.

    Args:
        places: Shape (S, 10, 3).

    Returns:
        Shape (S, 7), in radians, 180 degrees where the three bonds are a flat zigzag.
    """
    first, second, third = (places.diff(dim=1)[:, k : BEADS - 3 + k] for k in range(3))
    before, after = torch.linalg.cross(first, second), torch.linalg.cross(second, third)
    aside = torch.linalg.cross(before, second) / second.norm(dim=2, keepdim=True)
    return torch.atan2(-(aside * after).sum(2), (before * after).sum(2))


def conformers(places: Tensor) -> Tensor:
    """The wells of all torsions as one number, base three.

    Args:
        places: Shape (S, 10, 3).

    Returns:
        Shape (S,), int64, from 0 (all trans) to 3^7 - 1.
    """
    apart = torsions(places.detach().cpu().double())[..., None] - torch.tensor(WELLS, dtype=torch.float64)
    wells = apart.cos().argmax(2)
    return (wells * 3 ** torch.arange(BEADS - 3)).sum(1)
