"""A stage is declared once: what everything else says of it follows, and what it says of itself is true."""

import json
import re
import shutil
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, SilentReporter, make_run, planted_rows, write_input
from test_runner import on_cluster

from distcluster.errors import CorruptError
from distcluster.execution import runner as runner_module
from distcluster.job_file import parse_job
from distcluster.numerics.mixture.criteria import Criteria
from distcluster.pipeline import deduplicate, flow
from distcluster.report.near_duplicates import duplicates, summarise_duplicates
from distcluster.stages import context, fitting, projecting, replicating, searching
from distcluster.stages.choosing import SELECT_CANDIDATE
from distcluster.stages.flow import DEDUPLICATES, STAGES, is_finished
from distcluster.stages.labelling import LABEL_ROWS, level_arrays
from distcluster.stages.matching import MATCH_CLUSTERS
from distcluster.stages.refining import PUBLISH_MIXTURE
from distcluster.storage import inputs, layout
from distcluster.storage.inputs import read_block
from distcluster.storage.records import Records
from distcluster.storage.run import Run
from distcluster.storage.run_arrays import RowArray

ROOT = Path(__file__).parent.parent


def run_here(command: Command) -> Run:
    """Run a command's job to the end on such a cluster."""
    tables: dict[str, dict[str, Any]] = {"input": {"url": str(command.source)}, "output": {"url": str(command.output)}}
    for key, value in command.settings.items():
        table, _, name = key.partition(".")
        tables.setdefault(table, {})[name] = value
    run = make_run(parse_job(tables))
    on_cluster(run, SilentReporter(), lambda runner: flow(run, runner))
    assert is_finished(run)
    return run


# --- what stages say of themselves ------------------------------------------------------------------------------


SEEN: dict[str, set[str]] = defaultdict(set)
INPUT_BYTES = Counter[str]()
"""By stage, the stages whose records or arrays its tasks have read in this process."""

_HERE = threading.local()  # the stage whose task a thread runs; the driver's own thread has none


def note(stage: str) -> None:
    if (of := getattr(_HERE, "stage", None)) is not None:
        SEEN[of].add(stage)


def traced_perform(ref: Any, stage: str, *arguments: Any, **options: Any) -> Any:
    """As ``perform``, with nothing kept from tasks before; a function of the module, for Dask pickles it by name."""
    for cached in (context._read_once, searching._opened_index, fitting._parameters_of):
        cached.cache_clear()
    _HERE.stage = stage
    SEEN[stage] |= set()
    try:
        return context.perform(ref, stage, *arguments, **options)
    finally:
        _HERE.stage = None


def counted_block(*of: Any) -> Any:
    """As ``read_block``."""
    block = read_block(*of)
    INPUT_BYTES[_HERE.stage] += block.nbytes
    return block


def noted(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Run, array: RowArray, *of: Any) -> Any:
        note(array.stage)
        return method(self, array, *of)

    return call


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """What is read from now on."""
    SEEN.clear()
    read, of_stage = Records.read, Records.of_stage
    monkeypatch.setattr(runner_module, "perform", traced_perform)
    monkeypatch.setattr(Records, "read", lambda self, stage, item: (note(stage), read(self, stage, item))[1])
    monkeypatch.setattr(
        Records, "of_stage", lambda self, stage, under="": (note(stage), of_stage(self, stage, under))[1]
    )
    for module in (fitting, projecting, replicating):  # threads of their own would not be known
        monkeypatch.setattr(module, "at_once", lambda read, items: list(map(read, items)))
    INPUT_BYTES.clear()
    monkeypatch.setattr(inputs, "read_block", counted_block)
    for name in ("read_rows", "read_partitions"):  # the second reads in threads of its own
        monkeypatch.setattr(Run, name, noted(getattr(Run, name)))
    return SEEN


def test_a_stage_reads_what_it_says_and_nothing_else(
    traced: dict[str, set[str]], new_command: Callable[..., Command], tmp_path: Path
) -> None:
    command = new_command(
        write_input(tmp_path / "input", planted_rows(4096, 4)[0]), sample__rows=400, sample__mixture_rows=400,
        mixture__n_components="auto", selection__replicates=2,
    )  # fmt: skip
    run_here(command)
    assert {stage.name: 4096 * 16 * 4 for stage in STAGES if stage.reads_input and stage.name in traced} == INPUT_BYTES
    declared = {stage.name: set(stage.reads) for stage in STAGES}
    idle = {
        "check_input", "check_new_rows", "probe_sample", "find_rare", "fit_pca", "match_clusters", "cross_labels",
        "sum_crosswalk", *(stage.name for stage in DEDUPLICATES),
    }  # fmt: skip
    assert traced.keys() == declared.keys() - idle
    for stage, read in traced.items():
        assert read <= declared[stage], stage
        not_read = declared[stage] - read - {"fit_pca", "match_clusters"}  # which this job does not ask for
        # The mixture of no iteration is the candidate's.
        assert not_read == ({"fit_candidates"} if stage == "publish_mixture" else set()), stage


def test_stages_that_follow_a_previous_run_read_what_they_say(
    traced: dict[str, set[str]], reference: Run, new_command: Callable[..., Command]
) -> None:
    """Of the previous run too, whose labels are read."""
    run_here(new_command(mixture__previous=reference.url, mixture__n_components=[8], projection__views=[]))
    for stage in (MATCH_CLUSTERS, PUBLISH_MIXTURE):
        assert traced[stage.name] - {"label_rows"} <= set(stage.reads), stage.name
    assert "label_rows" in traced["match_clusters"]
    assert "match_clusters" in traced["publish_mixture"]


