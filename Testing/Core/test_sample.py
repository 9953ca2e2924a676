"""The sample sweep that ships: what it is, and that the command that it is made by makes it again."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import DualTrackCore.sample
from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.sample import COMMAND, sample_path, sample_sweep

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The file made anew by its command."""
    path = tmp_path_factory.mktemp("sample") / "sample.igs.mha"
    assert main([*shlex.split(COMMAND), "-o", str(path), "--quiet"]) == 0
    return load_sweep(path)


def test_the_sample_is_a_small_tracked_simulated_sweep():
    sweep = sample_sweep()
    assert len(sweep) == 168
    assert sweep.frame_size == (128, 160)
    assert sweep.spacing_mm == (0.25, 0.25)
    assert sweep.frame_rate_hz == pytest.approx(20)
    assert sweep.is_simulated
    assert sweep.tracked.valid.all()
    assert sweep.tracked.estimated_by is None
    assert 50 < sweep.tracked.path_length_mm < 55
    assert sample_path().stat().st_size < 3_000_000


def test_its_command_makes_the_frames_again(made):
    shipped, anew = sample_sweep().window(0, 168), made.window(0, 168)
    assert shipped.shape == anew.shape
    # Libraries of other machines round the last digit otherwise, which may move a grey value by one.
    difference = np.abs(shipped.astype(int) - anew.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_its_command_makes_the_poses_and_times_again(made):
    sweep = sample_sweep()
    np.testing.assert_allclose(made.tracked.poses, sweep.tracked.poses, atol=1e-6)
    np.testing.assert_allclose(made.timestamps_s, sweep.timestamps_s, atol=1e-9)
    assert made.spacing_mm == sweep.spacing_mm


def test_its_seed_lies_beyond_those_of_training_and_comparison():
    seed = int(re.search(r"--seed (\d+)", COMMAND).group(1))
    assert seed >= 3_000_000
    recipes = "".join(path.read_text() for path in (ROOT / "DualTrackCore/research/training/recipes").rglob("*.yaml"))
    ranges = re.findall(r"seeds: \[(\d+), (\d+)\]", recipes)
    assert ranges
    assert max(int(last) for _, last in ranges) < seed


def test_make_sample_uses_this_command_and_this_place():
    makefile = (ROOT / "Makefile").read_text()
    assert "from DualTrackCore.sample import COMMAND" in makefile
    assert f"-o {sample_path().relative_to(ROOT)}" in makefile


def test_an_installation_without_the_sample_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(DualTrackCore.sample, "sample_path", lambda: tmp_path / "sample.igs.mha")
    with pytest.raises(InputError, match=r"lacks the sample sweep .*; install DualTrack again"):
        sample_sweep()
