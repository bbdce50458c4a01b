"""The template of a simulated job: a small one of the same shape, whose items stand for those of the large one."""

import json
import re
import subprocess
import sys
import uuid
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.end_to_end import write_rows
from benchmarks.rows import curved
from distcluster.numerics.partition import Partitioning
from distcluster.numerics.sampling import auto_sizes
from distcluster.numerics.shown_rows import SHOWN
from distcluster.stages.flow import STAGES
from distcluster.storage.array_store import checksum
from distcluster.storage.records import Part, Record, record_key
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import RowArray

TEMPLATE = "s3://bucket/template"
FEATURES = 384  # of the large job
MIXTURE: dict[str, Any] = {
    "n_components": [2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128],
    "n_init": 1,
    "max_iter": 8,
}
_ROWS, _BLOCK, _FEATURES = 8_192, 4_096, 16  # a block holds the mixture subsample


def make_template(directory: Path) -> None:
    """A small job of the same shape, really run."""
    place = directory / "small.zarr"
    write_rows(place, curved(_FEATURES, _ROWS, 0), (_ROWS, _FEATURES))
    tables = {
        "input": {"url": str(place)}, "output": {"url": TEMPLATE}, "mixture": MIXTURE,
        "sample": {"rows": 2_000, "mixture_rows": 4_000}, "report": {"write": "never"},
        "assign": {"block_rows": _BLOCK, "partition_rows": _BLOCK},
    }  # fmt: skip
    job = directory / "small.toml"
    job.write_text("\n".join(f"{table}.{key} = {json.dumps(value)}" for table, keys in tables.items()
                             for key, value in keys.items()))  # fmt: skip
    subprocess.run([sys.executable, "-m", "distcluster", "run", str(job), "-q"], check=True, stdout=subprocess.DEVNULL)


def thin(template: Run, parts: Partitioning) -> None:
    """Let partitions of the template sample and show as few rows as a large run's do: of a small run all are taken."""
    sampled = -(-sum(auto_sizes("auto", "auto", parts.n_rows)) // len(parts))
    shown = parts.partition_rows // -(-parts.n_rows // SHOWN)
    for stage in ("scan", "label_rows"):
        for item, record in template.records.of_stage(stage).items():
            key = f"partial/{stage}/{item}.npz"
            if stage == "scan":  # has been dropped
                own = {"row": np.zeros(sampled, np.int64), "vector": np.zeros((sampled, FEATURES), np.float32)}
            else:
                own = {each.rpartition("/")[2]: template.store.read_array(each, ()) for each in record.arrays}
                own["shown"] = own["shown"][:shown]
            objects = record.objects | template.store.put_arrays(key, own)
            arrays = {f"{key}/{name}": checksum(values) for name, values in own.items()}
            template.records.write(stage, item, replace(record, arrays=arrays, objects=objects))


def likeness(run: Run, template: Run, stage: str, item: str) -> tuple[Record, str]:
    """The record of an item as the template has one, and the key of that one: its namesake, or of as many by turns."""
    found = _records(template, stage)
    if item in found:
        old = item
    else:
        others = sorted(each for each in found if each.rpartition("/")[0] == item.rpartition("/")[0])
        old = others[int(item.rpartition("/")[2]) % len(others)]
    record = found[old]
    new = replace(
        record,
        parts={path: _moved(run, stage, path, item, part) for path, part in record.parts.items()},
        arrays={_renamed(path, old, item): each for path, each in record.arrays.items()},
        objects={_renamed(key, old, item): size for key, size in record.objects.items()},
        id=uuid.uuid4().hex,
    )
    return new, f"template/{record_key(stage, old)}"


@cache
def _records(template: Run, stage: str) -> dict[str, Record]:
    return template.records.of_stage(stage)


def _moved(run: Run, stage: str, path: str, item: str, part: Part) -> Part:
    partition, size = run.partitioning[int(item)], run.partitioning.block_rows
    if path in _of_blocks(stage):
        return replace(part, start=partition.start // size, stop=-(-partition.stop // size))
    return replace(part, start=partition.start, stop=partition.stop)


@cache
def _of_blocks(stage: str) -> set[str]:
    writes = next(each for each in STAGES if each.name == stage).writes
    return {each.path for each in writes if isinstance(each, RowArray) and each.counts == "blocks"}


def _renamed(key: str, old: str, new: str) -> str:
    if old == new:
        return key
    if f"/{old}.npz" in key:
        return key.replace(f"/{old}.npz", f"/{new}.npz")
    return re.sub(f"/c/{old}(?=/|$)", f"/c/{new}", key)
