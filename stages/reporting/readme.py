"""Puts the report's tables between the markers of README.md: `python -m stages.reporting.readme`."""

from pathlib import Path

from stages.core import entry
from stages.core.artifacts import atomic_path
from stages.core.errors import UserError

README = Path("README.md")
TABLES = Path("plots/report/tables.md")
BEGIN, END = "<!-- tables:begin -->", "<!-- tables:end -->"


def main() -> None:
    """Replace the tables in README.md by those of the last run."""
    if not TABLES.exists():
        raise UserError(f"{TABLES}: not found; `dvc repro report` makes it")
    text = splice(README.read_text(encoding="utf-8"), TABLES.read_text(encoding="utf-8"))
    with atomic_path(README) as temporary:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(README.stat().st_mode)
    print(f"{README}: tables replaced")


def splice(readme: str, tables: str) -> str:
    """Put `tables` between the text's markers; UserError unless each marker is there once, in order."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end or BEGIN in rest or END in before + after:
        raise UserError(f"{README}: must hold the lines {BEGIN} and {END} once each, in this order")
    return f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{after}"


if __name__ == "__main__":
    entry.run(main)
