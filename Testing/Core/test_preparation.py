"""A clip before it is tracked: cropped, turned, mirrored, measured by depth, and without the names burned into it."""

import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from named_clips import NAME, SHOWN, lettering, named_frames, named_sweep, speckle, straight_poses
from shared_files import shared_path
from video_files import make

from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser, given_settings
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep, save_sweep
from DualTrackCore.landmarks import Landmarks
from DualTrackCore.reconstruction import Fan
from DualTrackCore.run import RunSettings, run
from DualTrackCore.run.preparation import cropped_area, prepare
from DualTrackCore.sample import sample_path
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

INK = lettering() > 0


def numbered(frames=3, height=7, width=10):
    """Frames of which no two pixels are alike."""
    return (np.arange(frames * height * width) % 251).reshape(frames, height, width).astype(np.uint8)


def poses_of(seed, frames=4):
    """A tracked path in a tracker's world, with one pose that is not valid and errors of the motions."""
    random = np.random.default_rng(seed)
    world = matrices_from_parameters(random.uniform(-40, 40, (frames, 6)))
    valid = np.array([True, True, False, True])
    poses = Trajectory.from_reference(world, valid, origin="measured")
    sigma = np.where((valid[1:] & valid[:-1])[:, None], random.uniform(0.1, 2, (frames - 1, 6)), np.nan)
    return replace(poses, sigma=sigma)


def places_mm(sweep, pixels):
    """[N, P, 3] where pixels [P, 2] of each frame lie in the world."""
    whole = np.column_stack([pixels, np.zeros(len(pixels)), np.ones(len(pixels))]).T
    poses = sweep.tracked
    return np.swapaxes(poses.reference_from_frame0 @ poses.poses @ sweep.image_from_pixel @ whole, 1, 2)[..., :3]


@settings(max_examples=60, deadline=None)
@given(
    rotate=st.sampled_from([0, 90, 180, 270]),
    mirror=st.booleans(),
    box=st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(2, 3), st.integers(2, 3)),
    spacing=st.tuples(st.floats(0.05, 2), st.floats(0.05, 2)),
    skew=st.floats(-10, 10) | st.just(0.0),
    seed=st.integers(0, 99),
)
def test_tissue_stays_where_the_tracker_had_it_however_a_picture_is_cut_turned_and_mirrored(
    rotate, mirror, box, spacing, skew, seed
):
    box = None if box is None else (*box[:2], min(box[2], 7 - box[0]), min(box[3], 7 - box[1]))
    sweep = Sweep(numbered(4), spacing, skew_deg=skew, tracked=poses_of(seed))
    prepared = prepare(sweep, RunSettings(rotate=rotate, mirror=mirror, crop=box, mask="none"))
    seen = prepared.sweep
    height, width = seen.frame_size
    pixels = np.array([[u, v] for u in range(width) for v in range(height)])
    before = (np.column_stack([pixels, np.ones(len(pixels))]) @ prepared.source_from_pixel.T)[:, :2]
    columns, rows = before.round().astype(int).T
    assert np.array_equal(seen.window(0, 4)[:, pixels[:, 1], pixels[:, 0]], sweep.window(0, 4)[:, rows, columns])
    valid = sweep.tracked.valid
    np.testing.assert_allclose(places_mm(seen, pixels)[valid], places_mm(sweep, before)[valid], atol=1e-9)
    np.testing.assert_allclose(seen.tracked.poses[0], np.eye(4), atol=1e-15)
    assert seen.tracked.origin == sweep.tracked.origin
    assert np.isnan(seen.tracked.sigma[1:]).all()
    assert np.isfinite(seen.tracked.sigma[0]).all()


def test_pictures_are_turned_clockwise_then_mirrored_then_cropped():
    sweep = Sweep(numbered(), (0.2, 0.3))
    turned = np.rot90(sweep.frames, -1, axes=(1, 2))
    assert turned[0, 0, -1] == sweep.frames[0, 0, 0]  # the upper left corner comes to the right
    prepared = prepare(sweep, RunSettings(rotate=90, mirror=True, crop=(1, 2, 5, 6), mask="none"))
    assert np.array_equal(prepared.turned.window(0, 3), turned[:, :, ::-1])
    assert np.array_equal(prepared.sweep.window(0, 3), turned[:, 2:8, 5:0:-1])
    assert prepared.sweep.spacing_mm == prepared.turned.spacing_mm == (0.3, 0.2)
    assert prepared.sweep.frame_size == (6, 5)


