"""Wrong job files, inputs, runs, sources and items by the thousand: every one ends in a sentence, or works.

    python -m benchmarks.attack --each 2000 --seed 0 --json benchmarks/results/attack.json

Every case is a valid thing with some random changes: keys and values of a job file, bytes of a Zarr array, of a
finished run, of files to ingest, of items. What is allowed is to succeed, or one of distcluster's own errors; anything
else, a file opened for writing outside the case's directory, or more memory than the bound, is a finding.
"""

import argparse
import json
import os
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from distcluster.cli.main import app
from distcluster.environment import environment
from distcluster.errors import ExpectedError
from distcluster.job_file import load_job
from distcluster.numerics.partition import Partitioning
from distcluster.prepare import check_job
from distcluster.report.shown_items import kept_items
from distcluster.storage.faults import storage_errors
from distcluster.storage.inputs import read_block
from distcluster.storage.items import read_items
from distcluster.storage.run import Run

MOST_BYTES = 2**31
"""What a case may add to the memory of the process."""

VALUES = [
    -1, 0, 1, 7, 10**18, 10**400, -0.5, 1e308, "inf", "nan", True, "", "\0", "../..", "~nobody/x", "foo://x",
    "memory://x", "file:///etc/../etc", "s3://", "http://[", "zip://a::file:///etc/passwd", "\x1b[2J", "é" * 300, [],
    [1, [2, [3]]], {"a": 1}, "1979-05-27", "4GiB", "x" * 5000,
]  # fmt: skip


class Watch:
    """Notes what is opened for writing outside a place; an audit hook stays for as long as the process."""

    def __init__(self) -> None:
        self.place: Path | None = None
        self.outside: set[str] = set()
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or self.place is None or not isinstance(arguments[0], str):
            return
        path = Path(arguments[0]).absolute()
        allowed = path.is_relative_to(self.place) or path.is_relative_to("/dev") or "__pycache__" in path.parts
        if not allowed and set(arguments[1] or "") & set("wax+"):
            self.outside.add(str(path))


def toml(value: Any) -> str:
    """A value as TOML has it; what JSON writes is TOML."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)


def command(*words: str | Path) -> None:
    """The command line, without a process of its own for every case."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        app([str(word) for word in words], standalone_mode=False)


def job_file(place: Path, chance: random.Random) -> None:
    """A job with a few keys changed, added, repeated, or with torn text."""
    keys = {
        "input.url": str(place.parent / "good.zarr"), "output.url": str(place / "out"), "sample.rows": 200,
        "projection.metric": "euclidean", "mixture.n_components": [2, 4], "mixture.reg_covar": 1e-6,
        "projection.n_epochs": 5, "deploy.memory_limit": "2GiB", "assign.block_rows": 64, "report.labels": [],
        "deploy.n_workers": 1, "mixture.tol": 1e-3, "selection.replicates": 0, "projection.views": [2],
        "deploy.dashboard_address": "127.0.0.1:0",
    }  # fmt: skip
    for _ in range(chance.randint(0, 3)):
        keys[chance.choice([*keys, "input.array", "report.items", "no.such", "input"])] = chance.choice(VALUES)
    text = "\n".join(f"{key} = {toml(value)}" for key, value in keys.items())
    if chance.random() < 0.1:
        text = mutated(text.encode(), chance).decode(errors="replace")
    if chance.random() < 0.02:
        text += "\nx = " + "[" * 5000
    (place / "job.toml").write_text(text)
    command("plan", place / "job.toml")


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bytes with some flipped, cut, repeated, or numbers and words replaced."""
    data = bytearray(content)
    kind = chance.randrange(5)
    if kind == 0:
        return bytes(data[: chance.randrange(len(data) + 1)])
    if kind == 1 and data:
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(data)
    if kind == 2:
        return chance.randbytes(chance.randrange(200))
    if kind == 3:
        return bytes(data) * 2
    digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
    if digits:
        at = chance.choice(digits)
        data[at : at + 1] = str(chance.choice([0, -1, 10**9, 10**15, 10**30, 1.5])).encode()
    return bytes(data)


def mutate_files(place: Path, chance: random.Random) -> dict[Path, bytes]:
    """Change or remove a file or two below a place; gives what they held."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    chosen = {path: path.read_bytes() for path in chance.sample(files, min(len(files), chance.randint(1, 2)))}
    for path, content in chosen.items():
        if chance.random() < 0.1:
            path.unlink()
        else:
            path.write_bytes(mutated(content, chance))
    return chosen


