"""The order of the tables in a document: the most important ones open and first, the others folded behind a line."""

import re

OPEN = (
    r"GLUE",
    r"IMDb",
    r"SQuAD 1\.1",
    r"What .+ retains",
    r"Size",
    r"Speed of teacher and student",
    r"Speed and memory",
)


def fold(sections: str) -> str:
    """Put the sections of OPEN first, and each of the others into a `details` block that GitHub shows closed."""
    parts = {text.partition("\n")[0]: text.partition("\n")[2].strip() for text in _split(sections)}
    first = [title for pattern in OPEN for title in parts if re.fullmatch(pattern, title)]
    shown = [f"### {title}\n\n{parts[title]}" for title in first]
    # GitHub reads what is inside as Markdown only after a blank line
    hidden = [
        f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>"
        for title, body in parts.items()
        if title not in first
    ]
    return "\n\n".join([*shown, *hidden])


def unfold(document: str) -> dict[str, str]:
    """Return the sections of a document by their titles, folded or not."""
    plain = re.sub(r"<details>\n<summary>(.+)</summary>", r"### \1", document).replace("\n</details>", "")
    return {text.partition("\n")[0]: text.partition("\n")[2].strip() for text in _split(plain)}


def _split(sections: str) -> list[str]:
    """Split at the headings, without what stands before the first."""
    return re.split(r"^### ", sections, flags=re.MULTILINE)[1:]
