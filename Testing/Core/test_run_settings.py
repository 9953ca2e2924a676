"""Run settings: limits, messages, JSON, YAML, and the options that are derived from them."""

import json
from dataclasses import fields

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from DualTrackCore.cli.parser import build_parser, given_settings
from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Fan
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.settings import setting_of

fans = st.builds(
    Fan,
    origin_pixel=st.tuples(st.floats(-999, 999), st.floats(-999, 999)),
    angles_deg=st.tuples(st.floats(-89, 0), st.floats(1, 89)),
    radii_pixel=st.tuples(st.floats(0, 99), st.floats(100, 999)),
    aspect=st.floats(0.1, 10),
)
boxes = st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 999)] * 2)


@given(
    settings=st.builds(
        RunSettings,
        model=st.text(min_size=1),
        card=st.none() | st.text(),
        chunk_frames=st.just("auto") | st.integers(1, 10**6),
        test_time_augmentation=st.sampled_from([1, 2, 4]),
        spacing_mm=st.none() | st.floats(1e-3, 10) | st.tuples(st.floats(1e-3, 10), st.floats(1e-3, 10)),
        axes=st.sampled_from(["frame0", "principal"]),
        frame=st.sampled_from(["frame0", "reference"]),
        reject_below=st.integers(0, 255),
        poses=st.sampled_from(["estimate", "tracked", "poses.csv"]),
        reconstruct=st.booleans(),
        first_frame=st.integers(0, 50),
        last_frame=st.none() | st.integers(50, 10**6),
        clip=st.none() | boxes,
        fan=st.sampled_from(["none", "auto"]) | fans,
        rotate=st.sampled_from([0, 90, 180, 270]),
        mirror=st.booleans(),
        crop=st.none() | boxes,
        mask=st.sampled_from(["auto", "none"]) | st.lists(boxes, max_size=3).map(tuple),
        voxel_mm=st.none() | st.floats(1e-6, 100) | st.tuples(*[st.floats(1e-3, 9)] * 3),
        compounding=st.sampled_from(["mean", "maximum", "latest"]),
    )
)
def test_settings_come_back_from_json_and_yaml_as_they_were(settings):
    assert RunSettings.from_dict(json.loads(json.dumps(settings.as_dict(), allow_nan=False))) == settings
    assert RunSettings.from_dict(yaml.safe_load(settings.to_yaml())) == settings


def test_missing_settings_have_their_defaults():
    assert RunSettings.from_dict({"voxel_mm": 0.5}) == RunSettings(voxel_mm=0.5)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("spacing_mm", 0, "a number of mm above 0 and of at most 10 or 2 numbers"),
        ("spacing_mm", (0.1, 11), "at most 10"),
        ("calibration", 3, "text or none"),
        ("model", 3, "a name or a file"),
        ("device", None, "a device's name"),
        ("precision", "fp8", "one of auto, fp32, tf32, bf16, fp16"),
        ("precision", ["fp32"], "one of auto, fp32"),
        ("chunk_frames", 0, "at least 1"),
        ("chunk_frames", True, "at least 1"),
        ("chunk_frames", "16", "at least 1"),
        ("test_time_augmentation", 3, "one of 1, 2, 4"),
        ("test_time_augmentation", True, "one of 1, 2, 4"),
        ("test_time_augmentation", "4", "one of 1, 2, 4"),
        ("poses", 7, "estimate, tracked or a trajectory .csv"),
        ("reconstruct", 1, "true or false"),
        ("first_frame", -1, "at least 0"),
        ("first_frame", 1.0, "at least 0"),
        ("last_frame", -2, "at least 0"),
        ("clip", [0, 0, 10], "x, y, width, height"),
        ("clip", "0,0,5,5", "x, y, width, height"),
        ("rotate", 45, "one of 0, 90, 180, 270"),
        ("mirror", 1, "true or false"),
        ("crop", [0, 0, 10], "x, y, width, height"),
        ("depth_mm", 0, "mm above 0 and of at most 1000"),
        ("mask", "all", "auto, none, or rectangles"),
        ("mask", "1,2,3", "auto, none, or rectangles"),
        ("mask", [1, 2, 3, 4], "auto, none, or rectangles"),
        ("fan", "maybe", "a fan or one of none, auto"),
        ("fan", None, "a fan or one of none, auto"),
        ("voxel_mm", 0, "mm above 0"),
        ("voxel_mm", float("nan"), "mm above 0"),
        ("voxel_mm", True, "mm above 0"),
        ("voxel_mm", (1, 2), "3 numbers"),
        ("interpolation", "cubic", "linear, nearest"),
        ("compounding", "median", "mean, maximum, latest"),
        ("hole_filling", "magic", "stick"),
        ("axes", "oblique", "frame0, principal"),
        ("frame", "world", "frame0, reference"),
        ("reject_below", 256, "from 0 to 255"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_name(name, value, words):
    with pytest.raises(InputError, match=f"{name} in the settings is") as refusal:
        RunSettings.from_dict({name: value})
    assert words in str(refusal.value)
    with pytest.raises(InputError, match=f"The setting {name} is"):
        RunSettings(**{name: value})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": ""}, "model is empty"),
        ({"device": ""}, "device is empty"),
        ({"first_frame": 5, "last_frame": 4}, "last_frame is 4; expected at least 5, the first frame"),
        ({"clip": (0, 0, 0, 10)}, "x, y, width, height"),
        ({"clip": (-1, 0, 5, 10)}, "x, y, width, height"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        RunSettings.from_dict(values)


SECTOR = {"origin_pixel": [3, -2], "angles_deg": [-30, 30], "radii_pixel": [5, 20]}


def test_a_fan_in_json_is_a_fan():
    fan = RunSettings.from_dict({"fan": SECTOR}).fan
    assert fan == Fan((3, -2), (-30, 30), (5, 20))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"radius": 3}, "fan.radius in the settings is no known key; known are origin_pixel, angles_deg"),
        ({"angles_deg": [30, -30]}, "fan angles 30 to -30"),
        ({"radii_pixel": [5]}, r"fan.radii_pixel in the settings is \[5\]; expected 2 numbers"),
        ({"aspect": 0}, "aspect 0 is out of range"),
        ({"aspect": "wide"}, "fan.aspect in the settings is 'wide'; expected a number"),
    ],
)
def test_a_fan_that_is_none_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        RunSettings.from_dict({"fan": {**SECTOR, **changes}})


