"""The rules of the house (CONTRIBUTING.md) that a machine can check; every offender is named."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES, MOST_FUNCTION_LINES = 350, 60

PACKAGE = sorted((ROOT / "distcluster").rglob("*.py"))
MODULES = PACKAGE + sorted(path for folder in ("tests", "benchmarks", "k8s") for path in (ROOT / folder).rglob("*.py"))
FOLDERS = sorted({path.parent.relative_to(ROOT).parts[:2] for path in MODULES})
TEXTS = [path for path in sorted((ROOT / "distcluster").rglob("*")) if path.suffix in {".py", ".html", ".js", ".css"}]
TEXTS += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md")), ROOT / "README.md"]
TEXT_FOLDERS = sorted({path.parent.relative_to(ROOT).parts[:2] for path in TEXTS})

# What was said before, and what is said now.
OLD_WORDS = {
    r"\bnats a row\b": "nats per row",
    r"judging|\bjudges\b|judged_by_draw": "held-out rows",
    r"\b(mixture|sample|the|two|both|either|neither|small|first|second|random) draws?\b": "subsample",
    r"\b(how well|what|which)\b.*\bcomes? back\b|\bcame back\b|reproducibility": "stability across replicates",
    r"\belbows? (that )?(does not |do not )?stands?\b|\bstanding elbows?\b|\.stands\b": "accepted elbow",
    r"\bdead components?\b|\bcomponents? (has |have )?died\b": "degenerate component",
    r"\b(beyond|above) (a|the|its|their) null\b|above_null": "excess over the null",
}


def of_folder(paths: list[Path], folder: tuple[str, ...]) -> list[Path]:
    """The paths that count as a folder's: deeper ones with their second level."""
    return [path for path in paths if path.parent.relative_to(ROOT).parts[:2] == folder]


def shown(path: Path, line: int | None = None) -> str:
    return str(path.relative_to(ROOT)) + (f":{line}" if line else "")


def assert_none(offenders: list[str]) -> None:
    assert not offenders, "\n" + "\n".join(offenders)


def name_of(folder: tuple[str, ...]) -> str:
    return "/".join(folder) or "."


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_module_is_too_long(folder: tuple[str, ...]) -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in of_folder(MODULES, folder)}
    assert_none([f"{path}: {length} lines" for path, length in lengths.items() if length > MOST_LINES])


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_function_is_too_long(folder: tuple[str, ...]) -> None:
    found = {
        f"{shown(path, node.lineno)} {node.name}": node.end_lineno - node.lineno + 1  # type: ignore[operator]
        for path in of_folder(MODULES, folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert_none([f"{name}: {length} lines" for name, length in found.items() if length > MOST_FUNCTION_LINES])


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_private_name_is_imported(folder: tuple[str, ...]) -> None:
    found = [
        f"{shown(path, node.lineno)} {node.module}.{alias.name}"
        for path in of_folder(MODULES, folder)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if re.match(r"_(?!_)", alias.name) or re.search(r"(^|\.)_(?!_)", node.module or "")
    ]
    assert_none(found)


def test_no_two_modules_have_one_name() -> None:
    names = Counter(path.stem for path in PACKAGE if path.stem != "__init__")
    assert_none([shown(path) for path in PACKAGE if names[path.stem] > 1])


@pytest.mark.parametrize("folder", TEXT_FOLDERS, ids=name_of)
def test_one_word_for_one_thing(folder: tuple[str, ...]) -> None:
    found = [
        f"{shown(path, number)} {match[0]!r}: say {new!r}"
        for path in of_folder(TEXTS, folder)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for old, new in OLD_WORDS.items()
        for match in re.finditer(old, line, re.IGNORECASE)
    ]
    assert_none(found)


@pytest.mark.parametrize(
    "text",
    [
        "0.5 nats a row", "n_judging", "of the judging rows", "a row that judges", "the mixture draw",
        "in neither draw", "how well a cluster comes back", "its reproducibility", "an elbow that does not stand",
        "a standing elbow", "3 components died", "above its null",
    ],
)  # fmt: skip
def test_an_old_word_is_seen(text: str) -> None:
    found = [new for old, new in OLD_WORDS.items() if re.search(old, text, re.IGNORECASE)]
    assert len(found) == 1
