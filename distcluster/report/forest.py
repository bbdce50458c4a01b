"""The predictive check: how well a taxonomy can be learned from the embeddings, and from their projection."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

_TEST = 0.2
_LEAST_ROWS = 50  # of which nothing could be said

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a forest predicts for the rows that it did not see.

    Attributes
    ----------
    name : str
        What it was grown on.
    subset_accuracy : float
        Share of rows whose classes are all right, and no other.
    micro_accuracy : float
        Share of all decisions, one a row and class, that are right.
    recall : float
        Share of the rows' classes that are found.
    best_class : float
        Share of rows that have their most probable class: a class is predicted where more than half of the trees say
        so, which among many classes is rare.
    confusion : (C, C) int64
        Rows by most probable class and true class; a row of several classes counts for each of them, the others of
        its own left aside.
    """

    name: str
    subset_accuracy: float
    micro_accuracy: float
    recall: float
    best_class: float
    confusion: Int64


@dataclass(frozen=True, slots=True)
class Forests:
    """One prediction a kind of features, on the same split."""

    n_train: int
    n_test: int
    classes: list[int]
    """The codes of the classes, as ``Prediction.confusion`` has them."""
    predictions: list[Prediction]


def grow_forests(features: dict[str, npt.NDArray[np.float32]], has: npt.NDArray[np.bool_], seed: int) -> Forests | None:
    """Fit scikit-learn's random forest, defaults throughout, to indicators of the classes (a multi-label target).

    80 % of the rows are fitted, 20 % predicted, the classes in equal shares: of a row's classes the rarest counts.
    Rows without a class, and classes of a single row, are left out.

    Parameters
    ----------
    features : dict of str to (n, D) float32
        By name: each gets a forest of its own.
    has : (n, C) bool
        The classes of each row.
    seed : int

    Returns
    -------
    Forests or None
        None where fewer than 50 rows or two classes are left.
    """
    from sklearn.ensemble import RandomForestClassifier  # a second to import; many runs have no labels
    from sklearn.model_selection import train_test_split

    classes = np.flatnonzero(has.sum(axis=0) >= 2)
    has_class = has[:, classes].any(axis=1)
    n = int(has_class.sum())
    if len(classes) < 2 or n < max(_LEAST_ROWS, len(classes) / _TEST):
        return None
    true = has[np.ix_(has_class, classes)]
    train, test = train_test_split(np.arange(n), test_size=_TEST, stratify=strata(true), random_state=seed)
    predictions = []
    for name, rows in features.items():
        x = rows[has_class]
        forest = RandomForestClassifier(random_state=seed, n_jobs=-1).fit(x[train], true[train].astype(np.int8))
        predictions.append(measure_prediction(name, _probability(forest, x[test]), true[test]))
    return Forests(len(train), len(test), classes.tolist(), predictions)


def strata(true: npt.NDArray[np.bool_]) -> Int64:
    """The rarest class of each row, (n,); the commonest such one where a row would be alone in it."""
    rarest = np.where(true, true.sum(axis=0), len(true) + 1).argmin(axis=1)
    size = np.bincount(rarest)
    return np.where(size[rarest] == 1, size.argmax(), rarest)


def _probability(forest: "RandomForestClassifier", rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of each class, (n, C); that of one which all fitted rows have, or none, is certain."""
    columns = zip(forest.predict_proba(rows), forest.classes_, strict=True)
    return np.stack([each[:, 1] if len(values) == 2 else np.full(len(rows), values[0]) for each, values in columns], 1)


def measure_prediction(name: str, probability: npt.NDArray[np.float64], true: npt.NDArray[np.bool_]) -> Prediction:
    """The measures of classes' probabilities, (n, C) float64, for rows that have the classes ``true``, (n, C)."""
    C = probability.shape[1]
    found = probability > 0.5
    right = found == true
    best = probability.argmax(axis=1)
    confusion = np.zeros((C, C), np.int64)
    row, of = np.nonzero(true)
    rivals = np.where(true, -1.0, probability)[row]
    rivals[np.arange(len(of)), of] = probability[row, of]
    np.add.at(confusion, (rivals.argmax(axis=1), of), 1)
    return Prediction(
        name,
        subset_accuracy=float(right.all(axis=1).mean()),
        micro_accuracy=float(right.mean()),
        recall=float(found[true].mean()),
        best_class=float(true[np.arange(len(true)), best].mean()),
        confusion=confusion,
    )
