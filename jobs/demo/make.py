"""Make the demo's data from the WordNet embeddings: every label represented, 12,000 rows.

    python jobs/demo/make.py DIRECTORY

DIRECTORY holds embeddings.npy (117659 x 384 float16), items.txt, labels.npy and label_names.json. Rows are drawn
without replacement with a fixed seed: a tenth of every label, at least 40 rows of each, then more from all labels up to
12,000; their order is kept.
"""

import json
import sys
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

ROWS, LEAST = 12_000, 40


def draw(labels: np.ndarray) -> np.ndarray:
    """Row numbers, ascending."""
    random = np.random.default_rng(0)
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(random.choice(rows, min(len(rows), max(LEAST, len(rows) // 10)), replace=False))
    rows = np.concatenate(chosen)
    rest = np.setdiff1d(np.arange(len(labels)), rows)
    return np.sort(np.concatenate([rows, random.choice(rest, ROWS - len(rows), replace=False)]))


def main() -> None:
    """Write embeddings.zarr.zip, items.txt, labels.txt beside this file."""
    source, target = Path(sys.argv[1]), Path(__file__).parent
    labels = np.load(source / "labels.npy")
    names = json.loads((source / "label_names.json").read_text())
    items = (source / "items.txt").read_text().splitlines()
    rows = draw(labels)
    with zarr.storage.ZipStore(target / "embeddings.zarr.zip", mode="w") as store:
        zarr.create_array(
            store,
            name="embeddings",
            data=np.load(source / "embeddings.npy", mmap_mode="r")[rows],
            chunks=(2048, 384),
            compressors=[ZstdCodec(level=9)],
        )
    (target / "items.txt").write_text("".join(f"{items[row]}\n" for row in rows))
    (target / "labels.txt").write_text("".join(f"{names[labels[row]]}\n" for row in rows))


if __name__ == "__main__":
    main()
