r"""The problem set as models: from straight lines to trained networks; what each is for stands in ``docs/problems.md``.

Every model is asked for at any number of steps by a sampler without noise and by one with it. Classes are those of the
answers: the mode that a sample lies nearest to, so that a parallel answer in another one than the sequential sampler's
counts as a flip, however small its distance.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

import paradrift as pd
from paradrift.bench import problems
from paradrift.bench.models import Model
from paradrift.bench.networks import chains, judge
from paradrift.bench.networks import graph as graph_network
from paradrift.bench.networks import plane as plane_network
from paradrift.bench.networks import policy as policy_network
from paradrift.bench.networks.kept import Recipe
from paradrift.bench.turned import Turned


def nearest(centres: Tensor) -> Callable[[Tensor], Tensor]:
    """The classes of a mixture of equal spreads: the nearest centre.

    Args:
        centres: Shape (K, *shape).

    Returns:
        Function of samples, shape (S, *shape), to the number of a centre, shape (S,), int64.
    """
    flat = centres.detach().double().flatten(1)

    def classes(samples: Tensor) -> Tensor:
        return torch.cdist(samples.detach().cpu().double().flatten(1), flat).argmin(1)

    return classes


def gaussian() -> Model:
    r"""256 dimensions with the spectrum of pictures: standard deviations from 2 down to 1/32, as a power law.

    The model is linear in the state, so Newton's method is exact and every secant should soon be. The principal axes
    are turned: methods that take Jacobians to be diagonal are to find no diagonal one.

    Returns:
        The model, in float64 on VP.
    """
    deviations = torch.logspace(math.log2(2), math.log2(1 / 32), 256, base=2, dtype=torch.float64)
    mean = torch.randn(256, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    toy = Turned(pd.Gaussian(mean=mean, variance=deviations**2, schedule=pd.VP()))
    return Model(
        name="gaussian-256",
        denoiser=lambda samples: toy,
        shape=(256,),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
        dtype=torch.float64,
    )


def mixture_64() -> Model:
    """64 dimensions, eight modes of variance 0.05 about 11 apart, as in :func:`paradrift.bench.problems.mixture`.

    Returns:
        The model, in float64 on EDM, Karras times 80 ... 0.02 and 0.
    """
    toy = problems.mixture(False)
    return Model(
        name="mixture-64",
        denoiser=toy.denoiser,
        shape=toy.shape,
        ode=pd.Euler(),
        sde=pd.Ancestral(),
        classes=nearest(problems.modes()),
        dtype=torch.float64,
    )


def families() -> Tensor:
    """Centres of the mixture of 1024 dimensions: three families 23 apart, of four members each, 6 apart.

    Returns:
        Shape (12, 1024), float64.
    """
    generator = torch.Generator().manual_seed(2)
    parents = 0.5 * torch.randn(3, 1, 1024, generator=generator, dtype=torch.float64)
    return (parents + 0.13 * torch.randn(3, 4, 1024, generator=generator, dtype=torch.float64)).flatten(0, 1)


def mixture_1024() -> Model:
    """1024 dimensions, twelve modes in three families: two decisions, a coarse one and later a fine one.

    Returns:
        The model, in float64 on DDPM's schedule.
    """
    centres = families()
    weights, schedule = torch.linspace(1, 2, len(centres)), pd.Discrete.linear(1000)
    toy = pd.GaussianMixture(weights=weights, means=centres, variances=0.02, schedule=schedule)
    return Model(
        name="mixture-1024",
        denoiser=lambda samples: toy,
        shape=(1024,),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
        classes=nearest(centres),
        dtype=torch.float64,
    )


def digits(guidance: float | None = None) -> Model:
    """The embedded transformer, labels 0 to 9 in turn; classes are the digits that pictures came out as.

    Args:
        guidance: Scale of classifier-free guidance, or None.

    Returns:
        The model, on DDPM's schedule.
    """

    @functools.cache
    def network() -> pd.Denoiser:
        return pd.pretrained("digits", guidance=guidance)

    return Model(
        name="digits" if guidance is None else "digits-guided",
        denoiser=lambda samples: network(),
        shape=(1, 28, 28),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
        classes=judge.classes,
    )


def rough() -> Model:
    """A network with hardly any training on the mixture of 64 dimensions: steeper than its data, noise prediction.

    Returns:
        The model, on DDPM's schedule.
    """

    @functools.cache
    def network() -> pd.Denoiser:
        return problems.rough(pd.DDIM(), 10, "rough").denoiser(1)

    return Model(
        name="rough",
        denoiser=lambda samples: network(),
        shape=(64,),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
        classes=nearest(problems.modes()),
    )


def plane(recipe: Recipe = plane_network.RECIPE) -> Model:
    """Two dimensions, eighteen cells of a board, learned by a perceptron; a call costs next to nothing.

    Args:
        recipe: How the network is trained.

    Returns:
        The model, in the data form on EDM.
    """

    @functools.cache
    def network() -> pd.Denoiser:
        return plane_network.denoiser(plane_network.network(recipe))

    return Model(
        name="plane",
        denoiser=lambda samples: network(),
        shape=(2,),
        ode=pd.Euler(),
        sde=pd.Ancestral(),
        classes=nearest(plane_network.centres()),
    )


def policy(recipe: Recipe = policy_network.RECIPE) -> Model:
    """Sixteen waypoints past an obstacle, by a transformer of a million weights, every sample with its own observation.

    Args:
        recipe: How the network is trained.

    Returns:
        The model, clipped, on the cosine schedule; its classes are sides, of samples 0, 1, ... in order.
    """

    @functools.cache
    def network() -> pd.Denoiser:
        return policy_network.denoiser(policy_network.network(recipe))

    return Model(
        name="policy",
        denoiser=lambda samples: network(),
        shape=(policy_network.HORIZON, policy_network.ACTIONS),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
        classes=policy_network.classes,
    )


def graph(recipe: Recipe = graph_network.RECIPE) -> Model:
    """Ten beads of a chain in space, by a thin equivariant network; classes are conformers.

    Args:
        recipe: How the network is trained.

    Returns:
        The model, on the cosine schedule.
    """

    @functools.cache
    def network() -> pd.Denoiser:
        return graph_network.denoiser(graph_network.network(recipe))

    return Model(
        name="graph",
        denoiser=lambda samples: network(),
        shape=(chains.BEADS, 3),
        ode=pd.DDIM(),
        sde=pd.DDPM(),
        classes=chains.conformers,
    )


def model_set() -> tuple[Model, ...]:
    """All models, from exact ones to networks.

    Returns:
        The models; networks are trained, or read, when they are first asked for.
    """
    return (
        gaussian(),
        mixture_64(),
        mixture_1024(),
        rough(),
        plane(),
        policy(),
        graph(),
        digits(),
        digits(2.0),
    )