def input_opener(place: Path, chance: random.Random) -> None:
    """A Zarr group with damaged metadata or chunks, opened, checked and read."""
    shutil.copytree(place.parent / "good.zarr", place / "in.zarr")
    mutate_files(place / "in.zarr", chance)
    url = str(place / "in.zarr")
    (place / "job.toml").write_text(
        f'input.url = "{url}"\noutput.url = "{place / "out"}"\nassign.block_rows = 64\nprojection.metric = "euclidean"'
    )
    command("plan", place / "job.toml")
    checked = check_job(load_job(place / "job.toml"))
    parts = Partitioning(checked.plan.rows, 64, 4096)
    for block in parts.blocks(parts[0]):
        read_block(checked.array, url, block)


def run_opener(place: Path, chance: random.Random) -> None:
    """A run with damaged records, settings, arrays and notes."""
    damaged = mutate_files(place.parent / "run", chance)
    try:
        run = Run(str(place.parent / "run"))
        kept_items(run)
        run.last_error()
        command("status", run.url)
        command("export", run.url, place / "exported", "--to", chance.choice(["parquet", "sklearn"]))
    finally:
        for path, content in damaged.items():
            path.write_bytes(content)


def ingest_source(place: Path, chance: random.Random) -> None:
    """A file of vectors, damaged."""
    source = place / chance.choice(["rows.npy", "rows.npz", "rows.parquet"])
    shutil.copy(place.parent / source.name, source)
    source.write_bytes(mutated(source.read_bytes(), chance))
    column, on_invalid = chance.choice([None, "embedding", "nothing"]), chance.choice(["error", "skip"])
    columns = [] if column is None else ["--column", column]
    command("ingest", source, place / "made.zarr", *columns, "--on-invalid", on_invalid)


def items(place: Path, chance: random.Random) -> None:
    """Items of every format, damaged."""
    source = place / chance.choice(["items.txt", "items.jsonl", "items.parquet"])
    shutil.copy(place.parent / source.name, source)
    source.write_bytes(mutated(source.read_bytes(), chance))
    read_items(str(source), [0, 3, 19, 10**12], chance.choice(["text", "nothing"]))


TARGETS: dict[str, Callable[[Path, random.Random], None]] = {
    "job file": job_file, "input": input_opener, "run": run_opener, "ingest": ingest_source, "items": items,
}  # fmt: skip


def make_good(place: Path, run: Path) -> None:
    """The valid things that cases are made from."""
    rows = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    zarr.create_array(str(place / "good.zarr"), name="embeddings", data=rows, chunks=(100, 4))
    np.save(place / "rows.npy", rows)
    np.savez(place / "rows.npz", embedding=rows)
    pq.write_table(pa.table({"embedding": list(rows)}), place / "rows.parquet")
    texts = [f"item {i}" for i in range(20)]
    (place / "items.txt").write_text("\n".join(texts))
    (place / "items.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    pq.write_table(pa.table({"text": texts}), place / "items.parquet")
    shutil.copytree(run, place / "run")


def attack(run: Path, each: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """So many cases of every target: how they ended, and the findings."""
    ends: dict[str, Counter[str]] = {}
    findings: list[str] = []
    watch = Watch()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_good(root, run)
        for target, case in TARGETS.items():
            ends[target] = Counter()
            for number in range(each):
                end = one_case(case, root / "case", watch, random.Random(f"{target} {seed} {number}"))
                ends[target][end.partition(":")[0]] += 1
                if end.startswith("finding"):
                    findings.append(f"{target} {seed} {number}: {end}")
    return ends, findings


def one_case(case: Callable[[Path, random.Random], None], place: Path, watch: Watch, chance: random.Random) -> str:
    """How a case ended: fine, a sentence with its exit code, or a finding."""
    place.mkdir()
    watch.place, watch.outside = place.parent, set()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with storage_errors():
            case(place, chance)
        end = "fine"
    except ExpectedError as error:
        end = f"exit {error.exit_code}"
    except Exception as error:
        end = f"finding: {type(error).__name__}: {error}"[:300]
    watch.place = None
    shutil.rmtree(place, ignore_errors=True)
    if watch.outside:
        end = f"finding: wrote {sorted(watch.outside)}"
    if 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > MOST_BYTES:
        end = "finding: too much memory"
    return end


def main() -> None:
    """Attack, print a table, and fail where there is a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--each", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ends, findings = attack(arguments.run, arguments.each, arguments.seed)
    for target, counts in ends.items():
        print(
            f"{target:10} {sum(counts.values()):6,}  " + ", ".join(f"{end} {n:,}" for end, n in sorted(counts.items()))
        )
    print("\n".join(findings[:20]))
    if arguments.json:
        arguments.json.write_text(json.dumps({"ends": ends, "findings": findings, "versions": environment()}, indent=2))
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
