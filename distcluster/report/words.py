"""The words that set a cluster apart: class-based TF-IDF."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_MOST_WORDS = 20_000  # the most frequent ones: a table of K x words is held
_LEAST_ROWS = 2  # that a word stands in: one row's word says nothing of a cluster
_WORD = r"(?u)\b[^\W\d_][\w'-]+\b"


def distinguishing_words(texts: Sequence[str], label: npt.NDArray[np.integer], K: int, n_words: int) -> list[list[str]]:
    """The words of each cluster with the largest class-based TF-IDF (Grootendorst 2022, BERTopic, equation 2).

    A word's weight in a cluster is tf log(1 + A / f): tf its share of the cluster's words, f how often it stands in all
    clusters, A the mean number of words of a cluster. English stop words, and words of a single row, are left out.

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
        The heaviest word first; fewer where a cluster has fewer, none where the texts hold no words.
    """
    from scipy.sparse import csr_matrix  # a second to import, with scikit-learn; many runs have no texts
    from sklearn.feature_extraction.text import CountVectorizer

    try:
        vectorizer = CountVectorizer(
            stop_words="english", token_pattern=_WORD, min_df=_LEAST_ROWS, max_features=_MOST_WORDS, dtype=np.int64
        )
        counts = vectorizer.fit_transform(texts)
    except ValueError:  # scikit-learn's answer to texts without a word that counts
        return [[] for _ in range(K)]
    n = len(label)
    of_cluster = csr_matrix((np.ones(n, np.int64), (label, np.arange(n))), shape=(K, n))
    weight = weights(np.asarray((of_cluster @ counts).todense()))
    names = vectorizer.get_feature_names_out()
    best = np.argsort(-weight, axis=1, kind="stable")[:, :n_words]
    return [[str(names[word]) for word in best[k] if weight[k, word] > 0.0] for k in range(K)]


def weights(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Class-based TF-IDF of word counts.

    Parameters
    ----------
    counts : (K, words) int64
        How often each word stands in the texts of each cluster.

    Returns
    -------
    (K, words) float64
    """
    of_cluster = counts.sum(axis=1)
    share = counts / np.maximum(of_cluster, 1)[:, None]
    mean_words = of_cluster[of_cluster > 0].mean()
    return np.asarray(share * np.log1p(mean_words / np.maximum(counts.sum(axis=0), 1)))
