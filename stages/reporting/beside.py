"""Published rows below ours in any table, and what ours differ from them by: the one place that lays them out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from stages.reporting.markdown import DASH, Footnotes
from stages.reporting.published import PublishedRow

RATIOS_ONLY = "ratios only"
WHY_RATIOS = "another model, other data or another machine, so that only ratios stand beside ours"


@dataclass(frozen=True)
class Beside:
    """Our figures by row and column, and the columns in which published ones may stand beside them.

    `ratios` compare between any two models, `absolute` figures only within the same model and kind of data. `units`
    stand behind a column's figures.
    """

    columns: Sequence[str]
    ours: Mapping[str, Mapping[str, float]]
    name: Callable[[str], str]
    absolute: Collection[str] = ()
    ratios: Collection[str] = ()
    units: Mapping[str, str] = field(default_factory=dict)

    def lines(self, rows: Sequence[PublishedRow], notes: Footnotes) -> list[list[str]]:
        """Lay out the published rows that compare in some column, each followed by ours minus it."""
        return [line for row in rows for line in self._pair(row, notes)]

    def _pair(self, row: PublishedRow, notes: Footnotes) -> list[list[str]]:
        shown = {key: value for key, value in row.figures.items() if key in self.absolute or key in self.ratios}
        only_ratios = shown.keys() <= set(self.ratios)
        if not shown or (only_ratios and row.model not in self.ours):
            return []
        label = row.label + notes.mark(row.label, row.note)
        if only_ratios:
            label += f", {RATIOS_ONLY}{notes.mark(RATIOS_ONLY, WHY_RATIOS)}"
        lines = [[label, *self._cells(shown, row.digits, "")]]
        difference = row.difference({key: value for key, value in self.ours.get(row.model, {}).items() if key in shown})
        if difference:
            first = f"{self.name(row.model)} here minus published: {row.source}"
            lines.append([first, *self._cells(difference, row.digits, "+z")])
        return lines

    def _cells(self, values: Mapping[str, float], digits: int, sign: str) -> list[str]:
        return [
            f"{values[key]:{sign}.{digits}f}{self.units.get(key, '')}" if key in values else DASH
            for key in self.columns
        ]
