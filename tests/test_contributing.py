"""The contributor's lists are complete: what they name is there, and is all that a change of that kind touches."""

import ast
import re
from pathlib import Path

import pytest

from distcluster import deploy, job, pod_table
from distcluster.stages.flow import STAGES

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()


def files_of(section: str) -> set[str]:
    """The files that a section's numbered steps name."""
    text = GUIDE.split(f"## {section}\n")[1].split("\n## ")[0]
    steps = re.findall(r"^\d\. .*(?:\n   .*)*", text, flags=re.MULTILINE)
    return {name for step in steps for name in re.findall(r"`([\w./-]+\.(?:py|md))`", step)}


def files_that_say(*words: str) -> set[str]:
    """Files of the package and the docs, and the tests' conftest, that hold one of the words."""
    paths = [*(ROOT / "distcluster").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "tests" / "conftest.py"]
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in words))
    return {str(path.relative_to(ROOT)) for path in paths if pattern.search(path.read_text())}


def test_every_file_that_the_guide_names_is_there() -> None:
    named = set(re.findall(r"`([\w./-]+\.(?:py|md|txt))`", GUIDE)) | set(re.findall(r"tests/[\w/]+\.py", GUIDE))
    assert {name for name in named if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize(
    ("name", "readers"), [("start_kmeans", {"stages/replicating", "report/page_sections"}), ("sum_silhouettes", set())]
)
def test_a_stage_touches_its_module_the_list_and_what_the_guide_names(name: str, readers: set[str]) -> None:
    (stage,) = [each for each in STAGES if each.name == name]
    own = str(Path(stage.task.__code__.co_filename).relative_to(ROOT))
    # Its arrays are in the layout, which is the guide's next section; who reads its facts names it.
    expected = files_of("Add a stage") | {own, "distcluster/storage/layout.py"}
    expected |= {f"distcluster/{each}.py" for each in readers}
    assert files_that_say(name, name.upper()) == expected


def test_an_array_touches_the_layout_its_stage_and_what_the_guide_names() -> None:
    expected = files_of("Add a column or an array") | {"distcluster/stages/labelling.py"}
    assert files_that_say("MERGE_VALUE", "hierarchy/value") == expected


def test_a_job_key_touches_the_job_and_where_it_is_used() -> None:
    assert files_of("Add a job key") >= {"distcluster/job.py"}
    used = {f"distcluster/{name}.py" for name in ("job", "prepare", "predicting", "storage/inputs")}
    assert files_that_say("allow_missing_chunks") == used


def test_every_job_key_says_what_it_is() -> None:
    modules = [ast.parse(Path(each.__file__).read_text()) for each in (job, deploy, pod_table)]
    silent = [
        f"{table.name}.{key.target.id}"
        for module in modules
        for table in module.body
        if isinstance(table, ast.ClassDef) and table.name not in ("Table", "Job")
        for key, after in zip(table.body, [*table.body[1:], None], strict=True)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant))
    ]
    assert [each for each in silent if each != "OutputTable.url"] == []
