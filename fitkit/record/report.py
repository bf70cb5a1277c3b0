"""What was recorded, as text, and what was refused."""

import warnings
from collections.abc import Iterable
from typing import final

from fitkit.record.recording import Recording
from fitkit.record.refused import Refused

__all__ = ["Verdicts", "render_report"]

_ROW = "{title:<28} {backend:<10} {nodes:>6} {trace:>8} {compile:>10} {replays:>8} {eager:>6}"


def render_report(recordings: Iterable[Recording]) -> str:
    """Return a table of programs: nodes, seconds, replays, eager steps and why."""
    columns = ("title", "backend", "nodes", "trace", "compile", "replays", "eager")
    heads = ("step", "backend", "nodes", "trace s", "compile s", "replays", "eager")
    lines = [_ROW.format(**dict(zip(columns, heads, strict=True)))]
    for recording in recordings:
        program = recording.program
        row = {"title": recording.title, "eager": recording.num_eager}
        numbers = dict.fromkeys(columns[2:6], "-")
        if program is not None:
            numbers = {
                "nodes": str(program.num_nodes),
                "trace": f"{program.trace_s:.2f}",
                "compile": f"{program.compile_s:.1f}",
                "replays": str(program.num_replays),
            }
        lines.append(_ROW.format(**row, **numbers, backend=program.backend if program else "eager"))
        if recording.refusal is not None:
            part = "UPDATE_METRICS runs eagerly" if program else "runs eagerly"
            lines.append(f"    {part}: {recording.refusal}")
    return "\n".join(lines)


@final
class Verdicts:
    """Says once why steps, or parts of them, run eagerly.

    Args:
        strict: Raise instead.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._warned: set[str] = set()
        self._told: list[Refused] = []

    def tell(self, recording: Recording) -> None:
        """Warn of the refusal of a recording, if there is one."""
        if recording.refusal is None or recording.refusal in self._told:
            return
        self._told.append(recording.refusal)
        if self._strict:
            raise recording.refusal
        part = "UPDATE_METRICS" if recording.program else "the step"
        self.warn(f"Record runs {part} eagerly ({recording.title}): {recording.refusal}")

    def refuse_opaque(self, kind: str) -> None:
        """Refuse a step whose `state.extra` holds something that cannot be compared."""
        reason = f"state.extra holds a {kind}; what changes in it cannot be seen"
        if self._strict:
            raise Refused(reason)
        self.warn(f"Record runs the step eagerly: {reason}.\nPut tensors or numbers there.")

    def warn(self, message: str) -> None:
        """Warn if it was not said before."""
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=2)
