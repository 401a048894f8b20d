"""Tables as text: Markdown for the README and aligned columns for the terminal."""

from collections.abc import Sequence

DASH = "\N{EN DASH}"
_SUPERSCRIPTS = str.maketrans("0123456789", "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a GitHub table, first column left and the others right, padded so that it reads as plain text too."""
    widths = _widths([header, *rows])
    rules = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    lines = ["| " + " | ".join(_pad(row, widths)) + " |" for row in [header, *rows]]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out the same for a terminal, with a rule below the header."""
    widths = _widths([header, *rows])
    lines = ["  ".join(_pad(row, widths)).rstrip() for row in [header, *rows]]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]


def _pad(row: Sequence[str], widths: list[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


class Footnotes:
    """Numbered notes of one table; tasks with the same note share its mark."""

    def __init__(self) -> None:
        self._tasks: dict[str, list[str]] = {}

    def mark(self, task: str, note: str) -> str:
        """Return the superscript that stands behind a task's name; nothing where there is no note."""
        if not note:
            return ""
        tasks = self._tasks.setdefault(note, [])
        if task not in tasks:
            tasks.append(task)
        return str(list(self._tasks).index(note) + 1).translate(_SUPERSCRIPTS)

    def text(self) -> str:
        """Join the notes, one a line, to be put under the table."""
        lines = [
            f"{str(number).translate(_SUPERSCRIPTS)} {', '.join(tasks)}: {note}."
            for number, (note, tasks) in enumerate(self._tasks.items(), start=1)
        ]
        return "  \n".join(lines)  # two spaces: a line break in Markdown


def section(heading: str, note: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Footnotes) -> str:
    """Lay out a table below its heading and a note, and its footnotes below it."""
    parts = [f"### {heading}", note, markdown_table(header, rows), notes.text()]
    return "\n\n".join(part for part in parts if part)
