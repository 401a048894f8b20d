"""The order of the tables in a document: the most important ones open and first, the others folded behind a line."""

import re
from collections.abc import Mapping

OPEN = (
    r"GLUE",
    r"IMDb",
    r"SQuAD 1\.1",
    r"What .+ retains",
    r"Size",
    r"Speed of teacher and student",
    r"Speed and memory",
)


def ordered(sections: str) -> dict[str, str]:
    """Return the sections by their titles, those of OPEN first."""
    parts = unfold(sections)
    first = [title for pattern in OPEN for title in parts if re.fullmatch(pattern, title)]
    return {title: parts[title] for title in (*first, *(title for title in parts if title not in first))}


def plain(sections: Mapping[str, str]) -> str:
    """Write sections below their headings."""
    return "\n\n".join(f"### {title}\n\n{body}" for title, body in sections.items())


def fold(sections: Mapping[str, str]) -> str:
    """Write the sections of OPEN as they are, and each of the others as a `details` block that GitHub shows closed."""
    shown = {title: body for title, body in sections.items() if any(re.fullmatch(pattern, title) for pattern in OPEN)}
    # GitHub reads what is inside as Markdown only after a blank line
    hidden = [
        f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
        for title, body in sections.items()
        if title not in shown
    ]
    return "\n\n".join([plain(shown), *hidden])


def unfold(document: str) -> dict[str, str]:
    """Return the sections of a document by their titles, folded or not, without what stands before the first."""
    text = re.sub(r"<details>\n<summary>(.+)</summary>", r"### \1", document).replace("\n</details>", "")
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}
