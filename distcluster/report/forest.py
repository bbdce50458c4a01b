"""The predictive check: how well a taxonomy can be learned from the embeddings, and from their projection."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

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
        Share of rows whose most probable class is theirs: a class is predicted where more than half of the trees say
        so, which among many classes is rare.
    confusion : (C, C) int64
        Rows by most probable class and true class.
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


def grow_forests(features: dict[str, npt.NDArray[np.float32]], code: Int64, seed: int) -> Forests | None:
    """Fit scikit-learn's random forest, defaults throughout, to indicators of the classes (a multi-label target).

    80 % of the rows are fitted, 20 % predicted, the classes in equal shares. Rows without a class, and classes of a
    single row, are left out.

    Parameters
    ----------
    features : dict of str to (n, D) float32
        By name: each gets a forest of its own.
    code : (n,) int64
        The class of each row; -1 for none.
    seed : int

    Returns
    -------
    Forests or None
        None where fewer than 50 rows or two classes are left.
    """
    classes, size = np.unique(code[code >= 0], return_counts=True)
    classes = classes[size >= 2]
    has_class = np.isin(code, classes)
    n = int(has_class.sum())
    if len(classes) < 2 or n < max(_LEAST_ROWS, len(classes) / _TEST):
        return None
    true = np.searchsorted(classes, code[has_class])
    indicator = np.eye(len(classes), dtype=np.int8)[true]
    train, test = train_test_split(np.arange(n), test_size=_TEST, stratify=true, random_state=seed)
    predictions = []
    for name, rows in features.items():
        x = rows[has_class]
        forest = RandomForestClassifier(random_state=seed, n_jobs=-1).fit(x[train], indicator[train])
        probability = np.stack([each[:, 1] for each in forest.predict_proba(x[test])], axis=1)
        predictions.append(judge(name, probability, true[test]))
    return Forests(len(train), len(test), classes.tolist(), predictions)


def judge(name: str, probability: npt.NDArray[np.float64], true: Int64) -> Prediction:
    """The measures of classes' probabilities, (n, C) float64, for rows that have one class each, (n,) int64."""
    C = probability.shape[1]
    found = probability > 0.5
    right = found == np.eye(C, dtype=np.bool_)[true]
    best = probability.argmax(axis=1)
    confusion = np.zeros((C, C), np.int64)
    np.add.at(confusion, (best, true), 1)
    return Prediction(
        name,
        subset_accuracy=float(right.all(axis=1).mean()),
        micro_accuracy=float(right.mean()),
        recall=float(found[np.arange(len(true)), true].mean()),
        best_class=float((best == true).mean()),
        confusion=confusion,
    )
