"""What README and the pages for users show works as it stands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model

from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.errors import InputError
from DualTrackCore.io import save_sweep
from DualTrackCore.network import save_model

ROOT = Path(__file__).resolve().parents[2]


def block(language: str, containing: str, page: str) -> str:
    """The code block of that language in a page that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)
    (found,) = [block for block in blocks if containing in block]
    return found


def write_video(path: Path, frames: np.ndarray) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([frame] * 3, axis=-1), format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
def test_the_python_example_runs(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 255, (20, 64, 96), dtype=np.uint8))
    model = tiny_model()
    save_model(model.network, model.card, tmp_path / "models" / "dualtrack-tusrec2024.safetensors")
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("python", "estimate_trajectory(sweep, model)", "Docs/python/index.md"), names)
    assert len(names["trajectory"]) == 20
    assert (tmp_path / "volume.nrrd").stat().st_size > 0
    assert (tmp_path / "tracked.igs.mha").stat().st_size > 0


@pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
def test_the_three_lines_for_a_clip_of_ones_own_run(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", np.random.default_rng(0).integers(0, 255, (12, 64, 96), dtype=np.uint8))
    model = tiny_model()
    save_model(model.network, model.card, tmp_path / "models" / "dualtrack-tusrec2024.safetensors")
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("python", "RunSettings", "README.md"), names)
    assert names["result"].report.trajectory["poses"] == 12
    assert main([*shlex.split(block("console", "dualtrack run", "README.md"))[1:], "--quiet"]) == 0
    assert (tmp_path / "out" / "volume.nrrd").stat().st_size > 0


@pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
def test_the_live_example_runs(tmp_path, monkeypatch):
    save_sweep(noise_sweep(30), tmp_path / "clip.igs.mha")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("python", "LiveTracker", "Docs/python/index.md"), names)
    assert len(names["trajectory"]) == 30


@pytest.mark.parametrize("line", block("console", "dualtrack run SWEEP", "Docs/command-line.md").splitlines())
def test_every_command_line_is_understood(line):
    arguments = shlex.split(line, comments=True)
    assert arguments[0] == "dualtrack"
    options = build_parser().parse_args(arguments[1:])
    assert callable(options.command)


def test_a_command_that_does_not_exist_would_be_noticed():
    with pytest.raises(InputError, match="invalid choice"):
        build_parser().parse_args(["dream", "SWEEP"])


def test_the_readme_is_two_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130
