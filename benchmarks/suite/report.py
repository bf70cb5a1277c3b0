"""`python -m benchmarks report`: a page, pictures and a Markdown file from result files."""

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.suite import bars, tables, words
from benchmarks.suite.tables import Result


def report(files: list[Path], out: Path | None = None) -> int:
    """Write `<first file>.html`, `.md`, and a PNG file per chart; return the exit status."""
    try:
        from benchmarks.suite import charts, page
    except ImportError as error:
        print(f"the charts need matplotlib: {error}\nInstall it: pip install -e '.[plots]'.")
        return 1
    results = {path.stem: read(path) for path in files}
    folder, stem = out or files[0].parent, files[0].stem
    folder.mkdir(parents=True, exist_ok=True)
    titled = results if len(results) > 1 else {"": results[stem]}
    written = [folder / f"{stem}.html", folder / f"{stem}.md"]
    written[0].write_text(page.page(titled))
    written[1].write_text("\n\n".join(part for r in titled.items() for part in text(*r)) + "\n")
    for name, result in results.items():
        for kind, draw in {
            "": charts.overview_chart,
            "_curves": charts.curves_chart,
            "_callbacks": charts.callbacks_chart,
        }.items():
            if picture := draw(result):
                written.append(folder / f"{name}{kind}.png")
                written[-1].write_bytes(picture)
    shown = next(iter(results.values()))
    print("\n".join([*words.headlines(shown), *bars.sentences(shown)]))
    print("\n".join(f"wrote {path}" for path in written))
    return 0


def read(path: Path) -> Result:
    """A result file.

    Raises:
        SystemExit: If it is not one of `python -m benchmarks run`.
    """
    result = json.loads(path.read_text()) if path.is_file() else {}
    if result.get("suite") != 1:
        raise SystemExit(
            f"{path} is no result of `python -m benchmarks run`\nGive a file that it has written."
        )
    return result


def text(name: str, result: Result) -> Iterator[str]:
    """The Markdown of a result."""
    yield f"# {name or 'Benchmarks'}"
    yield words.measured(result)
    yield from bullets(words.headlines(result))
    yield from bullets(words.doubts(result))
    if lines := bars.table(result):
        yield "## Held, tie or not held"
        yield tables.markdown(lines)
    for rows in tables.by_case(result).values():
        yield f"## {rows[0]['title']}"
        yield tables.markdown(tables.case_table(rows))
    for axis, lines in tables.curves(result).items():
        yield f"## Growth with {axis}"
        yield tables.markdown(tables.curve_table(lines))
    if rows := tables.callbacks(result):
        yield "## Built-in callbacks"
        yield tables.markdown(tables.callbacks_table(rows))


def bullets(lines: Iterator[str]) -> Iterator[str]:
    if found := "\n".join(f"- {line}" for line in lines):
        yield found
