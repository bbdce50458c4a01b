"""How a notebook clusters embeddings, on all cores: UMAP of a sample, its transform in chunks, a grid of mixtures.

    python -m benchmarks.notebook_way INPUT.zarr OUT.npz --sample S --mixture M --seed 0 --ks 1 2 ... --types full ...

As one would write it with umap-learn and scikit-learn: the sample is fitted with a seed, all rows are transformed,
10,000 at a time, every candidate is fitted on M of them, the least BIC labels all. OUT holds labels and seconds.
"""

import argparse
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import zarr
from sklearn.mixture import GaussianMixture
from umap import UMAP

CHUNK = 10_000

seconds: dict[str, float] = {}


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Keep how long it took."""
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began
    print(f"{name}: {seconds[name]:.1f} s", flush=True)


def main() -> None:
    """The notebook, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input")
    parser.add_argument("out")
    parser.add_argument("--sample", type=int, required=True)
    parser.add_argument("--mixture", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ks", type=int, nargs="+", required=True)
    parser.add_argument("--types", nargs="+", required=True)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of convergence, and that a seed means one thread
    with stage("read"):
        rows = np.asarray(zarr.open_array(arguments.input, mode="r")[:], np.float32)
        order = np.random.default_rng(arguments.seed).permutation(len(rows))
    with stage("fit_umap"):
        mapper = UMAP(n_components=5, n_neighbors=15, min_dist=0.0, metric="cosine", random_state=arguments.seed)
        mapper.fit(rows[order[: arguments.sample]])
    with stage("transform"):
        points = np.concatenate([mapper.transform(rows[i : i + CHUNK]) for i in range(0, len(rows), CHUNK)])
    with stage("grid"):
        some = points[order[arguments.sample :][: arguments.mixture]]
        fits = [
            GaussianMixture(k, covariance_type=kind, random_state=arguments.seed).fit(some)
            for k in arguments.ks
            for kind in arguments.types
        ]
        best = min(fits, key=lambda fit: fit.bic(some))
    with stage("label"):
        label = np.concatenate(
            [best.predict_proba(points[i : i + CHUNK]).argmax(axis=1) for i in range(0, len(points), CHUNK)]
        )
    np.savez(
        arguments.out, label=label, stages=list(seconds), seconds=list(seconds.values()),
        chosen=f"{best.covariance_type}-{best.n_components}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
