"""How every figure looks and is saved."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

mpl.use("agg")
STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


@contextmanager
def png(path: Path, size: tuple[float, float], layout: Literal["constrained", "none"]) -> Iterator[Figure]:
    """Yield an empty figure of `size` in inches, and save it; equal figures give equal files."""
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=size, layout=layout)
        yield figure
        figure.savefig(path, dpi=120, metadata={"Software": None})
        plt.close(figure)
