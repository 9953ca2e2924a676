"""The rules that the repository keeps for itself."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import DualTrackCore

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("DualTrackCore", "DualTrackSlicer")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".json", ".cff", ".yml", ".cmake", ".cfg", ""}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|tmp|root|home|Users)/\w")


def package_sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def committed_texts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("This is not a git checkout, so there is no list of committed files.")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.suffix in TEXT_SUFFIXES and path.is_file()]


def test_no_source_file_of_product_or_tests_is_over_400_lines():
    sources = [*package_sources(), *(ROOT / "Testing").rglob("*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert not {path: count for path, count in lines.items() if count > 400}


def lines_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its `def` on, but for the docstring, which may be as long as it needs."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


def test_no_function_has_over_50_lines_beside_its_docstring():
    long = []
    for path in [*package_sources(), *(ROOT / "Testing").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_without_docstring(node) > 50:
                long.append(
                    f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines_without_docstring(node)} lines"
                )
    assert not long


def test_no_committed_text_names_a_path_of_one_machine():
    found = []
    for path in committed_texts():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if MACHINE_PATH.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number} {line.strip()}")
    assert not found


@pytest.mark.parametrize("name", DualTrackCore.__all__)
def test_a_public_name_can_be_imported_and_is_documented(name):
    value = getattr(DualTrackCore, name)
    if name != "__version__":
        assert inspect.getdoc(value)
        assert "Attributes:" in value.__doc__ or len(value.__doc__.split()) > 5


@pytest.mark.parametrize("path", package_sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_public_class_or_function_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    bare = [node.name for node in public if ast.get_docstring(node) is None]
    assert not bare
    assert ast.get_docstring(tree) or not path.read_text().strip(), "the file does not say what it is for"


def test_importing_the_core_loads_none_of_its_heavy_libraries():
    heavy = ["torch", "torchvision", "timm", "SimpleITK", "h5py", "pydicom", "matplotlib", "av"]
    code = f"import sys, DualTrackCore; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_wrong_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = DualTrackCore.no_such_name


def test_every_promised_home_of_a_public_name_exists():
    for name in DualTrackCore.__all__:
        if name != "__version__":
            home = getattr(DualTrackCore, name).__module__
            assert hasattr(importlib.import_module(home), name)


def test_the_citation_names_the_version_of_the_package():
    version = re.search(r'^version: "(.+)"$', (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert version is not None
    assert version.group(1) == DualTrackCore.__version__


def test_the_citation_names_the_paper():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "arXiv:2509.09530" in text
    assert text.count("family-names") == 8


def test_the_licence_is_the_one_that_the_package_declares():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()
