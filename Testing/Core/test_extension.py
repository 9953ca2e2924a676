"""The Slicer extension as a build and as a module, as far as it can be checked without the application."""

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from fake_slicer import configure

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DualTrackSlicer" / "DualTrackSlicer.py"
BUNDLED = {"qt", "ctk", "vtk", "slicer", "numpy", "DualTrackCore", "DualTrackSlicerLib"}


@pytest.fixture(scope="module")
def configured(tmp_path_factory):
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which("c++") is None:
        pytest.skip("Configuring the extension needs cmake and a C++ compiler, and this machine lacks one.")
    return configure(cmake, ROOT, tmp_path_factory.mktemp("extension"))


def shipped_files(folder: str) -> tuple[list[str], list[str]]:
    """(Python files, other files) of a folder, relative to it, without what builds leave behind."""
    root = ROOT / folder
    files = [path.relative_to(root) for path in root.rglob("*") if path.is_file()]
    kept = [str(path) for path in files if "__pycache__" not in path.parts and path.name != "CMakeLists.txt"]
    return sorted(f for f in kept if f.endswith(".py")), sorted(f for f in kept if not f.endswith(".py"))


def test_the_extension_configures_with_cmake(configured):
    assert configured.returncode == 0, configured.output
    assert configured.rows[-1][:2] == ["cpack", "done"]


@pytest.mark.parametrize("folder", ["DualTrackCore", "DualTrackSlicer"])
def test_every_file_of_a_shipped_folder_is_listed_for_cmake(configured, folder):
    scripts, resources = shipped_files(folder)
    assert configured.values("scripts", folder) == scripts
    assert configured.values("resources", folder) == resources


def test_the_core_ships_as_a_package_and_the_module_at_the_top(configured):
    assert configured.values("module", "DualTrackCore") == ["TRUE"]
    assert configured.values("module", "DualTrackSlicer") == ["FALSE"]


def test_the_self_test_is_registered(configured):
    assert ["unittest", "DualTrackSlicer.py"] in [row[:2] for row in configured.rows]


def test_the_extension_brings_pytorch_along_without_building_against_it(configured):
    assert configured.values("extension", "DEPENDS") == ["PyTorch"]
    entry = json.loads((ROOT / "DualTrack.json").read_text())
    assert entry["build_dependencies"] == []
    assert [entry["category"]] == configured.values("extension", "CATEGORY")


@pytest.mark.parametrize(("version", "fits"), [("5.10.0", False), ("5.11.0", False), ("5.12.3", True), ("6.0.0", True)])
def test_the_extension_is_built_for_slicer_5_12_and_later_alone(tmp_path, version, fits):
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("Configuring the extension needs cmake and a C++ compiler, and this machine lacks one.")
    made = configure(shutil.which("cmake"), ROOT, tmp_path, f"-DSlicer_VERSION={version}")
    assert (made.returncode == 0) == fits, made.output
    assert (f"needs Slicer 5.12 or later; this is {version}" in made.output) != fits


def test_a_listed_file_that_does_not_exist_stops_the_configuration(configured, tmp_path):
    source = tmp_path / "source"
    for name in ("CMakeLists.txt", "DualTrackCore", "DualTrackSlicer", "Testing"):
        original = ROOT / name
        if original.is_dir():
            shutil.copytree(original, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
        else:
            source.mkdir()
            shutil.copy(original, source / name)
    (source / "DualTrackCore" / "sweep.py").unlink()
    broken = configure(shutil.which("cmake"), source, tmp_path / "work")
    assert broken.returncode != 0
    assert "does not exist: sweep.py" in broken.output


@pytest.mark.parametrize(
    ("icon", "side"), [("DualTrack.png", 256), ("DualTrackSlicer/Resources/Icons/DualTrackSlicer.png", 128)]
)
def test_an_icon_is_a_png_of_its_size(icon, side):
    data = (ROOT / icon).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(data[16:20], "big") == int.from_bytes(data[20:24], "big") == side


def test_the_module_imports_nothing_that_slicer_does_not_bundle():
    tree = ast.parse(MODULE.read_text())
    names = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert names - set(sys.stdlib_module_names) <= BUNDLED


def test_the_module_file_is_short():
    assert len(MODULE.read_text().splitlines()) < 120


def test_every_requirement_of_the_core_is_installed_or_brought_by_slicer_and_none_both():
    text = (ROOT / "pyproject.toml").read_text()
    lists = [
        re.search(rf"^{name} = \[(.*?)\]$", text, re.M | re.S)[1]
        for name in ("dependencies", "video", "dicom", "client")
    ]
    required = {line for part in lists for line in re.findall(r'"([^"]+)"', part)} - {"dualtrack[video]"}
    folder = ROOT / "DualTrackSlicer" / "Resources"
    installed, brought = (
        {line for line in (folder / name).read_text().splitlines() if line and not line.startswith("#")}
        for name in ("requirements.txt", "bundled.txt")
    )
    (torch,) = required - installed - brought
    assert torch.startswith("torch>=")  # by the extension PyTorch
    assert (installed | brought) < required
    names = {re.split("[<>=]", line)[0] for line in brought}
    assert names == {"numpy", "scipy", "SimpleITK", "pydicom", "pillow"}
    assert not names & {re.split("[<>=]", line)[0] for line in installed}
