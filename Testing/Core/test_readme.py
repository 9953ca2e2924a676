"""What the README shows works as it stands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from oracle import noise_sweep, tiny_model

from DualTrackCore.cli.parser import build_parser
from DualTrackCore.errors import InputError
from DualTrackCore.io import save_sweep
from DualTrackCore.network import save_model

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    """The README's code block of that language that contains a text."""
    (found,) = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in b]
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
    exec(block("python", "estimate_trajectory(sweep, model)"), names)
    assert len(names["trajectory"]) == 20
    assert (tmp_path / "volume.nrrd").stat().st_size > 0
    assert (tmp_path / "tracked.igs.mha").stat().st_size > 0


@pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
def test_the_example_from_an_array_runs(tmp_path, monkeypatch):
    model = tiny_model()
    save_model(model.network, model.card, tmp_path / "models" / "dualtrack-tusrec2024.safetensors")
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    names = {"frames": np.random.default_rng(0).integers(0, 255, (12, 64, 96), dtype=np.uint8)}
    exec(block("python", "from_array"), names)
    assert names["result"].report.trajectory["poses"] == 12
    assert (tmp_path / "volume.nrrd").stat().st_size > 0


@pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
def test_the_live_example_runs(tmp_path, monkeypatch):
    save_sweep(noise_sweep(30), tmp_path / "clip.igs.mha")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block("python", "LiveTracker"), names)
    assert len(names["trajectory"]) == 30


@pytest.mark.parametrize("line", block("console", "dualtrack run").splitlines())
def test_every_command_line_is_understood(line):
    arguments = shlex.split(line, comments=True)
    assert arguments[0] == "dualtrack"
    options = build_parser().parse_args(arguments[1:])
    assert callable(options.command)


def test_a_command_that_does_not_exist_would_be_noticed():
    with pytest.raises(InputError, match="invalid choice"):
        build_parser().parse_args(["dream", "SWEEP"])


@pytest.mark.parametrize("picture", re.findall(r"!\[.*?\]\((.*?)\)", README))
def test_every_picture_is_there(picture):
    assert (Path(__file__).resolve().parents[2] / picture).is_file()
