"""Packages whose exports are imported at first use list them twice: for editors and for Python."""

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAZY = [
    path
    for path in sorted((ROOT / "DualTrackCore").rglob("__init__.py"))
    if "lazy_exports(" in path.read_text(encoding="utf-8")
]


def names_for_editors(path: Path) -> set[str]:
    """Names that the package exports under `if TYPE_CHECKING:`, as `X as X`; others there are for annotations alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname for node in imports for alias in node.names if alias.asname}


@pytest.mark.parametrize("path", LAZY, ids=lambda path: path.parent.name)
def test_both_lists_of_lazy_exports_agree_and_every_name_is_there(path):
    package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
    listed = {name for name in package.__all__ if name not in vars(package)}
    assert names_for_editors(path) == listed
    for name in listed:
        assert getattr(package, name) is not None
