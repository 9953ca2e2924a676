"""What the commands and the code of README and the pages find where they run: clips, models, results, made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dataset_folders import tus_rec_train, tus_rec_validation
from oracle import tiny_model
from shipped_stand_in import ship_stand_in
from test_io_dicom import make

from DualTrackCore import Sweep, Trajectory, save_sweep
from DualTrackCore.cli import demo, main
from DualTrackCore.network import save_model
from DualTrackCore.run import RunSettings, run
from DualTrackCore.run.settings import VOLUME
from DualTrackCore.sample import sample_sweep
from DualTrackCore.settings import setting
from DualTrackCore.tracking import Estimate, engine

#: Frames of a clip, and the length of its path where the network is left out.
SHORT, LENGTH_MM = 16, 48.0
#: Frames of the clips of pages that say how long they are; in place of the network stands a straight path there.
STRAIGHT = {"Docs/command-line.md": 60, "Docs/corrections.md": 320, "Docs/measurement.md": 60, "Docs/profiles.md": 60}


def pictures(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (frames, 64, 96), dtype=np.uint8)


def straight(frames: int, **facts: object) -> Trajectory:
    return Trajectory.from_parameters(np.tile([0, 0, LENGTH_MM / (frames - 1), 0, 0, 0], (frames - 1, 1)), **facts)


def write_video(path: Path, frames: np.ndarray, codec: str) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([frame] * 3, axis=-1), format="rgb24")))
        container.mux(stream.encode())


def find_straight_path(sweep, model, head, **options):
    """In the place of the network."""
    facts = {"device": "cpu", "precision": "fp32", "guess": False, "outside_training": [], "warnings": []}
    return Estimate(np.tile([0, 0, LENGTH_MM / (len(sweep) - 1), 0, 0, 0], (len(sweep) - 1, 1))), {
        **model.provenance(),
        **facts,
    }


def workshop(page: str, place: Path, monkeypatch) -> None:
    """Make `place` the current folder, with everything in it that the blocks of a page name and do not make."""
    ship_stand_in(place / "shipped", monkeypatch)
    model = tiny_model()
    for name in ("dualtrack-tusrec2024", "dualtrack-tusrec2025"):
        save_model(model.network, model.card, place / "models" / f"{name}.safetensors")
    monkeypatch.chdir(place)
    monkeypatch.setattr(demo, "sample_sweep", lambda: sample_sweep().slice(0, SHORT))
    if page in STRAIGHT:
        monkeypatch.setattr(engine, "run_network", find_straight_path)
    frames = STRAIGHT.get(page, SHORT)
    tracked = straight(frames, origin="measured")
    save_sweep(Sweep(pictures(frames), 0.4, np.arange(frames) / 20, tracked=tracked), place / "clip.igs.mha")
    (place / "SWEEP").write_bytes((place / "clip.igs.mha").read_bytes())
    write_video(place / "clip.mp4", pictures(frames), "mpeg4")
    MAKERS.get(page, lambda place: None)(place)


def command_line(place: Path) -> None:
    for number, name in enumerate("ABC"):
        sweep = Sweep(pictures(60, number), 0.4, tracked=straight(60, origin="measured"))
        save_sweep(sweep, place / "ruler.igs.mha")
        (place / "ruler.igs.mha").rename(place / name)
    (place / "models" / "dualtrack-tusrec2024.safetensors").rename(place / "M")
    (place / "settings.yaml").write_text("voxel_mm: 0.8\n", encoding="utf-8")


def earlier_result(place: Path) -> None:
    assert main(["run", "SWEEP", "-o", "out", "--voxel", "0.8", "--no-pictures", "--quiet"]) == 0


def data_sets(place: Path) -> None:
    tus_rec_train(place / "tus-rec-2024" / "train")
    tus_rec_validation(place / "tus-rec-2024" / "validation")
    tus_rec_validation(place / "tus-rec-2025" / "validation", scans=("LH_rotation", "RH_rotation"), folder="landmarks")
    for seed, name in enumerate(("ann", "bob", "cleo", "dan", "eve")):
        sweep = Sweep(pictures(SHORT, seed), 0.4, tracked=straight(SHORT, origin="measured"))
        save_sweep(sweep, place / "recordings" / name / "left.igs.mha")
    (place / "splits.csv").write_text("subject,split\nann,train\nbob,train\ncleo,train\ndan,val\neve,test\n")


def scanner_clips(place: Path) -> None:
    for seed, name in enumerate(("a", "b", "c", "clip")):
        make(place / f"{name}.dcm", pictures(60, seed), FrameTime="50", PixelSpacing=[0.4, 0.4])
    write_video(place / "clip.avi", pictures(SHORT), "mpeg4")


#: What a page needs besides the clips, by page.
MAKERS = {
    "Docs/command-line.md": command_line,
    "Docs/evaluation.md": data_sets,
    "Docs/measurement.md": earlier_result,
    "Docs/profiles.md": scanner_clips,
}


def short_result() -> dict:
    """Names that the code of a page takes for granted."""
    result = run("SWEEP", RunSettings(voxel_mm=0.8))
    return {"result": result, "trajectory": result.trajectory}


def calibration_sets() -> dict:
    def pair(seed: int) -> tuple[Trajectory, Trajectory]:
        steps = np.tile([0, 0, 0.2, 0, 0, 0], (30, 1))
        sigma = np.full((30, 6), 0.02)
        found = steps + sigma * np.random.default_rng(seed).normal(size=(30, 6))
        estimate = Trajectory.from_parameters(found, origin="estimated", sigma=sigma)
        return estimate, Trajectory.from_parameters(steps, origin="simulated")

    estimates, truths = zip(*(pair(seed) for seed in range(8)), strict=True)
    others, their_truths = zip(*(pair(seed) for seed in range(8, 14)), strict=True)
    return {"estimates": estimates, "truths": truths, "others": others, "their_truths": their_truths, **short_result()}


GIVEN = {
    "Docs/architecture.md": lambda: {"setting": setting, "VOLUME": VOLUME},
    "Docs/corrections.md": short_result,
    "Docs/measurement.md": short_result,
    "Docs/uncertainty.md": calibration_sets,
}