def test_a_fan_with_a_field_missing_is_refused():
    with pytest.raises(InputError, match=r"fan\.angles_deg in the settings is missing"):
        RunSettings.from_dict({"fan": {"origin_pixel": [3, -2]}})


@pytest.mark.parametrize(
    ("values", "words"), [([], "expected a mapping"), ({"modle": "mini"}, "modle in the settings is no known key")]
)
def test_settings_that_are_none_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        RunSettings.from_dict(values)


def test_the_frame_range_counts_both_ends():
    assert RunSettings(first_frame=2, last_frame=4).frame_range(10) == (2, 5)
    assert RunSettings().frame_range(10) == (0, 10)
    assert RunSettings(first_frame=9).frame_range(10) == (9, 10)


@pytest.mark.parametrize("changes", [{"last_frame": 10}, {"first_frame": 10}])
def test_a_frame_range_beyond_the_sweep_is_refused(changes):
    with pytest.raises(InputError, match="which has the frames 0 to 9"):
        RunSettings(**changes).frame_range(10)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--voxel", "0.5"], {"voxel_mm": 0.5}),
        (["--voxel", "1,1.5,2"], {"voxel_mm": (1.0, 1.5, 2.0)}),
        (["--spacing", "0.2,0.3"], {"spacing_mm": (0.2, 0.3)}),
        (["--chunk", "8"], {"chunk_frames": 8}),
        (["--chunk", "auto"], {"chunk_frames": "auto"}),
        (["--tta", "4"], {"test_time_augmentation": 4}),
        (["--model", "123"], {"model": "123"}),
        (["--clip", "10,5,40,30"], {"clip": (10, 5, 40, 30)}),
        (["--fan", "auto"], {"fan": "auto"}),
        (["--fan", "3,-2,-30,30,5,20"], {"fan": Fan((3, -2), (-30, 30), (5, 20))}),
        (["--fan", "3,-2,-30,30,5,20,1.1"], {"fan": Fan((3, -2), (-30, 30), (5, 20), 1.1)}),
        (["--first-frame", "3", "--last-frame", "9"], {"first_frame": 3, "last_frame": 9}),
        (["--no-pictures"], {"pictures": False}),
        (
            ["--axes", "principal", "--frame", "reference", "--reject-below", "7"],
            {"axes": "principal", "frame": "reference", "reject_below": 7},
        ),
    ],
)
def test_an_option_of_the_command_line_is_a_setting(words, expected):
    options = build_parser().parse_args(["run", "clip", "-o", "out", *words])
    assert given_settings(options) == expected
    RunSettings(**expected)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--voxel", "one"], "'one' is not a number of mm above 0 .* or 3 numbers above 0 .* or none"),
        (["--voxel", "1,2"], "'1,2' is not a number of mm"),
        (["--chunk", "0"], "'0' is not a whole number of at least 1 or 'auto'"),
        (["--tta", "3"], "'3' is not one of 1, 2, 4"),
        (["--fan", "1,2"], "'1,2' is not a fan or one of none, auto"),
        (["--fan", "3,-2,30,-30,5,20"], "angles 30 to -30"),
        (["--clip", "1,2,3.5,4"], "x, y, width, height"),
    ],
)
def test_an_option_that_does_not_fit_says_what_is_expected(words, sentence):
    with pytest.raises(InputError, match=sentence):
        build_parser().parse_args(["run", "clip", "-o", "out", *words])


def test_every_setting_says_what_it_means():
    assert all(setting_of(field).help for field in fields(RunSettings))


def test_every_setting_but_the_poses_is_an_option_of_run():
    text = build_parser()._subparsers._group_actions[0].choices["run"].format_help()
    for field in fields(RunSettings):
        if field.name not in ("poses", "corrections"):
            assert f"--{setting_of(field).option or field.name.replace('_', '-')}" in text


def test_a_file_of_settings_is_read_and_options_go_before_it(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("voxel_mm: 0.5\nfan: {origin_pixel: [3, -2], angles_deg: [-30, 30], radii_pixel: [5, 20]}\n")
    settings = RunSettings.from_yaml(path, {"voxel_mm": 1.0})
    assert settings == RunSettings(voxel_mm=1.0, fan=Fan((3, -2), (-30, 30), (5, 20)))
    path.write_text("")
    assert RunSettings.from_yaml(path) == RunSettings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("voxel: 0.5", "voxel in own.yaml is no known key; the nearest known are voxel_mm, [a-z_]+, [a-z_]+.$"),
        (f"{'z' * 900}: 1", "z{60} in own.yaml is no known key; the nearest known are"),
        ("- 1", "own.yaml is .* expected a mapping"),
        ("a: [", "not readable YAML"),
        ("!!python/object/apply:os.system ['true']", "not readable YAML"),
    ],
)
def test_a_file_of_settings_that_cannot_be_used_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        RunSettings.from_yaml(path)


def test_a_missing_file_of_settings_is_named(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read the settings .*nowhere.yaml"):
        RunSettings.from_yaml(tmp_path / "nowhere.yaml")
