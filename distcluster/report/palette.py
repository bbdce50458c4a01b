"""The colours of clusters, told apart by colour-blind readers too, on light paper and on dark."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_CLASSES = 100  # with colours of their own; the rarer ones are grey

COLOURS = (
    "#0475ff", "#c24100", "#f72da6", "#efba00", "#39dbff", "#00dfa2", "#008a61", "#eb1ce3", "#00868e", "#ffa2d2",
    "#ff6545", "#fb3d82", "#08aeba", "#35b69e", "#ba3d7d", "#7965be", "#fbae75", "#289e49", "#00baff", "#1496ff",
    "#df1cae", "#659292", "#ff69ef", "#ff79ae", "#14dfbe", "#1cba71", "#04d7d2", "#d2084d", "#fb71c6", "#41ca00",
    "#659e00", "#df1075", "#249ab6", "#249a71", "#ff8279", "#fba2e3", "#fb315d", "#f7aaba", "#fb39c6", "#ff5500",
    "#c600ae", "#41ce59", "#e35d9a", "#9e86a6", "#418628", "#e72d35", "#be14f3", "#79b6b6", "#e78a92", "#8e9ad7",
    "#b66d65", "#ba398e", "#558ad2", "#28c6df", "#00e749", "#e7188e", "#ffa696", "#7dbea6", "#557d75", "#10b245",
    "#b679ff", "#ff45ff", "#ff61b2", "#79aa8e", "#0caea2", "#b66192", "#418a4d", "#2d86aa", "#ff8e45", "#b6aaff",
    "#1c969a", "#00df7d", "#20ba1c", "#d2a2ba", "#ca61c2", "#ce28ca", "#249608", "#fb6175", "#cea2d7", "#d21835",
    "#7dd7ce", "#f7412d", "#ba8aa6", "#d7454d", "#e33900", "#9e5d6d", "#31cab2", "#00aa6d", "#d714f7", "#a27582",
    "#5d8286", "#ff9200", "#ff559a", "#aaa661", "#ff92ff", "#14a68e", "#ff35df", "#3dca7d", "#8e71a2", "#c68ece",
)  # fmt: skip
"""In the order in which they differ most. From the package glasbey 0.4.0, which takes 20 seconds to find them and so is
no dependency: ``create_palette(100, lightness_bounds=(38, 72), chroma_bounds=(20, 90), colorblind_safe=True,
cvd_type="deuteranomaly", cvd_severity=80)``."""


def colours(n: int) -> list[str]:
    """As many colours as there are clusters; past a hundred they come round again.

    Parameters
    ----------
    n : int

    Returns
    -------
    list of str
        ``#rrggbb``.
    """
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def colouring(code: npt.NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Rows coloured by class, for the page's scripts: the most frequent classes differ most.

    Parameters
    ----------
    code : (n,) int64
        -1 for rows without a class.
    classes : sequence of str

    Returns
    -------
    dict
        ``of``: each row's place among ``names``, -1 for none, (n,) int64; ``colours`` of these.
    """
    found, size = np.unique(code[code >= 0], return_counts=True)
    frequent = found[np.argsort(-size, kind="stable")][:_CLASSES]
    place = np.full(len(classes) + 1, -1)  # the last stands for none
    place[frequent] = np.arange(len(frequent))
    return {
        "of": place[code],
        "names": [classes[each] for each in frequent],
        "colours": colours(len(frequent)),
    }
