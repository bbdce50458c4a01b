"""The words that set a cluster apart: those that stand in more of its rows than chance would have it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST_TERMS = 20_000  # the most frequent words and pairs of words: a table of K x terms is held
_LEAST_ROWS = 2  # that a word stands in: one row's word says nothing of a cluster
_PRIOR = 0.01  # of the rows: so many more are taken to have each term as often as all rows have it
_WORD = r"(?u)\b[^\W\d_][\w'-]+\b"


def distinguishing_words(texts: Sequence[str], label: npt.NDArray[np.integer], K: int, n_words: int) -> list[list[str]]:
    """The words, and pairs of words, that set each cluster apart, by ``weights``.

    English stop words, and words of a single row, are left out, and of terms with a word in common all but the
    heaviest.

    Parameters
    ----------
    texts : sequence of str
    label : (n,) int
        The cluster of each text.
    K : int
    n_words : int

    Returns
    -------
    list of K lists of str
        The heaviest first; fewer where a cluster has fewer, none where the texts hold no words.
    """
    from scipy.sparse import csr_matrix  # a second to import, with scikit-learn; many runs have no texts
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        vectorizer = CountVectorizer(
            stop_words="english", token_pattern=_WORD, ngram_range=(1, 2), min_df=_LEAST_ROWS,
            max_features=_MOST_TERMS, binary=True, dtype=np.int64,
        )  # fmt: skip
        holds = vectorizer.fit_transform(texts)
    except ValueError:  # scikit-learn's answer to texts without a word that counts
        return [[] for _ in range(K)]
    n = len(label)
    of_cluster = csr_matrix((np.ones(n, np.int64), (label, np.arange(n))), shape=(K, n))
    weight = weights(np.asarray((of_cluster @ holds).todense()), np.bincount(label, minlength=K))
    terms = vectorizer.get_feature_names_out()
    return [_without_repetition(terms, each, n_words) for each in weight]


def weights(counts: npt.NDArray[np.int64], size: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How surely a term is more frequent in a cluster than elsewhere, and how far it is the cluster's own.

    The first is the z-score of the log odds ratio against all other rows, with a prior of the term's frequency in all
    rows (Monroe, Colaresi, Quinn 2008, equations 15 to 22, with rows for words). It is multiplied by the term's
    frequency in the cluster over its highest in any: what is typical of several clusters names the one that has it
    most.

    Parameters
    ----------
    counts : (K, terms) int64
        Rows of each cluster that hold each term.
    size : (K,) int64
        Rows of each cluster.

    Returns
    -------
    (K, terms) float64
        Not positive for terms that are no more frequent in the cluster.
    """
    n, total = size.sum(), counts.sum(axis=0)
    prior, without = _PRIOR * total, _PRIOR * (n - total)
    here, there = counts + prior, total - counts + prior
    with np.errstate(divide="ignore", invalid="ignore"):  # a term of every row has no odds
        odds = here / (size[:, None] - counts + without)
        others = there / ((n - size)[:, None] - (total - counts) + without)
        z = np.nan_to_num((np.log(odds) - np.log(others)) / np.sqrt(1.0 / here + 1.0 / there), posinf=0.0, neginf=0.0)
    frequency = here / (size[:, None] + _PRIOR * n)
    return np.asarray(z * frequency / frequency.max(axis=0))


def _without_repetition(terms: Sequence[str], weight: npt.NDArray[np.float64], n_words: int) -> list[str]:
    """The heaviest terms, none with a word of one before it, be it in the plural."""
    found: list[str] = []
    seen: set[str] = set()
    for term in np.argsort(-weight, kind="stable"):
        if len(found) == n_words or weight[term] <= 0.0:
            break
        stems = {word.removesuffix("s") for word in str(terms[term]).split()}
        if not stems & seen:
            found.append(str(terms[term]))
            seen |= stems
    return found
