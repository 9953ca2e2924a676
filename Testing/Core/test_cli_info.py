"""`dualtrack info` says in one screen how a sweep was read, where each fact is from, and what a run still needs."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sequence_files import asymmetric_clip, metafile, nrrd, pixels

from DualTrackCore.cli import main
from DualTrackCore.io import save_sweep
from DualTrackCore.reconstruction import Fan
from DualTrackCore.sample import sample_path
from DualTrackCore.sweep import Sweep

TIMES = [(f"Seq_Frame{i:04d}_Timestamp", str(i / 20)) for i in range(20)]


@pytest.fixture
def info(capsys):
    """The rows that `info` prints for the arguments, by name, and its object."""

    def run(*arguments):
        assert main(["info", *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert len(out.splitlines()) <= 24, "more than a screen"
        rows = {}
        for line in out.splitlines()[1:]:
            name, text = line.strip().split("  ", 1)
            rows.setdefault(name, []).append(text.strip())
        assert main(["info", *map(str, arguments), "--json"]) == 0
        return rows, json.loads(capsys.readouterr().out)

    return run


def clip(path, **changes):
    spacing = {"ElementSpacing": "0.2 0.3 1", "DimSize": "160 128 20"}
    return metafile(path, asymmetric_clip(), TIMES, **(spacing | changes))


def test_every_fact_says_where_it_is_from(info, tmp_path):
    rows, facts = info(clip(tmp_path / "a.mha"))
    assert rows["frames"] == ["20 of 160 x 128 pixels (width x height)"]
    assert rows["pixel size"] == ["0.2 x 0.3 mm (width x height), from the file"]
    assert rows["picture size"] == ["32.0 x 38.4 mm (width x depth)"]
    assert rows["frame rate"] == ["20 frames a second, 0.95 s in all, from the file (Timestamp)"]
    assert rows["orientation"] == ["the probe at the top and its marked side at the left (MFA in the file)"]
    assert "a run can start" in rows["ready"][0]
    assert (facts["schema"], facts["format"]) == ("dualtrack info/1", "Sequence metafile (MetaImage)")
    assert (facts["spacing_source"], facts["rate_source"], facts["rate_field"]) == ("file", "file", "Timestamp")
    assert (facts["orientation"], facts["missing"], facts["notes"]) == ("MFA", [], [])
    rows, facts = info(clip(tmp_path / "a.mha"), "--spacing", "0.25")
    assert rows["pixel size"] == ["0.25 x 0.25 mm (width x height), as given with --spacing"]
    assert facts["spacing_source"] == "user"
    (tmp_path / "cal.txt").write_text("0.4 0 0 0 0 0.4 0 0 0 0 0.4 0 0 0 0 1")
    rows, facts = info(clip(tmp_path / "a.mha"), "--calibration", tmp_path / "cal.txt")
    assert rows["pixel size"] == ["0.4 x 0.4 mm (width x height), from the calibration cal.txt"]
    assert facts["spacing_source"] == "calibration"


def test_what_a_run_needs_is_named_with_the_option_that_gives_it(info, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(asymmetric_clip(4)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    rows, facts = info(folder)
    assert "--spacing MM" in rows["missing"][0]
    assert "ready" not in rows
    assert [(need["what"], need["options"]) for need in facts["missing"]] == [
        ("pixel size", ["--spacing", "--depth-mm", "--calibration"])
    ]
    assert main(["run", str(folder), "-o", str(tmp_path / "out")]) == 2
    assert "--spacing" in capsys.readouterr().err
    rows, facts = info(folder, "--spacing", "0.2")
    assert "ready" in rows
    assert facts["missing"] == []
    rows, facts = info(folder / "0.png", "--spacing", "0.2")
    assert rows["missing"] == ["a second frame: one picture alone shows no motion"]
    assert main(["run", str(folder / "0.png"), "--spacing", "0.2", "-o", str(tmp_path / "out")]) == 2


def test_a_recording_of_tracking_alone_lacks_pictures_and_nothing_else(info, tmp_path):
    rows, facts = info(metafile(tmp_path / "a.mha", pixels(3, 1, 1), DimSize="1 1 3"))
    assert rows["frames"] == ["3, without pictures"]
    assert [need["what"] for need in facts["missing"]] == ["pictures"]
    assert facts["image_area"] is None


def test_turned_and_unknown_orientations_are_told_apart(info, tmp_path):
    rows, facts = info(clip(tmp_path / "a.mha", UltrasoundImageOrientation="UN"))
    assert rows["orientation"][0].startswith("turned to have the probe at the top")
    assert facts["orientation"] == "UN"
    keys = {"sizes": "160 128 20", "space_directions": "(0.2,0) (0,0.2) none"}
    rows, _ = info(nrrd(tmp_path / "a.nrrd", asymmetric_clip(), **keys))
    assert rows["orientation"][0].startswith("not stated")
    assert rows["frame rate"] == ["not known; a run does without it"]


def test_the_area_that_shows_ultrasound_is_named(info, tmp_path):
    noise = np.random.default_rng(0).integers(40, 255, (12, 200, 240), dtype=np.uint8)
    fan = Fan((120.0, -40.0), (-35.0, 35.0), (60.0, 230.0))
    save_sweep(Sweep(noise * fan.mask((200, 240)).astype(np.uint8), 0.2), tmp_path / "fan.h5")
    rows, facts = info(tmp_path / "fan.h5")
    assert rows["image area"][0].startswith("a fan of ")
    assert facts["image_area"]["fan"]["angles_deg"] == pytest.approx([-35, 35], abs=2)
    boxed = np.zeros_like(noise)
    boxed[:, 50:150, 60:180] = noise[:, 50:150, 60:180]
    save_sweep(Sweep(boxed, 0.2), tmp_path / "box.h5")
    rows, facts = info(tmp_path / "box.h5")
    assert "25 % of the picture" in rows["image area"][0]
    assert facts["image_area"]["clip"] == pytest.approx([60, 50, 119, 99], abs=1)
    save_sweep(Sweep(np.zeros_like(noise), 0.2), tmp_path / "black.h5")
    rows, facts = info(tmp_path / "black.h5")
    assert rows["image area"][0].startswith("not found")
    assert facts["image_area"] is None


def test_warnings_stand_among_the_rows_and_lost_pictures_are_counted(info, tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = asymmetric_clip() / np.float32(255)
        file["frame_valid"] = np.arange(20) > 2
    rows, facts = info(tmp_path / "a.h5")
    assert "stretched" in rows["warning"][0]
    assert facts["notes"] == facts["provenance"]["warnings"]
    assert rows["lost pictures"][0].startswith("3 frames")


def test_poses_say_where_they_are_from(info, tmp_path):
    shutil.copy(sample_path(), tmp_path / "sample.igs.mha")
    rows, facts = info(tmp_path / "sample.igs.mha")
    assert rows["tracking"] == ["168 of 168 frames, path 52.0 mm, simulated"]
    assert facts["poses_origin"] == "simulated"