def test_stages_that_find_duplicates_read_what_they_say(
    traced: dict[str, set[str]], reference: Run, tmp_path: Path
) -> None:
    run = Run(str(shutil.copytree(reference.url, tmp_path / "run")))
    on_cluster(run, SilentReporter(), lambda runner: deduplicate(run, runner, 1e-6))
    assert set(traced) == {stage.name for stage in DEDUPLICATES}
    for stage in DEDUPLICATES:
        assert traced[stage.name] <= set(stage.reads), stage.name
    table = duplicates(run, 1e-6)
    assert len(table) == 0
    assert summarise_duplicates(run, 1e-6, table).n_removable == 0


def test_stages_stand_in_the_order_of_what_they_read() -> None:
    place = {stage.name: i for i, stage in enumerate(STAGES)}
    # The grid, the refinement and the groups go round: these read what later stages of their loop have left.
    loops = {("extend_grid", "extend_grid"), ("refine_expect", "refine_maximise"),
             ("refine_maximise", "refine_maximise"), ("compare_rows", "group_duplicates"),
             ("group_duplicates", "group_duplicates")}  # fmt: skip
    wrong = {(stage.name, read) for stage in STAGES for read in stage.reads if place[read] >= place[stage.name]}
    assert wrong == loops


def test_every_array_has_a_stage_and_every_name_means_one_thing() -> None:
    names = [stage.name for stage in STAGES]
    assert {each.stage for each in layout.arrays()} <= set(names)
    assert len({each.path for each in layout.arrays()}) == len(layout.arrays())
    modules = {path.stem for path in (ROOT / "distcluster").rglob("*.py")} | {
        path.name for path in (ROOT / "distcluster").rglob("*") if path.is_dir()
    }
    assert len(set(names)) == len(names)
    assert set(names) & modules == set()


def test_the_layout_has_the_selection_table_s_columns() -> None:
    assert list(layout.SELECTION) == list(Criteria.__dataclass_fields__)


def test_arrays_of_a_run_are_as_the_layout_says(reference: Run) -> None:
    """Every array that is there is in the layout, with its number of axes and dtype."""
    patterns = {
        re.compile(re.sub(r"\\{(item|of)\\}", r"[^/]+(/\\d+)?", re.escape(each.path)) + "$"): each
        for each in layout.arrays()
    }
    for path in Path(reference.url).rglob("zarr.json"):
        if json.loads(path.read_text())["node_type"] != "array":
            continue
        name = str(path.parent.relative_to(reference.url))
        found = [each for pattern, each in patterns.items() if pattern.match(name)]
        assert len(found) == 1, name
        array = reference.array(name)
        dtype = "string" if "String" in str(array.dtype) else str(array.dtype)
        assert dtype == found[0].dtype, name
        if found[0].shape.startswith("("):
            assert array.ndim == found[0].shape.strip("(),").count(",") + 1, name


def test_every_item_writes_all_that_the_layout_says(reference: Run) -> None:
    left_out = {layout.VIEW_3D, layout.LEVEL_LABEL}  # which the reference's job does not ask for, or asks for as
    levels = {LABEL_ROWS.name: {each.path for each in level_arrays(reference)}}
    assert levels[LABEL_ROWS.name]
    for stage in STAGES:
        for item, record in reference.records.of_stage(stage.name).items():
            expected = {each.path.format(item=item) for each in stage.writes if each not in left_out}
            expected |= levels.get(stage.name, set())
            assert record.parts.keys() | record.arrays.keys() == expected, f"{stage.name} {item}"


def test_the_store_layout_s_page_has_every_array_as_the_layout_does() -> None:
    page, flow_page = ((ROOT / "docs" / name).read_text() for name in ("store-layout.md", "architecture.md"))
    assert [stage.name for stage in STAGES if f"`{stage.name}`" not in flow_page] == []
    rows = {
        f"| `{each.path}` | {each.shape} | {each.dtype} | {each.meaning} |"
        for each in layout.arrays()
        if not each.path.startswith("partial/")
    }
    on_page = set(re.findall(r"^\| `[^`]+` \| .* \| .* \| .* \|$", page, flags=re.MULTILINE))
    assert on_page == rows
    assert f"format version {layout.FORMAT_VERSION}" in page


def test_a_record_that_does_not_fit_names_its_file_and_keys(reference: Run, tmp_path: Path) -> None:
    run = Run(str(shutil.copytree(reference.url, tmp_path / "run")))
    facts = asdict(SELECT_CANDIDATE.facts_of(run))
    with run.writing(20):
        run.commit("select_candidate", "all", {**facts, "n_components": "many", "covariance_type": "round"})
    with pytest.raises(CorruptError, match=r"commit/select_candidate/all\.json: facts does not fit") as error:
        SELECT_CANDIDATE.facts_of(run)
    assert "n_components: " in str(error.value)
    assert "covariance_type: " in str(error.value)
    (Path(run.url) / "commit/select_candidate/all.json").write_text('{"facts": {}, "parts": 3}')
    with pytest.raises(CorruptError, match=r"commit/select_candidate/all\.json does not fit: parts: "):
        SELECT_CANDIDATE.facts_of(run)
