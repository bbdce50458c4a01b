"""What the documentation quotes is what the package says."""

import ast
import re
from pathlib import Path

import distcluster

ROOT = Path(__file__).parent.parent
PAGES = [(ROOT / "docs" / "howto" / name).read_text() for name in ("troubleshooting.md", "runbooks.md")]


def sentences(path: Path) -> list[str]:
    """Every text of a module, with an ellipsis in the place of a value."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value.replace("%s", "…"))
    return found


def test_every_message_that_is_explained_is_one_of_ours() -> None:
    said = [each for path in (ROOT / "distcluster").rglob("*.py") for each in sentences(path)]
    quoted = [quote for page in PAGES for quote in re.findall(r"^> (.+)$", page, flags=re.MULTILINE)]
    assert len(quoted) > 30
    patterns = {quote: re.compile(".*?".join(map(re.escape, quote.split("…"))), re.DOTALL) for quote in quoted}
    assert [quote for quote, pattern in patterns.items() if not any(map(pattern.search, said))] == []


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference.md").read_text()
    shown = set(re.findall(r"auto(?:function|class|exception):: distcluster\.(\w+)", page))
    assert shown == {name for name in distcluster.__all__ if not name.startswith("__")}
