"""What was recorded, as text."""

from collections.abc import Iterable

from fitkit.record.recording import Recording

__all__ = ["render_report"]

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