def test_a_mirrored_picture_is_the_same_plane_seen_from_behind():
    motion = [0.1, 0.2, 0.5, 3, 4, 5]
    tracked = Trajectory.from_parameters(np.tile(motion, (3, 1)), origin="measured")
    mirrored = prepare(Sweep(numbered(4), 0.2, tracked=tracked), RunSettings(mirror=True)).sweep.tracked
    np.testing.assert_allclose(mirrored.parameters, np.tile([-0.1, 0.2, -0.5, -3, 4, -5], (3, 1)), atol=1e-9)
    np.testing.assert_allclose(mirrored.path_length_mm, tracked.path_length_mm)
    np.testing.assert_allclose(np.linalg.det(mirrored.poses[:, :3, :3]), 1)


def test_errors_of_motions_follow_the_picture():
    sigma = np.tile([0.1, 0.2, 0.3, 0.0, 0.0, 1.0], (3, 1))
    tracked = replace(
        straight_poses(4), sigma=sigma, provenance={"step_error_correlation": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    )
    sweep = Sweep(np.zeros((4, 100, 200), np.uint8), 0.5, tracked=tracked)
    turned = prepare(sweep, RunSettings(rotate=90)).sweep.tracked
    np.testing.assert_allclose(turned.sigma[0], [0.2, 0.1, 0.3, 0, 0, 1], atol=1e-6)
    assert turned.provenance["step_error_correlation"] == [0.2, 0.1, 0.3, 0.5, 0.4, 0.6]
    cropped = prepare(sweep, RunSettings(crop=(100, 0, 100, 100))).sweep.tracked
    lever = 25 * np.deg2rad(1)  # the centre moves 25 mm to the right, and turns about z swing it down
    np.testing.assert_allclose(cropped.sigma[0], [0.1, np.hypot(0.2, lever), 0.3, 0, 0, 1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["sample", "phantom", "leg", "block"])
def test_a_clip_without_text_stays_as_it_is_bit_for_bit(kind):
    if kind == "block":  # as the makers of field cases draw it: bright and still, but on the picture
        frames = speckle(20, 128, 160)
        frames[:, 5:25, 8:40], frames[:, 60:70, 130:150], frames[:, 122:] = 250, 150, 20
        sweep = Sweep(frames, 0.2)
    else:
        places = {"phantom": "data/seq/SpinePhantomFreehand.igs.mha", "leg": "data/real/ultrabones_leg_0138.h5"}
        sweep = load_sweep(sample_path() if kind == "sample" else shared_path(places[kind]))
    prepared = prepare(sweep, RunSettings())
    assert prepared.regions == ()
    assert prepared.sweep.frames is sweep.frames
    assert prepared.sweep.tracked is sweep.tracked
    assert prepared.sweep.spacing_mm == sweep.spacing_mm
    assert prepared.area is not None


@pytest.mark.parametrize("frames", [2, 16])
def test_a_name_beside_the_ultrasound_is_blacked_out_and_the_ultrasound_is_not(frames):
    prepared = prepare(named_sweep(frames=frames), RunSettings())
    assert np.array_equal(prepared.sweep.window(0, frames), named_frames(None, frames))
    x, y, width, height = prepared.regions[0]
    assert (x, y) < (6, 8)
    assert x + width > 100
    assert y + height <= SHOWN[1]
    assert "Blacked out" in prepared.sweep.provenance["prepared"]["done"][0]
    kept = prepare(named_sweep(frames=frames), RunSettings(mask="none"))
    assert np.array_equal(kept.sweep.window(0, frames), named_frames(NAME, frames))
    assert kept.regions == ()


def test_letters_that_nearly_touch_the_ultrasound_go_and_every_pixel_of_it_stays():
    clip = np.zeros((16, 150, 200), np.uint8)
    clip[:, 22:130, 80:] = speckle(16, 108, 120)
    prepared = prepare(Sweep(np.maximum(clip, lettering()), 0.2), RunSettings())
    x, y, width, height = prepared.regions[0]
    assert x + width > 85
    assert y + height > 22  # the region reaches into the ultrasound
    assert np.array_equal(prepared.sweep.window(0, 16), clip)


def test_a_bright_still_rim_of_the_ultrasound_is_no_text():
    fan = [Fan((100.0, -40.0), (-angle, angle), (60.0, 180.0)).mask((150, 200)) for angle in (35.0, 31.0)]
    clip = speckle(16, 150, 200) * fan[0]
    clip[:, fan[0] & ~fan[1]] = 255
    prepared = prepare(Sweep(clip, 0.2), RunSettings())
    assert prepared.sweep.frames is clip


def test_a_name_travels_in_no_file_of_a_run(tmp_path):
    """Files of a clip with the name and of one that never had it hold the same pictures."""
    for name in (NAME, None):
        clip = tmp_path / f"in{name is None}" / "clip.igs.mha"
        clip.parent.mkdir()
        save_sweep(named_sweep(name), clip)
        words = ["--poses", "tracked", "--voxel", "0.4", "--hole-filling", "none"]
        words += ["-o", str(tmp_path / f"out{name is None}")]
        assert main(["reconstruct", str(clip), *words, "--slicer"]) == 0
        for suffix in (".igs.nrrd", ".h5"):
            output = tmp_path / f"converted{name is None}{suffix}"
            assert main(["convert", str(clip), str(output)]) == 0
    one, other = tmp_path / "outFalse", tmp_path / "outTrue"
    assert (one / "slices.png").read_bytes() == (other / "slices.png").read_bytes()
    for file in ("sweep.igs.mha", "volume.nrrd", "coverage.nrrd"):
        assert _pixels(one / file) == _pixels(other / file)
    for suffix in (".igs.nrrd", ".h5"):
        frames = [load_sweep(tmp_path / f"converted{end}{suffix}").window(0, 16) for end in (False, True)]
        assert np.array_equal(*frames)
    assert _scene(one / "scene.mrb") == _scene(other / "scene.mrb")
    report = json.loads((one / "report.json").read_text())
    assert len(report["sweep"]["prepared"]["masked"]) == 2
    assert json.loads((other / "report.json").read_text())["sweep"]["prepared"]["masked"] == []


def _scene(path):
    """The pictures in a scene, by their sizes and bytes."""
    with zipfile.ZipFile(path) as scene:
        pictures = [name for name in scene.namelist() if name.endswith(".nrrd")]
        assert len(pictures) >= 3
        return [scene.read(name).partition(b"\n\n")[2] for name in sorted(pictures)]


def _pixels(path):
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).tobytes()


def test_convert_keeps_a_name_only_where_it_is_told_to_and_says_what_it_did(tmp_path, capsys):
    save_sweep(named_sweep(), tmp_path / "clip.igs.mha")
    assert main(["convert", str(tmp_path / "clip.igs.mha"), str(tmp_path / "a.h5")]) == 0
    assert "Blacked out 2 regions that stand still" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "clip.igs.mha"), str(tmp_path / "b.h5"), "--mask", "none"]) == 0
    assert "Blacked" not in capsys.readouterr().out
    assert not load_sweep(tmp_path / "a.h5").window(0, 1)[0][INK].any()
    assert np.array_equal(load_sweep(tmp_path / "b.h5").window(0, 16), named_frames())


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4", "libx264"])
def test_letters_that_shake_in_video_are_blacked_out_too(tmp_path, codec):
    pytest.importorskip("av")
    make(tmp_path / "clip.avi", named_frames(), codec, "yuvj420p" if codec == "mjpeg" else "yuv420p")
    sweep = load_sweep(tmp_path / "clip.avi", spacing_mm=0.2)
    seen = prepare(sweep, RunSettings()).sweep.window(0, 16)
    x, y, width, height = SHOWN
    assert not seen[:, INK].any()
    inside = (slice(None), slice(y + 2, y + height - 2), slice(x + 2, x + width - 2))
    assert np.array_equal(seen[inside], sweep.window(0, 16)[inside])


