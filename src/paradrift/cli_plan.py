"""``paradrift plan``: what an accuracy costs, by theory, before anything is run."""

from __future__ import annotations

from typing import Annotated

import typer

from paradrift.plans import plan as budget


def plan(
    dim: Annotated[int, typer.Option(help="Dimension of one sample: its number of elements.")],
    kl: Annotated[float | None, typer.Option(help="Accuracy of the samples' law: KL divergence in nats.")] = None,
    tv: Annotated[float | None, typer.Option(help="Or its total variation, at most 1.")] = None,
    ode: Annotated[bool, typer.Option("--ode", help="PIADM-ODE with its corrector, instead of PIADM-SDE.")] = False,
    lipschitz: Annotated[float, typer.Option(help="Lipschitz constant of the score.")] = 1.0,
    second_moment: Annotated[
        float | None, typer.Option(help="E|x|^2 of the data, summed over elements; the dimension if not given.")
    ] = None,
    early_stop: Annotated[float, typer.Option(help="Forward time at which sampling stops.")] = 1e-3,
) -> None:
    """Print horizon, blocks, steps, sweeps, rounds and memory of PIADM for an accuracy, and its error terms.

    The theorems give orders; factors that they hide are 1 here. paradrift.plans.fit takes them from a pilot run.
    """
    found = budget(
        dim,
        kl=kl,
        tv=tv,
        ode=ode,
        lipschitz=lipschitz,
        second_moment=second_moment,
        early_stop=early_stop,
    )
    print(found)
