"""A scanner profile at work: made from sweeps on the command line, used by runs, told wherever a result goes."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml
from test_io_dicom import make, noise, region

from DualTrackCore.cli import main
from DualTrackCore.corrections.profile import Preset
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep
from DualTrackCore.network.catalogue import FOLDER_VARIABLE
from DualTrackCore.path_error import CORRECTIONS
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import Estimate, engine
from DualTrackCore.trajectory import Trajectory

FACTOR, STEP_MM, FRAMES = 1.7, 0.5, 61
LENGTH_MM = STEP_MM * (FRAMES - 1)
SCANNER = {"device": "Maker One", "transducer": "L12-3", "frequency_mhz": 7.5, "depth_mm": 40.0}


@pytest.fixture(autouse=True)
def short_network(tmp_path, monkeypatch):
    """A network that finds all sweeps too short by the same factor, and a place for profiles."""

    def run_network(sweep, model, head, **options):
        motions = np.tile([0.0, 0, STEP_MM / FACTOR, 0, 0, 0], (len(sweep) - 1, 1))
        facts = {"device": "cpu", "precision": "fp32", "guess": False, "outside_training": [], "warnings": []}
        return Estimate(motions), {**model.provenance(), **facts}

    monkeypatch.setattr(engine, "run_network", run_network)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "models"))


@pytest.fixture
def clips(tmp_path):
    """Three tracked clips of one probe, and one that nobody tracked, of a file that does not name the probe."""
    straight = Trajectory.from_parameters(np.tile([0, 0, STEP_MM, 0, 0, 0], (FRAMES - 1, 1)), origin="measured")
    for seed in range(4):
        frames = np.random.default_rng(seed).integers(0, 255, (FRAMES, 24, 32), np.uint8)
        sweep = Sweep(frames, 0.5, np.arange(FRAMES) / 20, provenance={"scanner": SCANNER} if seed < 3 else {})
        name = f"clip{seed}.igs.mha"
        save_sweep(sweep, tmp_path / name, trajectory=straight if seed < 3 else None)
    return [str(tmp_path / f"clip{seed}.igs.mha") for seed in range(4)]


@pytest.fixture
def command(model_file, capsys):
    """Run a command; returns exit code, what it says, and what it complains of."""

    def do(*arguments):
        tracks = arguments[0] in ("run", "track") or arguments[:2] == ("profile", "make")
        code = main([*map(str, arguments), "--quiet", *(["--model", str(model_file)] if tracks else [])])
        return (code, *capsys.readouterr())

    return do


def entries(folder):
    return json.loads((folder / "report.json").read_text())["trajectory"]["source"].get(CORRECTIONS, [])


def test_a_profile_of_tracked_sweeps_scales_the_next_clip_of_that_probe_by_itself_and_is_told(clips, command, tmp_path):
    code, said, _ = command("profile", "make", *clips[:2], "--name", "clinic")
    assert code == 0
    assert "x 1.7, known to 5%" in said
    assert "30.0 mm (measured), found as 17.6 mm: x 1.7" in said
    out = tmp_path / "out"
    code, said, complaints = command("run", clips[2], "-o", out, "--no-pictures")
    assert code == 0
    assert "Scaled the elevational motion by 1.7, known to 5%, as the scanner profile clinic says." in said
    assert "outside of what the scanner profile" not in complaints
    path = read_trajectory_csv(out / "trajectory.csv")
    assert path.path_length_mm == pytest.approx(LENGTH_MM, rel=1e-6)
    (entry,) = entries(out)
    assert (entry["kind"], entry["factor"]) == ("scanner profile", pytest.approx(FACTOR))
    assert entry["given"]["profile"] == "clinic"
    for written in (path, load_sweep(out / "sweep.igs.mha").tracked):
        assert [one["text"] for one in written.provenance[CORRECTIONS]] == [entry["text"]]
    assert b"as the scanner profile clinic says" in (out / "volume.nrrd").read_bytes()[:20000]


def test_a_ruler_makes_a_profile_that_is_used_by_its_name_or_file(clips, command, tmp_path):
    code, _, complaints = command("profile", "make", clips[3], "--name", "ruler", "--length-mm", LENGTH_MM)
    assert code == 0
    assert "One sweep tells little" in complaints
    assert "1 within its spread" not in complaints
    needless = command("profile", "make", *clips[:2], "--name", "needless", "--length-mm", "20,29.5")
    assert "The factor is 1 within its spread" in needless[2]
    copy = tmp_path / "copy.yaml"
    copy.write_text((tmp_path / "models/profiles/ruler.yaml").read_text())
    for name in ("ruler", copy):
        out = tmp_path / f"{name}.csv"
        assert command("track", clips[3], "-o", out, "--profile", name)[0] == 0
        assert read_trajectory_csv(out).path_length_mm == pytest.approx(LENGTH_MM, rel=1e-6)


def test_without_a_profile_that_fits_nothing_changes(clips, command, tmp_path, model_file):
    settings = RunSettings(model=str(model_file), reconstruct=False, pictures=False)
    before = run(clips[3], settings)
    command("profile", "make", clips[0], "--name", "clinic")
    for path, profile in ((clips[3], "auto"), (clips[0], "none")):
        after = run(path, replace(settings, profile=profile))
        np.testing.assert_array_equal(after.trajectory.poses, before.trajectory.poses)
        assert CORRECTIONS not in after.trajectory.provenance


def test_a_result_is_scaled_afterwards_and_only_once(clips, command, tmp_path):
    command("profile", "make", clips[0], "--name", "clinic")
    first, second, third = (tmp_path / name for name in ("1", "2", "3"))
    assert command("run", clips[2], "-o", first, "--profile", "none", "--no-pictures")[0] == 0
    assert entries(first) == []
    assert command("correct", first, "-o", second, "--profile", "clinic", "--no-pictures")[0] == 0
    assert [entry["kind"] for entry in entries(second)] == ["scanner profile"]
    code, _, complaint = command("correct", second, "-o", third, "--profile", "clinic", "--no-pictures")
    assert code == 2
    assert "The path was scaled already" in complaint
    assert not third.exists()
    known = ("--known-length-mm", "20")
    assert command("correct", second, "-o", third, *known, "--no-pictures")[0] == 0
    assert [entry["kind"] for entry in entries(third)] == ["scanner profile", "known length"]


def test_outside_of_its_preset_the_console_and_the_result_warn(clips, command, tmp_path):
    command("profile", "make", clips[0], "--name", "clinic")
    away = ("--profile", "clinic", "--spacing", "0.7", "--no-pictures", "--no-reconstruct")
    code, _, complaint = command("run", clips[3], "-o", tmp_path / "out", *away)
    assert code == 0
    sentence = "scanner profile clinic was made for (pixel size 0.7 x 0.7 mm, not 0.5 x 0.5 mm)"
    assert complaint.count(sentence) == 1
    assert sum(sentence in note for note in json.loads((tmp_path / "out/report.json").read_text())["warnings"]) == 1


def test_measured_poses_are_never_scaled(clips, command, tmp_path):
    command("profile", "make", clips[0], "--name", "clinic")
    command("reconstruct", clips[1], "-o", tmp_path / "out", "--no-pictures")
    assert entries(tmp_path / "out") == []
    code, _, complaint = command("reconstruct", clips[1], "-o", tmp_path / "no", "--profile", "clinic")
    assert code == 2
    assert "clinic" in complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clip3.igs.mha"], "clip3.igs.mha: The sweep has no tracking .* Or say how long it is: --length-mm"),
        (["clip0.igs.mha", "clip0.igs.mha"], "clip0.igs.mha is given twice"),
        (["clip0.igs.mha", "clip1.igs.mha", "--length-mm", "30,50"], "contradict each other: .* 1.67 times"),
        (["clip0.igs.mha", "clip1.igs.mha", "--length-mm", "30,50,20"], "2 sweeps and 3 lengths"),
        (["clip0.igs.mha", "--length-mm", "12"], "clip0.igs.mha: It is 12 mm long, and a profile needs 20 mm"),
        (["clip0.igs.mha", "--length-mm", "120"], "clip0.igs.mha: The path is 17.6 mm long, and scaled by 0.2 to 5"),
        (["clip0.igs.mha", "--length-mm", "-3"], "length of a sweep is -3 mm"),
        (["clip0.igs.mha", "--name", "Clinic One"], "not a valid name of a profile"),
    ],
)
def test_what_makes_no_profile_is_refused_in_a_sentence_and_nothing_is_kept(clips, command, tmp_path, arguments, words):
    paths = [str(tmp_path / word) if word.endswith(".mha") else word for word in arguments]
    code, _, complaint = command("profile", "make", "--name", "clinic", *paths)
    assert code == 2
    assert complaint.count("\n") <= 2
    assert re.search(words, complaint)
    assert not (tmp_path / "models").exists()


def test_poses_of_an_estimate_tell_no_length(clips, command, tmp_path):
    command("track", clips[0], "-o", tmp_path / "found.igs.mha")
    code, _, complaint = command("profile", "make", tmp_path / "found.igs.mha", "--name", "clinic")
    assert code == 2
    assert "found.igs.mha: The poses of this sweep are estimated by tiny" in complaint


def test_sweeps_of_two_presets_make_no_profile(clips, command, tmp_path):
    sweep = load_sweep(clips[1])
    other = replace(sweep, provenance={"scanner": {**SCANNER, "depth_mm": 60.0}})
    save_sweep(other, tmp_path / "deep.igs.mha", trajectory=sweep.tracked)
    code, _, complaint = command("profile", "make", clips[0], tmp_path / "deep.igs.mha", "--name", "clinic")
    assert code == 2
    assert "deep.igs.mha was recorded with another preset than the sweeps before it (depth 60 mm, not 40" in complaint


def test_profiles_are_shown_listed_and_removed_for_people_and_machines(clips, command, tmp_path):
    code, said, _ = command("profile", "make", clips[0], "--name", "clinic", "--latency-ms", "40", "--json")
    made = json.loads(said)
    assert made["schema"] == "dualtrack profile make/1"
    assert made == {**made, **yaml.safe_load((tmp_path / "models/profiles/clinic.yaml").read_text())}
    assert made["preset"] == {**SCANNER, "frame_rate_hz": pytest.approx(20), "spacing_mm": [0.5, 0.5]}
    shown = json.loads(command("profile", "show", "clinic", "--json")[1])
    assert shown["latency_ms"] == 40
    assert "probe L12-3" in command("profile", "show", "clinic")[1]
    (tmp_path / "models/profiles/bad.yaml").write_text("format: 1")
    code, said, complaint = command("profile", "list")
    assert (code, "bad.yaml is missing" in complaint) == (0, True)
    assert "clinic" in said
    listed = json.loads(command("profile", "list", "--json")[1])
    assert [one["name"] for one in listed["profiles"]] == ["clinic"]
    assert len(listed["faults"]) == 1
    for name in ("clinic", "bad"):
        assert command("profile", "remove", name)[0] == 0
    code, _, complaint = command("profile", "remove", "clinic")
    assert (code, "there are: none" in complaint) == (2, True)
    assert command("run", clips[0], "-o", tmp_path / "out", "--profile", "clinic")[0] == 2
    assert not (tmp_path / "out").exists()


def test_files_tell_the_scanner_where_they_know_it(tmp_path, command):
    item = region(0, 0, 39, 29)
    item.TransducerFrequency = 7500
    facts = {"Manufacturer": "Maker", "ManufacturerModelName": "One", "TransducerData": ["L12-3", "A"]}
    path = make(tmp_path / "a.dcm", noise(3, 30, 40), regions=[item], DepthOfScanField="40", **facts)
    sweep = load_sweep(path)
    said = Preset("Maker One", "L12-3 A", 7.5, 40.0, None, sweep.spacing_mm)
    assert Preset.of(sweep) == said
    for name in ("b.igs.mha", "b.igs.nrrd", "b.seq.nrrd", "b.h5"):
        save_sweep(sweep, tmp_path / name)
        assert Preset.of(load_sweep(tmp_path / name)) == said
    assert "scanner       Maker One, L12-3 A, 7.5 MHz, 40.0 mm deep" in command("info", path)[1]
    text = (tmp_path / "b.igs.mha").read_bytes()
    (tmp_path / "c.igs.mha").write_bytes(text.replace(b"FrequencyMhz = 7.5", b"FrequencyMhz = -7."))
    assert Preset.of(load_sweep(tmp_path / "c.igs.mha")).frequency_mhz is None
    bad = make(tmp_path / "d.dcm", noise(3, 30, 40), regions=[item], DepthOfScanField="0", Manufacturer="")
    assert load_sweep(bad).provenance["scanner"] == {"frequency_mhz": 7.5}
