"""The package as a wheel, unpacked and used outside of the source tree."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The folder that an installation of the wheel adds to Python's path."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT / "DualTrackCore", source / "DualTrackCore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def use(unpacked: Path, cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_every_file_of_the_package(unpacked):
    def files(folder):
        names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return sorted(str(name) for name in names if "__pycache__" not in name.parts and name.name != "CMakeLists.txt")

    assert files(unpacked / "DualTrackCore") == files(ROOT / "DualTrackCore")
    assert (unpacked / "DualTrackCore" / "py.typed").is_file()


def test_python_takes_the_unpacked_package(unpacked, tmp_path):
    assert str(unpacked) in use(unpacked, tmp_path, "-c", "import DualTrackCore; print(DualTrackCore.__file__)")


def test_a_baseline_that_ships_is_evaluated_outside_of_the_source_tree(unpacked, tmp_path):
    sample = unpacked / "DualTrackCore" / "data" / "sample.igs.mha"
    command = ("-m", "DualTrackCore.cli", "evaluate", str(sample), "-o", "out", "--method", "baseline:two-frame")
    use(unpacked, tmp_path, *command, "--quiet")
    assert "baseline:two-frame" in (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8")


def test_a_sweep_is_tracked_and_reconstructed_outside_of_the_source_tree(unpacked, tmp_path):
    sample = unpacked / "DualTrackCore" / "data" / "sample.igs.mha"
    command = ("-m", "DualTrackCore.cli", "run", str(sample), "-o", "out", "--last-frame", "15", "--no-pictures")
    use(unpacked, tmp_path, *command, "--quiet")
    assert (tmp_path / "out" / "volume.nrrd").is_file()
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["evaluation"]
