"""The commands of a document: those of its indented blocks, and those between backticks in its text."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = "dvc|export|git|hf|make|pip|pre-commit|pytest|python|ray|source|torchrun"
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )?(?:{PROGRAMS}) \S.*", re.DOTALL)


def blocks(document: str) -> list[str]:
    """Indented blocks, without their indentation."""
    text = re.sub(r"(?ms)^```.*?^```$", "", (ROOT / document).read_text())
    found = re.findall(r"(?m)(?<=\n\n)(?: {4}.*\n)+", text)
    return [re.sub(r"(?m)^ {4}", "", block) for block in found]


def block_commands(document: str) -> list[str]:
    """Commands of the blocks, in order, without comments; a block whose first line is no command has none."""
    found = []
    for block in blocks(document):
        if COMMAND.match(block):
            lines = block.replace("\\\n", " ").splitlines()
            found += [re.sub(r"\s+", " ", re.sub(r"(^|\s)# .*", "", line)).strip() for line in lines]
    return [line for line in found if line]


def inline_commands(document: str) -> list[str]:
    """Commands between backticks, in order, outside the blocks."""
    text = re.sub(r"(?ms)^```.*?^```$|^ {4}.*?$", "", (ROOT / document).read_text())
    return [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", text) if COMMAND.fullmatch(code)]