def test_a_clip_in_which_nothing_moves_is_left_as_it_is_and_that_is_said():
    still = Sweep(np.repeat(named_frames(frames=1), 5, axis=0), 0.2)
    prepared = prepare(still, RunSettings())
    assert prepared.sweep.frames is still.frames
    assert prepared.sweep.provenance["prepared"]["area"] is None
    assert "No image area was found" in prepared.sweep.provenance["prepared"]["done"][0]


def test_a_mask_blacks_out_what_it_names_and_nothing_else():
    boxes = ((3, 2, 4, 5), (190, 140, 10, 10))
    prepared = prepare(named_sweep(), RunSettings(mask=boxes, crop=(5, 0, 190, 145)))
    expected = named_frames()
    for x, y, width, height in boxes:
        expected[:, y : y + height, x : x + width] = 0
    assert np.array_equal(prepared.sweep.window(0, 16), expected[:, :145, 5:195])
    assert prepared.regions == boxes


def test_what_is_cropped_away_reaches_neither_network_nor_files(model_file, tmp_path):
    _, y, width, height = SHOWN
    other = named_frames("ANOTHER")
    other[:, y + height :] = 77
    choice = RunSettings(model=str(model_file), device="cpu", crop=SHOWN, voxel_mm=1.0, clip=(30, 50, 60, 60))
    one, two = (run(Sweep(frames, 0.2), choice) for frames in (named_frames(), other))
    assert np.array_equal(one.trajectory.poses, two.trajectory.poses)
    assert np.array_equal(one.volume, two.volume)
    assert np.array_equal(one.sweep.window(0, 16), two.sweep.window(0, 16))
    assert one.sweep.frame_size == (height, width)
    assert one.report.sweep["prepared"]["crop"] == list(SHOWN)
    whole = run(Sweep(other, 0.2), replace(choice, crop=None))
    assert not np.array_equal(one.trajectory.poses, whole.trajectory.poses)


