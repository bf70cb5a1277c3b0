"""The report as one HTML file that needs nothing beside it."""

import base64
import re
from collections.abc import Iterator
from html import escape

from benchmarks.suite import bars, charts, tables, words
from benchmarks.suite.tables import Result, Table

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1180px; margin: 2rem auto;
       padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 3rem; border-bottom: 1px solid #d8dee4; }
h3 { margin-top: 2.2rem; } .about { color: #5b6770; margin-top: .3rem; }
.lead li { margin: .35rem 0; } img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e7ebef; }
th { background: #f5f7f9; font-weight: 600; vertical-align: bottom; }
td { white-space: nowrap; } th:first-child, td:first-child, td.note, th.note { text-align: left; }
td.note, div.note { white-space: normal; color: #9a3412; } div.note { font-size: 12px; }
.verdicts { table-layout: fixed; width: 100%; } .verdicts th:first-child { width: 14rem; }
.verdicts td, .verdicts th { white-space: normal; text-align: center; padding: .3rem .2rem; }
.verdicts td:first-child, .verdicts th:first-child { text-align: left; }
small { white-space: nowrap; color: #5b6770; font-size: 11px; }
td.held { background: #e3f4ea; } td.missed { background: #fbe3d8; font-weight: 600; }
tr:hover td { background: #fafbfc; }
.doubt { background: #fff7ed; border-left: 4px solid #d0663a; padding: .4rem 1rem; }
"""
VERDICT = re.compile(rf"(.*) \((.*)\) ({bars.HELD}|{bars.TIE}|{bars.NOT_HELD})")
READ = """
<p><b>us per step</b> is the median of the rounds, with the 5th and 95th percentile: of the time of
the process where one thread computes on a CPU, which leaves out what other programs take, and else
of wall time, which stands beside it. <b>of the hand loop</b> compares with the loop of the guide
within each round: below 1 is faster. <b>above bare kernels</b> is what a step takes on top of
its products, convolutions and update called one after the other. <b>first step</b> is the time
until the first step is done at full speed: set-up, building, tracing, compiling with an empty
cache, without imports. <b>host</b> is memory on top of a process in which all libraries are loaded.
<b>MFU</b> is the countable arithmetic per second as a share of what the device can do.
<b>loss</b> is how far the loss is from that of the hand loop with
the same loss function and optimizer after the same batches: all contestants must compute the same.
<b>own Benchmark</b> is how much longer the clock of all contestants says the training passes take
than fitkit's callback does.</p>
<p><b>Held, tie or not held</b> is worked out from the rows: how many times as long the other takes,
round by round, and within which bounds the median of many more rounds would lie (with a chance of
2 % to be wrong, by the sign test). It is a tie if what is asked for lies within these bounds. The
libraries have torch's loss and optimizer, and so has the row of fitkit eager that they are compared
with. Those of Keras cost more Python per step, whoever calls them: fitkit eager
with Keras's parts is compared with those who have the same, the hand loop and Keras fit.</p>
"""


def page(results: dict[str, Result]) -> str:
    """The page of one or more results, by name."""
    body = "".join(part for name, result in results.items() for part in section(name, result))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>fitkit benchmarks</title><style>{STYLE}</style></head><body>"
        f"<h1>How fast is training?</h1>{body}<h2>How to read this</h2>{READ}</body></html>\n"
    )


def section(name: str, result: Result) -> Iterator[str]:
    """A result: what it says, the charts, a chart and a table per case."""
    if name:
        yield f"<h2>{escape(name)}</h2>"
    yield f'<p class="about">{escape(words.measured(result))}</p>'
    yield items("lead", words.headlines(result))
    yield picture(charts.overview_chart(result), "All cases")
    if lines := bars.table(result):
        yield "<h3>Held, tie or not held</h3>" + html(lines, "verdicts")
    yield items("doubt", words.doubts(result), "To be known")
    for rows in tables.by_case(result).values():
        yield f"<h3>{escape(rows[0]['title'])}</h3>"
        yield picture(charts.case_chart(rows), rows[0]["title"])
        yield html(tables.case_table(rows))
    yield from growth(result)
    yield from built_in(result)


def growth(result: Result) -> Iterator[str]:
    lines = tables.curves(result)
    if lines:
        yield "<h3>How a step grows</h3>"
        yield picture(charts.curves_chart(result), "Growth")
        for axis, drawn in lines.items():
            yield f"<p>{escape(axis)}</p>" + html(tables.curve_table(drawn))


def built_in(result: Result) -> Iterator[str]:
    rows = tables.callbacks(result)
    if rows:
        yield "<h3>Built-in callbacks</h3>"
        yield picture(charts.callbacks_chart(result), "Callbacks")
        yield html(tables.callbacks_table(rows))


def items(kind: str, lines: Iterator[str], title: str = "") -> str:
    found = "".join(f"<li>{escape(line)}</li>" for line in lines)
    head = f"<p><b>{title}</b></p>" if title else ""
    return f'<div class="{kind}">{head}<ul>{found}</ul></div>' if found else ""


def picture(data: bytes | None, alt: str) -> str:
    """The PNG itself, as a data URI."""
    if data is None:
        return ""
    encoded = base64.b64encode(data).decode()
    return f'<p><img alt="{escape(alt)}" src="data:image/png;base64,{encoded}"></p>'


def html(cells_of: Table, kind: str = "") -> str:
    """A table; a note stands below the name in the first cell, or instead of all figures."""
    header, *rows = cells_of
    has_note = header[-1] == "note"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in (header[:-1] if has_note else header))
    lines = []
    for row in rows:
        name, *cells, note = [*row, *([] if has_note else [""])]
        figures = "".join(map(figure, cells))
        below = f'<div class="note">{escape(note)}</div>' if note else ""
        if note and not any(cells):
            figures, below = f'<td class="note" colspan="{len(cells)}">{escape(note)}</td>', ""
        lines.append(f"<tr><td>{escape(name)}{below}</td>{figures}</tr>")
    table = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{table}</table></div>'


def figure(cell: str) -> str:
    """A cell; one with a verdict has it below, in its color."""
    found = VERDICT.fullmatch(cell)
    if found is None:
        return f"<td>{escape(cell)}</td>"
    ratio, bounds, verdict = found.groups()
    kind = {bars.NOT_HELD: "missed", bars.HELD: "held"}.get(verdict, "tie")
    return f'<td class="{kind}">{ratio}<br><small>{bounds}</small><br>{verdict}</td>'
