"""How every figure looks and is saved: as a picture for documents, and as SVG that takes a page's colours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

mpl.use("agg")
INK, PAPER = "#010203", "#fdfeff"  # as good as black and white; a page puts its own colours in their place
STYLE: Any = {
    "font.size": 11,
    "font.sans-serif": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    "svg.fonttype": "none",
}


@contextmanager
def saved(paths: Sequence[Path], size: tuple[float, float], layout: Literal["constrained", "none"]) -> Iterator[Figure]:
    """Yield an empty figure of `size` in inches, and save it in the format of each path's suffix, .png or .svg.

    Equal figures give equal files.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": paths[0].stem}):  # keeps ids of two figures on a page apart
        figure = plt.figure(figsize=size, layout=layout)
        yield figure
        for path in paths:
            vector = path.suffix == ".svg"
            metadata: dict[str, None] = {"Date": None, "Creator": None} if vector else {"Software": None}
            figure.savefig(path, dpi=120, transparent=vector, metadata=metadata)
        plt.close(figure)