def test_clip_and_fan_of_the_volume_count_pixels_of_the_picture_before_the_crop():
    fan = Fan((30.0, -20.0), (-40.0, 30.0), (25.0, 80.0))
    crop = (11, 7, 30, 40)
    clip, moved = cropped_area(crop, (5, 10, 20, 90), fan)
    assert np.array_equal(moved.mask((40, 30)), fan.mask((60, 70))[7:47, 11:41])
    assert clip == (0, 3, 14, 36)
    assert cropped_area(None, (5, 10, 20, 90), "auto") == ((5, 10, 20, 90), "auto")
    with pytest.raises(InputError, match="do not meet"):
        cropped_area(crop, (50, 10, 20, 20), "none")


def framed(height=90, width=150, spacing=None, aspect=1.0):
    """A fan of a curved probe, with black around it, from row 20 of its middle to row 80."""
    fan = Fan((width / 2, -40.0), (-35.0, 35.0), (60.0 * aspect, 120.0 * aspect), aspect)
    return Sweep(speckle(16, height, width) * fan.mask((height, width)), spacing)


@pytest.mark.parametrize(
    ("sweep", "choice", "rows", "across"),
    [
        (named_sweep(None, spacing_mm=None, tracked=None), {}, 90, 1),
        (named_sweep(None, spacing_mm=(0.3, 0.1), tracked=None), {}, 90, 3),
        (named_sweep(None, spacing_mm=None, tracked=None), {"rotate": 90}, 150, 1),
        (named_sweep(None, spacing_mm=(0.3, 0.1), tracked=None), {"rotate": 270}, 150, 1 / 3),
        (named_sweep(None, spacing_mm=None, tracked=None), {"crop": (0, 30, 200, 110)}, 110, 1),
        (Sweep(np.zeros((3, 60, 50), np.uint8)), {}, 60, 1),
        (framed(), {}, 61, 1),
    ],
    ids=["area", "flat pixels", "turned", "flat and turned", "crop", "nothing found", "fan"],
)
def test_the_depth_gives_the_size_of_the_pixels(sweep, choice, rows, across):
    seen = prepare(sweep, RunSettings(depth_mm=44, **choice)).sweep
    assert seen.spacing_mm[1] == pytest.approx(44 / rows, rel=0.04)
    assert seen.spacing_mm[0] == pytest.approx(across * seen.spacing_mm[1])
    assert seen.provenance["spacing_source"] == "depth"
    assert "44 mm over" in seen.provenance["prepared"]["done"][-1]


def test_a_depth_that_contradicts_the_tracking_is_refused_and_one_that_agrees_changes_nothing():
    with pytest.raises(InputError, match="contradicts"):
        prepare(named_sweep(), RunSettings(depth_mm=44))
    assert prepare(named_sweep(), RunSettings(depth_mm=18)).sweep.spacing_mm == (0.2, 0.2)


def test_landmarks_move_with_the_frames_and_the_picture():
    given = Landmarks(np.array([0, 5, 9]), np.array([[3.0, 4], [60, 80], [61.5, 82]]))
    prepared = prepare(named_sweep(), RunSettings(first_frame=4, last_frame=9, rotate=270, crop=(10, 20, 100, 120)))
    found = prepared.landmarks(given)
    assert found.frames.tolist() == [1, 5]
    # Counter-clockwise: the new row is the last column less the old one, and the new column the old row.
    np.testing.assert_allclose(found.pixels, [[80 - 10, 199 - 60 - 20], [82 - 10, 199 - 61.5 - 20]])


