"""What a replayed run cost, and how far its result may be from the plain one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ReplayStats:
    """What a run cost.

    Args:
        rounds: Batches evaluated one after the other.
        evaluations: Calls evaluated, over all rounds; not counted are what fills up batches, and the checks of the
            first call of a kind.
        calls: Calls that the program makes.
        settled: Calls of them that are settled: all, unless the run was cut short or fell back.
        executions: How often the program was run.
        seconds: Wall time of everything.
        model_seconds: Wall time inside the networks.
        sequential_seconds: Predicted wall time of the networks in the plain run, from single calls measured in this
            run or an earlier one; None where none was.
        window: Widest span of calls that were evaluated in one round.
        plan: Why that window, in one sentence.
        error_bound: Estimated relative rms distance of the final latent to that of the plain run; 0 where every call
            was evaluated at its own arguments, None where nothing can be said.
        fallback: Why the program was run plainly instead; None if it was not.
        unbatchable: Networks whose calls could not be merged, and were evaluated one by one.
        untaped: Why the program's arithmetic between calls could not be recorded; None if it could.
    """

    rounds: int = 0
    evaluations: int = 0
    calls: int = 0
    settled: int = 0
    executions: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    sequential_seconds: float | None = None
    window: int = 1
    plan: str = ""
    error_bound: float | None = None
    fallback: str | None = None
    unbatchable: tuple[str, ...] = ()
    untaped: str | None = None

    def __str__(self) -> str:
        """A few lines for people."""
        if self.fallback is not None:
            return f"run plainly: {self.fallback}"
        lines = [
            f"{self.rounds} rounds for {self.calls} calls ({self.evaluations} evaluations), {self.plan}",
            f"{self.seconds:.2f} s, of which {self.model_seconds:.2f} s in the networks",
        ]
        if self.sequential_seconds is not None:
            lines[1] += f"; plainly they would take {self.sequential_seconds:.2f} s (predicted)"
        if self.error_bound is None:
            lines.append("error of the final latent: not estimated")
        else:
            lines.append(f"error of the final latent against the plain run: about {self.error_bound:.1e}")
        if self.settled < self.calls:
            lines.append(f"only {self.settled} calls are settled")
        if self.unbatchable:
            lines.append(f"evaluated one by one, because no way of batching fits: {', '.join(self.unbatchable)}")
        if self.untaped:
            lines.append(f"run again for each round, because {self.untaped}")
        return "\n".join(lines)
