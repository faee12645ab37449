"""A plan as a table of plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paradrift.plans.theorems import Plan


def table(plan: Plan) -> str:
    """A plan for people.

    Args:
        plan: The plan.

    Returns:
        Lines of at most 90 characters for usual numbers.
    """
    ode = plan.corrector is not None
    budget = plan.kl / 2 if ode else plan.kl
    name, unit = ("PIADM-ODE (Theorem 3.5)", "TV^2") if ode else ("PIADM-SDE (Theorem 3.3)", "KL")
    least, most = int(plan.steps.min()), int(plan.steps.max())
    rows = [
        ("horizon T", f"{plan.horizon:.6g}", f"down to the early stop eta = {plan.early_stop:g}"),
        ("blocks N", f"{plan.blocks:,}", f"of length h = {plan.length:g}"),
        ("step eps", f"{plan.step:.3g}", "shorter where the remaining time is below 1"),
        ("steps per block M", f"{most:,}" if least == most else f"{least:,} to {most:,}", ""),
        ("sweeps per block K", f"{plan.sweeps:,}", ""),
    ]
    if plan.corrector is not None:
        rows.append(
            ("corrector", f"{plan.corrector.steps:,}", f"steps, {plan.corrector.sweeps} sweeps, after each block")
        )
    rows += [
        ("rounds", f"{plan.rounds:,}", f"{plan.sequential / plan.rounds:,.1f} times fewer than sequentially"),
        ("points in memory", f"{plan.points:,}", f"of {plan.dim:,} numbers each"),
        ("sequential rounds", f"{plan.sequential:,}", "the same steps one after the other, 1 point in memory"),
    ]
    length = "T" if plan.clock == plan.horizon else "log(1/eta)"
    bounds = {
        "truncation": "(d + E|x|^2)/2 exp(-T)",
        "discretisation": f"d (eps {length})^2" if ode else f"d eps {length}",
        "score": "(T^2 + N^2) delta_inf^2" if ode else "delta_2^2",
        "picard": f"d {'N^2' if ode else 'T'} exp(-K)",
    }
    terms = plan.terms
    lines = [f"{name} in dimension {plan.dim:,}: {unit} at most {budget:.3g}", ""]
    left, middle = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    lines += [f"  {first:<{left}}  {value:>{middle}}  {note}".rstrip() for first, value, note in rows]
    lines += ["", f"  {'error term':<14}  {'order':<26}  {unit:>9}"]
    for term, order in bounds.items():
        lines.append(f"  {term:<14}  {order:<26}  {getattr(terms, term):>9.3g}")
    lines.append(f"  {'sum':<14}  {'':<26}  {terms.total:>9.3g}")
    allowed = f"{'delta_inf^2' if ode else 'delta_2^2'} = {plan.score:.3g}"
    lines += ["", f"The network's error is taken as {allowed}. Factors that the theorem hides:"]
    lines.append(", ".join(f"{name} {value:g}" for name, value in vars(plan.constants).items()))
    return "\n".join(lines)
