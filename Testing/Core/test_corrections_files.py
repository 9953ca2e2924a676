"""What is known of a sweep, from options and tables to results, and through files and back."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace

import numpy as np
import pytest
import SimpleITK as sitk
import yaml
from drifting_paths import IN_PLANE, gpe_mm, mark, pair
from oracle import noise_sweep, tiny_model
from scipy.spatial.transform import Rotation

from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser, given_settings
from DualTrackCore.corrections import Corrections, KnownLength, KnownPoses, Mark, correct, knowledge_of, propose_loops
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep, write_trajectory_csv
from DualTrackCore.path_error import CORRECTIONS, path_error
from DualTrackCore.research.simulation import rendered, simulated_sweep
from DualTrackCore.run import RunSettings, run
from DualTrackCore.run.correction import correct_result
from DualTrackCore.run.pipeline import run_frames
from DualTrackCore.settings import setting_of
from DualTrackCore.sweep import Sweep

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
FRAMES = 30


@pytest.fixture(scope="module")
def known():
    """True path and estimate of a sweep that came back."""
    return pair(0, frames=FRAMES, way="back")


def clip(frames=FRAMES, **changes):
    times = np.arange(frames) / 20
    return Sweep(noise_sweep(frames, 40, 50).frames, 0.4, times, **changes)


def table(path, columns, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return str(path)


@pytest.fixture
def results(tmp_path, known):
    """A folder of results without corrections."""
    result = run(clip(tracked=known[1]), RunSettings(poses="tracked", voxel_mm=2.0, pictures=False))
    result.write(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize("suffix", [".csv", ".igs.mha", ".igs.nrrd", ".seq.nrrd", ".h5"])
@pytest.mark.parametrize("by_rule", [False, True])
def test_a_corrected_path_comes_back_from_files_with_its_errors_and_entries(tmp_path, known, suffix, by_rule):
    given = replace(known[1], sigma=None) if by_rule else known[1]
    path = correct(given, [KnownLength(12.0), KnownPoses("tracker", np.array([0, 9]), given.poses[[0, 9]], 1.0)])
    if suffix == ".csv":
        write_trajectory_csv(path, tmp_path / "a.csv")
        again = read_trajectory_csv(tmp_path / "a.csv")
    else:
        save_sweep(clip(), tmp_path / f"a{suffix}", trajectory=path)
        again = load_sweep(tmp_path / f"a{suffix}").tracked
    np.testing.assert_array_equal(again.path_covariance, path.path_covariance)
    np.testing.assert_array_equal(again.sigma, path.sigma)
    assert again.provenance[CORRECTIONS] == json.loads(json.dumps(path.provenance[CORRECTIONS]))
    assert path_error(again).as_dict() == path_error(path).as_dict()
    assert (path_error(again).rule_percent is not None) == by_rule


def test_uncorrected_paths_are_written_without_a_word_of_it(tmp_path, known):
    write_trajectory_csv(known[1], tmp_path / "a.csv")
    save_sweep(clip(), tmp_path / "a.igs.mha", trajectory=known[1])
    for name in ("a.csv", "a.igs.mha"):
        content = (tmp_path / name).read_bytes()
        assert not any(word in content for word in (b"orrections", b"ovariance"))


def test_a_run_without_knowledge_is_as_before_and_one_with_it_says_so_everywhere(tmp_path, known):
    sweep, settings = clip(tracked=known[1]), RunSettings(poses="tracked", voxel_mm=2.0, pictures=False)
    plain = run(sweep, settings)
    assert plain.trajectory.poses.tobytes() == known[1].poses.tobytes()
    assert CORRECTIONS not in plain.report.trajectory["source"]
    result = run(sweep, replace(settings, corrections=Corrections(known_length_mm=12.0)))
    report = result.write(tmp_path / "out")
    (entry,) = report.trajectory["source"][CORRECTIONS]
    assert entry["factor"] == pytest.approx(12 / plain.trajectory.path_length_mm, rel=0.1)
    assert report.trajectory["path_length_mm"] == pytest.approx(12, rel=1e-12)
    assert report.trajectory["error"]["length_95_mm"] < plain.report.trajectory["error"]["length_95_mm"]
    assert json.loads((tmp_path / "out/report.json").read_text())["trajectory"]["source"][CORRECTIONS] == [entry]
    assert yaml.safe_load((tmp_path / "out/settings.yaml").read_text())["corrections"]["known_length_mm"] == 12
    header = sitk.ReadImage(str(tmp_path / "out/volume.nrrd")).GetMetaData("DualTrackPosesCorrections")
    assert json.loads(header) == [entry]
    assert load_sweep(tmp_path / "out/sweep.igs.mha").tracked.provenance[CORRECTIONS] == [entry]


def test_an_estimate_is_corrected_before_it_becomes_a_volume():
    given = {"models": lambda _: tiny_model()}
    plain = run(clip(), RunSettings(voxel_mm=2.0), **given)
    length = 1.5 * plain.trajectory.path_length_mm
    known = Corrections(known_length_mm=length, scale="all", monotone=True)
    result = run(clip(), RunSettings(voxel_mm=2.0, corrections=known), **given)
    assert result.trajectory.path_length_mm == pytest.approx(length, rel=1e-9)
    assert [entry["kind"] for entry in result.trajectory.provenance[CORRECTIONS]] == ["limits", "known length"]
    assert result.report.volume["size"] != plain.report.volume["size"]


def test_knowledge_that_cannot_be_used_is_said_before_the_model_is_loaded():
    def never(settings):
        raise AssertionError("the model was asked for")

    for known in (Corrections(places="nowhere.csv"), Corrections(loops=((0, 400),)), Corrections(tracker="clip")):
        with pytest.raises(InputError):
            run(clip(), RunSettings(corrections=known), models=never)


def test_the_command_corrects_a_folder_as_a_run_does(tmp_path, known, results, capsys):
    before = {path.name: path.read_bytes() for path in results.iterdir()}
    words = ["--known-length-mm", "12", "--loops", "0,29;3,26", "--monotone", "--no-pictures"]
    assert main(["correct", str(results), *words, "-o", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert (
        "corrected    Scaled the elevational motion by" in said or "corrected   Scaled the elevational motion" in said
    )
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before
    corrections = Corrections(known_length_mm=12, loops=((0, 29), (3, 26)), monotone=True)
    settings = RunSettings(poses="tracked", voxel_mm=2.0, pictures=False, corrections=corrections)
    expected = run(clip(tracked=known[1]), settings)
    found = read_trajectory_csv(tmp_path / "new/trajectory.csv")
    np.testing.assert_allclose(found.poses, expected.trajectory.poses, atol=1e-9)
    volume = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "new/volume.nrrd")))
    np.testing.assert_array_equal(volume, expected.volume)
    report = json.loads((tmp_path / "new/report.json").read_text())
    assert report["trajectory"]["source"]["model"] == "toy"
    assert report["trajectory"]["trust"] == json.loads(expected.report.to_json())["trajectory"]["trust"]


def test_a_second_correction_of_a_folder_keeps_the_first_and_what_tracking_found(tmp_path, results):
    report = json.loads((results / "report.json").read_text())
    report["trajectory"]["source"] |= {"direction": "sure", "outside_training": ["long steps"]}
    (results / "report.json").write_text(json.dumps(report))
    correct_result(results, {"corrections": {"known_length_mm": 12}}).write(tmp_path / "one")
    two = correct_result(tmp_path / "one", {"corrections": Corrections(loops=((0, 29),)), "reconstruct": False})
    kinds = [entry["kind"] for entry in two.trajectory.provenance[CORRECTIONS]]
    assert kinds == ["known length", "same places"]
    assert two.report.trajectory["direction"] == "sure"
    assert "The probe moved faster" in two.report.trajectory["trust"]["text"]
    assert two.reconstruction is None


def test_a_folder_of_a_cropped_clip_is_corrected_in_its_own_pixels(tmp_path, known):
    settings = {"poses": "tracked", "voxel_mm": 2.0, "pictures": False, "first_frame": 2, "mask": ((10, 10, 5, 5),)}
    cropped = RunSettings(**settings, crop=(8, 4, 30, 30), clip=(10, 6, 20, 20))
    run(clip(tracked=known[1]), cropped).write(tmp_path / "plain")
    result = correct_result(tmp_path / "plain", {"corrections": {"stops": [[0, 1]]}})
    assert result.sweep.frame_size == (30, 30)
    assert len(result.trajectory) == FRAMES - 2
    assert result.report.settings["clip"] == [2, 2, 20, 20]
    assert result.report.settings["crop"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Nothing is said that is known"),
        (["--known-length-mm", "900"], "not the known 900 mm"),
        (["--known-length-mm", "-3"], "above 0"),
        (["--known-length-frames", "0,5"], "give --known-length-mm as well"),
        (["--loops", "0,99"], "the frames 0 to 29 are used"),
        (["--loops", "5"], "pairs of frames"),
        (["--stops", "9,2"], "cannot stand still"),
        (["--places", "missing.csv"], "Cannot read"),
        (["--scale", "both"], "one of elevational, all"),
    ],
)
def test_bad_knowledge_ends_with_a_sentence_and_nothing_written(tmp_path, results, capsys, words, sentence):
    assert main(["correct", str(results), *words, "-o", str(tmp_path / "new")]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_an_unusual_factor_is_warned_of_on_the_console_and_in_the_report(tmp_path, results, capsys):
    options = ["--known-length-mm", "24", "--no-reconstruct", "-o", str(tmp_path / "new")]
    assert main(["correct", str(results), *options]) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).count("The motion had to be scaled by") == 1
    warnings = json.loads((tmp_path / "new/report.json").read_text())["warnings"]
    assert sum("The motion had to be scaled by" in sentence for sentence in warnings) == 1


def test_a_folder_that_is_none_of_results_is_refused(tmp_path, results, capsys):
    options = ["--known-length-mm", "12", "-o", str(tmp_path / "new")]
    assert main(["correct", str(tmp_path), *options]) == 2
    assert "holds no report.json" in capsys.readouterr().err
    (results / "report.json").write_text("[]")
    assert main(["correct", str(results), *options]) == 2
    assert "is no report of a run" in capsys.readouterr().err
    assert main(["correct", str(results), "--known-length-mm", "12", "-o", str(results)]) == 2
    assert not (tmp_path / "new").exists()


def test_every_kind_of_knowledge_is_an_option_and_a_key_of_settings(tmp_path):
    for field in fields(Corrections):
        assert setting_of(field).help, field.name
    words = ["run", "a.mha", "-o", "out", "--scale", "all", "--known-length-mm", "9", "--stops", "1,4;9,12"]
    given = given_settings(build_parser().parse_args(words))["corrections"]
    assert given == {"scale": "all", "known_length_mm": 9.0, "stops": ((1, 4), (9, 12))}
    (tmp_path / "a.yaml").write_text("corrections: {monotone: true, scale: elevational}\nvoxel_mm: 2\n")
    settings = RunSettings.from_yaml(tmp_path / "a.yaml", {"corrections": given, "voxel_mm": 3})
    assert settings.corrections == Corrections(**given, monotone=True)
    assert RunSettings.from_dict(yaml.safe_load(settings.to_yaml())) == settings
    with pytest.raises(InputError, match=r"corrections\.length in the settings is no known key"):
        RunSettings.from_dict({"corrections": {"length": 3}})
    whole = RunSettings(corrections=Corrections(places="marks.csv", tracker="clip")).with_whole_paths()
    assert whole.corrections.tracker == "clip"
    assert whole.files == [whole.corrections.places]
    assert whole.corrections.places.startswith("/") or ":" in whole.corrections.places


def test_marks_of_a_table_take_out_the_drift(tmp_path):
    truth, path = pair(0, frames=FRAMES, way="back", sigma=IN_PLANE)
    sweep, rows = clip(), []
    for name, frames, place in (("a", (1, 28), (-8, -6)), ("b", (4, 25), (8, 6)), ("c", (9, 20), (5, -6))):
        for frame, point in zip(frames, mark(truth, frames, place), strict=True):
            x, y = np.linalg.inv(sweep.image_from_pixel)[:2, [0, 1, 3]] @ [*point, 1]
            rows.append((name, frame + 100, x + 7, y + 3))
    said = Corrections(places=table(tmp_path / "marks.csv", ("Point", "frame", "x", "y"), rows), places_accuracy_mm=0.2)
    points = knowledge_of(said, sweep, 100, (7, 3))
    assert [point.frames for point in points] == [(1, 28), (4, 25), (9, 20)]
    np.testing.assert_allclose(points[0].points_mm, mark(truth, (1, 28), (-8, -6)), atol=1e-9)
    assert gpe_mm(correct(path, points), truth) < gpe_mm(path, truth)


def test_marks_in_the_settings_are_those_of_a_table_and_come_back_from_a_report(tmp_path):
    rows = [("a", 3, 5.25, 5.5), ("a", 9, 6.0, 5.0), ("b", 4, 7.0, 8.0), ("b", 20, 7.5, 8.0)]
    by_table = Corrections(places=table(tmp_path / "marks.csv", ("point", "frame", "x", "y"), rows))
    settings = RunSettings(corrections=Corrections(places=tuple(Mark(*row) for row in rows)))
    again = RunSettings.from_dict(json.loads(json.dumps(settings.as_dict())))
    assert again == settings
    assert (again.files, bool(again.corrections)) == ([], True)
    for one, other in zip(*(knowledge_of(k, clip(), 0, (1, 2)) for k in (by_table, again.corrections)), strict=True):
        assert (one.name, one.frames) == (other.name, other.frames)
        np.testing.assert_array_equal(one.points_mm, other.points_mm)
    with pytest.raises(InputError, match="The list of marks marks 'a' at column 90"):
        knowledge_of(Corrections(places=(Mark("a", 1, 90, 5), Mark("a", 2, 5, 5))), clip())


@pytest.mark.parametrize(
    ("known", "about"),
    [
        ({"known_length_mm": 900.0}, "known_length_mm"),
        ({"known_length_mm": 9.0, "known_length_frames": (0, 90)}, "known_length_mm"),
        ({"places": (Mark("a", 1, 5, 5),)}, "places"),
        ({"loops": ((0, 90),)}, "loops"),
        ({"stops": ((9, 2),)}, "stops"),
        ({"orientations": "missing.csv"}, "orientations"),
        ({"tracker": "clip"}, "tracker"),
    ],
)
def test_an_error_says_which_setting_it_is_about(known, about):
    path = pair(0, frames=FRAMES)[1]
    with pytest.raises(InputError) as refusal:
        correct(path, knowledge_of(Corrections(**known), clip()))
    assert refusal.value.about == about


def test_the_path_of_an_earlier_run_is_corrected_to_the_byte_as_a_run_with_the_same_knowledge():
    given = {"models": lambda _: tiny_model()}
    plain = run(clip(), RunSettings(first_frame=2, voxel_mm=2.0), **given)
    length = 1.3 * plain.trajectory.path_length_mm
    known = Corrections(known_length_mm=length, loops=((3, 25),))
    settings = RunSettings(first_frame=2, voxel_mm=2.0, corrections=known)
    again = run_frames(plain.sweep, settings, None, None, plain.trajectory)  # without a model
    expected = run(clip(), settings, **given)
    assert again.trajectory.poses.tobytes() == expected.trajectory.poses.tobytes()
    np.testing.assert_array_equal(again.volume, expected.volume)
    facts = [json.loads(result.report.to_json()) for result in (again, expected)]
    for fact in facts:
        del fact["created"], fact["trajectory"]["source"]["estimated_at"]
    assert facts[0] == facts[1]


def test_marks_in_frames_that_are_not_used_are_left_out(tmp_path):
    rows = [("a", 3, 5, 5), ("a", 9, 5, 5), ("a", 90, 5, 5), ("b", 4, 5, 5), ("b", 91, 5, 5)]
    said = Corrections(places=table(tmp_path / "marks.csv", ("point", "frame", "x", "y"), rows))
    (point,) = knowledge_of(said, clip())
    assert (point.name, point.frames) == ("a", (3, 9))
    with pytest.raises(InputError, match="marks no point in two of the frames that are used"):
        knowledge_of(said, clip().slice(3, 6), first_frame=3)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00\x01", b"point,frame,x,y\n\x00\xe9", b"", b"\n\n", b'"' * 200_000])
@pytest.mark.parametrize("setting", ["places", "orientations", "tracker"])
def test_a_file_that_is_no_table_is_refused_in_a_sentence(tmp_path, content, setting):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError) as refusal:
        knowledge_of(Corrections(**{setting: str(tmp_path / "a.csv")}), clip())
    assert len(str(refusal.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("by", ["frame", "time_s"])
def test_orientations_of_a_table_are_by_frame_or_by_time(tmp_path, known, by):
    truth, sweep = known[0], clip()
    quaternions = Rotation.from_matrix(truth.poses[:, :3, :3]).as_quat()
    keys = np.arange(FRAMES) if by == "frame" else sweep.timestamps_s
    rows = [(key, *turn) for key, turn in zip(keys, quaternions, strict=True)]
    said = Corrections(orientations=table(tmp_path / "imu.csv", (by, "qx", "qy", "qz", "qw"), rows[3:]))
    (found,) = knowledge_of(said, sweep)
    assert found.frames.tolist() == list(range(3, FRAMES))
    np.testing.assert_allclose(found.poses[:, :3, :3], truth.poses[3:, :3, :3], atol=1e-6)
    assert (found.accuracy_mm, found.accuracy_deg) == (None, 1.0)


def test_a_tracker_is_a_trajectory_with_gaps_a_table_of_positions_or_the_clip_itself(tmp_path, known):
    truth = known[0]
    valid = np.arange(FRAMES) % 3 > 0
    lost = replace(truth, valid=valid, origin="measured")
    write_trajectory_csv(lost, tmp_path / "poses.csv")
    rows = [(frame, *truth.poses[frame, :3, 3]) for frame in np.flatnonzero(valid)]
    places = table(tmp_path / "places.csv", ("frame", "x_mm", "y_mm", "z_mm"), rows)
    for tracker, accuracy in ((str(tmp_path / "poses.csv"), 1.0), ("clip", 1.0), (places, None)):
        (found,) = knowledge_of(Corrections(tracker=tracker), clip(tracked=lost))
        assert found.frames.tolist() == np.flatnonzero(valid).tolist()
        np.testing.assert_allclose(found.poses[:, :3, 3], truth.poses[valid, :3, 3], atol=1e-9)
        assert found.accuracy_deg == accuracy


def test_the_clips_own_tracking_fills_the_estimate_and_then_measures_nothing(known):
    lost = replace(known[0], valid=np.arange(FRAMES) % 3 > 0, origin="measured")
    settings = RunSettings(reconstruct=False, corrections=Corrections(tracker="clip"))
    given = {"models": lambda _: tiny_model()}
    result = run(clip(tracked=lost), settings, **given)
    assert result.evaluation is None
    assert run(clip(tracked=lost), replace(settings, corrections=Corrections()), **given).evaluation is not None
    aligned = result.trajectory.poses[1] @ np.linalg.inv(known[0].poses[1]) @ known[0].poses
    assert np.linalg.norm((aligned - result.trajectory.poses)[:, :3, 3], axis=1).mean() < 2
    assert "poses of the tracker" in result.trajectory.provenance[CORRECTIONS][0]["text"]
    with pytest.raises(InputError, match="which way it runs"):
        result.turned_over()


@pytest.mark.parametrize(
    ("setting", "columns", "rows", "words"),
    [
        ("places", ("point", "frame", "x"), [], "no column y"),
        ("places", ("point", "frame", "x", "y"), [], "holds no marks"),
        ("places", ("point", "frame", "x", "y"), [("a", 1, 2, "u")], "line 2, holds 'u', which is no number"),
        ("places", ("point", "frame", "x", "y"), [("a", 1, 2, 3), ("b", 2, 2, 3)], "two or more"),
        ("places", ("point", "frame", "x", "y"), [("a", 1, 2, 3), ("a", 2, 900, 3)], "column 900, row 3, outside"),
        ("places", ("point", "frame", "x", "y"), [("a", 1.5, 2, 3), ("a", 2, 2, 3)], "whole numbers"),
        ("places", ("point", "frame", "x", "y"), [("", 1, 2, 3)], "names no point"),
        ("places", ("point", "frame", "x", "y"), [("a", 1, 2)], "has 3 columns; expected 4"),
        ("orientations", ("qx", "qy", "qz", "qw"), [], "no column frame or time_s"),
        ("orientations", ("frame", "qx", "qy", "qz", "qw"), [(0, 0, 0, 0, 0)], "must be 1"),
        ("orientations", ("frame", "qx", "qy", "qz", "qw"), [(0, 0, 0, 0, 1)], "fewer than two"),
        ("orientations", ("time_s", "qx", "qy", "qz", "qw"), [(90, 0, 0, 0, 1), (91, 0, 0, 0, 1)], "same clock"),
        ("orientations", ("time_s", "qx", "qy", "qz", "qw"), [(1, 0, 0, 0, 1), (0, 0, 0, 0, 1)], "do not rise"),
        ("tracker", ("frame", "x_mm", "y_mm", "z_mm"), [(400, 0, 0, 0)], "fewer than two of the frames 0 to 29"),
        ("tracker", ("frame", "x_mm"), [], "not a trajectory table"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_with_the_place(tmp_path, known, setting, columns, rows, words):
    said = Corrections(**{setting: table(tmp_path / "a.csv", columns, rows)})
    with pytest.raises(InputError, match=words) as refusal:
        knowledge_of(said, clip())
    assert "a.csv" in str(refusal.value) or "two or more" in str(refusal.value)


def test_loops_are_proposed_where_the_probe_came_back_and_only_proposed(tmp_path, capsys):
    made = rendered(simulated_sweep(3, frames=40, frame_size=(96, 96), spacing_mm=0.3, family="Per_L_DtP"))
    there_and_back = np.r_[np.arange(40), np.arange(38, -1, -1)]
    sweep = Sweep(np.asarray(made.frames[:])[there_and_back], 0.3)
    path = made.tracked.chosen(there_and_back)
    assert propose_loops(Sweep(np.asarray(made.frames[:]), 0.3), made.tracked) == []
    found = propose_loops(sweep, path)
    rng, still = np.random.default_rng(0), np.asarray(made.frames[:1]) * 0.9
    everywhere = np.clip(still + rng.normal(0, 6, (79, 96, 96)), 0, 255).astype(np.uint8)
    assert propose_loops(Sweep(everywhere, 0.3), path) == []  # alike pictures in between say nothing
    pairs = ";".join(f"{first},{last}" for first, last in (place.frames for place, _ in found))
    run(replace(sweep, tracked=path), RunSettings(poses="tracked", voxel_mm=2.0, pictures=False)).write(
        tmp_path / "out"
    )
    before = sorted(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert main(["correct", str(tmp_path / "out"), "--propose-loops"]) == 0
    assert f'give --loops "{pairs}"' in capsys.readouterr().out
    assert sorted(path.read_bytes() for path in (tmp_path / "out").iterdir()) == before
    assert found
    for place, likely in found:
        assert sum(place.frames) == pytest.approx(78, abs=1)
        assert 0.5 <= likely <= 1.001
