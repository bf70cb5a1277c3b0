"""All rows, in the order of the page."""

from tests.faults import (
    rows_data,
    rows_disk,
    rows_formats,
    rows_messages,
    rows_process,
    rows_resume,
    rows_security,
    rows_signals,
)

ROWS = [
    *rows_process.ROWS,
    *rows_disk.ROWS,
    *rows_resume.ROWS,
    *rows_signals.ROWS,
    *rows_data.ROWS,
    *rows_security.ROWS,
    *rows_formats.ROWS,
    *rows_messages.ROWS,
]
