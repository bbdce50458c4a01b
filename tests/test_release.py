"""The version stands in pyproject.toml; whatever else names it says the same."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PLACES = [path for folder in ("distcluster", "docs", "k8s", "tests") for path in sorted((ROOT / folder).rglob("*"))]
TEXTS = [path for path in [*PLACES, ROOT / "README.md"] if path.suffix in {".md", ".py", ".yaml"}]


def test_the_installed_package_has_the_version_of_the_project() -> None:
    assert version("distcluster") == PROJECT["version"]


def test_every_tag_of_the_image_is_the_version() -> None:
    tags = {
        (str(path.relative_to(ROOT)), tag)
        for path in TEXTS
        for tag in re.findall(r"distcluster:(\d[\w.]*\w)", path.read_text())
    }
    assert len(tags) > 3
    assert {each for each in tags if each[1] != PROJECT["version"]} == set()


def test_the_citation_names_the_version() -> None:
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_releases_are_tried_on_every_python_that_the_package_allows() -> None:
    tried = re.findall(r"Python :: (3\.\d+)", str(PROJECT["classifiers"]))
    assert PROJECT["requires-python"] == f">={tried[0]},<3.{int(tried[-1][2:]) + 1}"