def test_a_preview_draws_the_turned_picture_with_crop_area_and_regions_over_it():
    prepared = prepare(named_sweep(), RunSettings(rotate=180, crop=(0, 5, 200, 140)))
    assert np.array_equal(prepared.turned.window(0, 1)[0], named_frames()[0, ::-1, ::-1])
    assert prepared.crop == (0, 5, 200, 140)
    x, y, columns, rows = prepared.area.clip
    np.testing.assert_allclose((x, y, columns, rows), (30, 20, 149, 89), atol=2)
    assert prepared.area.confidence > 0.95
    lettered = np.zeros((150, 200), bool)
    for x, y, width, height in prepared.regions:
        lettered[y : y + height, x : x + width] = True
    assert lettered[INK[::-1, ::-1]].all()


@pytest.mark.parametrize(
    ("choice", "sentence"),
    [
        ({"crop": (0, 0, 150, 150), "rotate": 90}, None),
        ({"crop": (0, 0, 151, 10), "rotate": 90}, "The setting crop reaches to column 150 .* has 150 columns"),
        ({"mask": ((0, 149, 5, 5),)}, "The setting mask reaches to column 4 and row 153"),
        ({"crop": (60, 0, 0, 10)}, "The setting crop is"),
        ({"mask": ((0, -1, 5, 5),)}, "The setting mask is"),
        ({"depth_mm": 40, "spacing_mm": 0.2}, "both give the pixel size"),
    ],
)
def test_a_crop_or_mask_beyond_the_picture_is_refused_in_a_sentence(choice, sentence):
    def made():
        return prepare(named_sweep(None), RunSettings(**choice))

    if sentence is None:
        assert made().sweep.frame_size == (150, 150)
        return
    with pytest.raises(InputError, match=sentence):
        made()


def test_a_recording_without_pictures_is_left_alone_and_has_none_to_turn():
    bare = Sweep(np.zeros((3, 0, 0), np.uint8), tracked=straight_poses(3))
    assert prepare(bare, RunSettings()).sweep.frame_size == (0, 0)
    with pytest.raises(InputError, match="no images"):
        prepare(bare, RunSettings(rotate=90))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--frames", "3,9"], {"first_frame": 3, "last_frame": 9}),
        (
            ["--crop", "1,2,30,40", "--rotate", "270", "--mirror"],
            {"crop": (1, 2, 30, 40), "rotate": 270, "mirror": True},
        ),
        (["--mask", "1,2,3,4"], {"mask": ((1, 2, 3, 4),)}),
        (["--mask", "1,2,3,4;5,6,7,8"], {"mask": ((1, 2, 3, 4), (5, 6, 7, 8))}),
        (["--mask", "none", "--depth-mm", "44"], {"mask": "none", "depth_mm": 44}),
    ],
)
@pytest.mark.parametrize("command", ["run", "track", "reconstruct", "info", "convert"])
def test_every_command_that_reads_a_clip_prepares_it(command, words, expected):
    ends = {"info": [], "convert": ["out.h5"]}.get(command, ["-o", "out"])
    found = given_settings(build_parser().parse_args([command, "clip", *ends, *words]))
    assert {name: value for name, value in found.items() if name != "poses"} == expected
    assert RunSettings.from_dict(json.loads(json.dumps(RunSettings(**expected).as_dict()))) == RunSettings(**expected)


def test_help_tells_the_order_in_which_pictures_are_prepared(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "in this order; rectangles count pixels of the turned and mirrored picture before the crop" in text
    places = [
        text.index(f" {option} ") for option in ("--frames", "--rotate", "--mirror,", "--crop", "--depth-mm", "--mask")
    ]
    assert places == sorted(places)


def test_info_says_what_the_settings_make_of_the_pictures(tmp_path, capsys):
    save_sweep(named_sweep(tracked=None, spacing_mm=None), tmp_path / "clip.h5")
    assert main(["info", str(tmp_path / "clip.h5"), "--depth-mm", "18", "--frames", "2,9"]) == 0
    text = capsys.readouterr().out
    assert "8 of 200 x 150 pixels" in text
    assert "0.2 x 0.2 mm (width x height), from the depth" in text
    assert re.search(r"image area +columns 20 to 169, rows 40 to 129: 45 % of the picture, confidence \d+%", text)
    assert "Blacked out 2 regions" in text
    assert "18 mm over 90 rows of the image area (found, confidence" in text
