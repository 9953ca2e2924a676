"""What DICOM objects say of regions, times and colours, and what they are; files are made here."""

import numpy as np
import pydicom
import pytest
from dicom_files import packed, speckle
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from test_io_dicom import load, make, noise, region

from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep

av = pytest.importorskip("av", reason="encapsulated video needs the extra `dicom`")

PIXELS = noise(3, 30, 40)


def notes_of(sweep):
    return sweep.provenance["conversions"]


def with_regions(path, *regions, **elements):
    return make(path, PIXELS, regions=regions, **elements)


@pytest.mark.parametrize(("kind", "name"), [(2, "colour flow "), (0, ""), (9, "")])
def test_a_2d_region_counts_whatever_its_type_of_data_and_is_named(tmp_path, kind, name):
    sweep = load(with_regions(tmp_path / "a.dcm", region(4, 2, 33, 21, tissue=kind)))
    np.testing.assert_array_equal(sweep.frames, PIXELS[:, 2:22, 4:34])
    assert sweep.spacing_mm == pytest.approx((0.2, 0.3))
    assert f"Cropped to the 2D {name}region: columns 4 to 33, rows 2 to 21." in notes_of(sweep)
    whole = load(with_regions(tmp_path / "b.dcm", region(0, 0, 39, 29, tissue=kind)))
    assert f"Took the 2D {name}region, which is the whole image." in notes_of(whole)


def test_a_region_without_format_counts_where_both_of_its_axes_are_lengths(tmp_path):
    sweep = load(with_regions(tmp_path / "a.dcm", region(4, 2, 33, 21, space=0), region(0, 0, 39, 29, space=0, unit=4)))
    assert sweep.frame_size == (20, 30)
    assert sweep.spacing_mm == pytest.approx((0.2, 0.3))


def test_tissue_goes_before_flow_then_size_in_cm_then_area_and_the_others_are_named(tmp_path):
    flow, small, large = (
        region(0, 0, 39, 29, tissue=2),
        region(0, 0, 9, 9, dx=0.01),
        region(10, 10, 29, 29),
    )
    uncalibrated = region(0, 0, 35, 29, unit=0)
    sweep = load(with_regions(tmp_path / "a.dcm", flow, small, uncalibrated, large))
    assert "Cropped to the 2D tissue region: columns 10 to 29, rows 10 to 29." in notes_of(sweep)
    assert "Left out another 2D colour flow region: columns 0 to 39, rows 0 to 29." in notes_of(sweep)
    assert "Left out another 2D tissue region: columns 0 to 9, rows 0 to 9." in notes_of(sweep)


def test_a_region_without_units_crops_and_the_size_is_said_to_be_unknown(tmp_path):
    sweep = load(with_regions(tmp_path / "a.dcm", region(4, 2, 33, 21, unit=0)))
    assert sweep.frame_size == (20, 30)
    assert sweep.spacing_mm is None
    assert "The region does not say the size of its pixels in cm." in notes_of(sweep)


@pytest.mark.parametrize("name", ["RegionLocationMinX0", "RegionLocationMaxY1"])
def test_a_region_without_a_limit_gives_its_size_does_not_crop_and_is_named(tmp_path, name):
    part = region(4, 2, 33, 21)
    delattr(part, name)
    sweep = load(with_regions(tmp_path / "a.dcm", part))
    np.testing.assert_array_equal(sweep.frames, PIXELS)
    assert sweep.spacing_mm == pytest.approx((0.2, 0.3))
    assert f"A 2D tissue region lacks {name}; it does not crop the image." in notes_of(sweep)
    # Of two that disagree neither is sure.
    assert load(with_regions(tmp_path / "b.dcm", part, _without_limit(0.5))).spacing_mm is None


def _without_limit(dx):
    part = region(0, 0, 9, 9, dx=dx)
    del part.RegionLocationMaxX1
    return part


@pytest.mark.parametrize(("dx", "shown"), [(float("nan"), "not a finite number"), (50, "cannot be")])
def test_an_impossible_size_is_unknown_and_said(tmp_path, dx, shown):
    sweep = load(with_regions(tmp_path / "a.dcm", region(0, 0, 39, 29, dx=dx)))
    assert sweep.spacing_mm is None
    assert any(shown in note for note in notes_of(sweep))


@pytest.mark.parametrize(
    ("spaces", "named"),
    [([2], "only M-mode regions"), ([3], "only spectral regions"), ([3, 2, 5], "only spectral and M-mode regions")],
)
def test_traces_alone_are_no_sweep(tmp_path, spaces, named):
    path = with_regions(tmp_path / "a.dcm", *(region(0, 0, 39, 29, space=space, unit=4) for space in spaces))
    with pytest.raises(InputError, match=rf"a\.dcm shows no B-mode picture, {named}, so it is no sweep of B-mode fra"):
        load(path)


def test_graphics_alone_leave_the_whole_image(tmp_path):
    sweep = load(with_regions(tmp_path / "a.dcm", region(0, 0, 9, 9, space=5, unit=0)))
    np.testing.assert_array_equal(sweep.frames, PIXELS)
    assert "Found no 2D region among the ultrasound regions; took the whole image." in notes_of(sweep)


@pytest.mark.parametrize(
    ("elements", "named"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.2"}, r"an ultrasound volume \(Enhanced US Volume\)"),
        ({"Modality": "CT"}, "a CT image"),
        ({"Modality": "MR"}, "an MR image"),
    ],
)
def test_objects_that_are_no_ultrasound_clip_are_refused_by_name(tmp_path, elements, named):
    with pytest.raises(InputError, match=rf"^a\.dcm is {named} and no sweep of B-mode frames; choose a 2D ultrasound"):
        load(make(tmp_path / "a.dcm", PIXELS, **elements))


def test_an_enhanced_object_may_say_the_size_of_its_pixels_for_all_frames(tmp_path):
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.4, 0.3]
    shared.PixelMeasuresSequence = Sequence([measures])
    sweep = load(make(tmp_path / "a.dcm", PIXELS, SharedFunctionalGroupsSequence=Sequence([shared])))
    assert sweep.spacing_mm == (0.3, 0.4)


# Times.


def timed(path, **elements):
    return load(make(path, noise(4, 4, 5), **elements))


@pytest.mark.parametrize("vector", [[40, 40, 60], [0, 40], [40] * 7])
def test_a_vector_of_the_wrong_length_is_noted_and_the_frame_time_counts(tmp_path, vector):
    sweep = timed(tmp_path / "a.dcm", FrameTimeVector=vector, FrameTime=50)
    fits = len(vector) == 3
    np.testing.assert_allclose(sweep.timestamps_s, [0, 0.04, 0.08, 0.14] if fits else [0, 0.05, 0.1, 0.15])
    assert any("FrameTimeVector" in note and f"{len(vector)} entries for 4 frames" in note for note in notes_of(sweep))


def test_the_usual_step_of_a_vector_counts_where_nothing_else_is_known(tmp_path):
    sweep = timed(tmp_path / "a.dcm", FrameTimeVector=[0, 40, 40, 60, 40, 40])
    assert sweep.frame_rate_hz == pytest.approx(25)
    assert sweep.provenance["rate_field"] == "median of FrameTimeVector"


def test_a_vector_that_stands_still_is_left_out(tmp_path):
    sweep = timed(tmp_path / "a.dcm", FrameTimeVector=[0, 40, 0, 40], CineRate=20)
    assert sweep.frame_rate_hz == pytest.approx(20)
    assert "Left out FrameTimeVector: its times do not advance." in notes_of(sweep)


@pytest.mark.parametrize("value", ["0", "-40"])
def test_a_frame_time_of_zero_or_less_is_no_rate_and_noted(tmp_path, value):
    sweep = timed(tmp_path / "a.dcm", FrameTime=value, CineRate="0")
    assert sweep.timestamps_s is None
    assert f"The frame rate is unknown: the file says FrameTime {value}, CineRate 0." in notes_of(sweep)
    other = timed(tmp_path / "b.dcm", FrameTime=value, RecommendedDisplayFrameRate=25)
    assert other.frame_rate_hz == pytest.approx(25)
    assert other.provenance["rate_field"] == "RecommendedDisplayFrameRate"


def test_the_actual_duration_of_a_frame_gives_a_rate(tmp_path):
    assert timed(tmp_path / "a.dcm", ActualFrameDuration=40).frame_rate_hz == pytest.approx(25)


def enhanced(values, name="FrameAcquisitionDateTime"):
    groups = []
    for value in values:
        content, group = Dataset(), Dataset()
        if value is not None:
            setattr(content, name, value)
        group.FrameContentSequence = Sequence([content])
        groups.append(group)
    return {"PerFrameFunctionalGroupsSequence": Sequence(groups)}


def test_each_frame_of_an_enhanced_object_has_its_own_time(tmp_path):
    moments = ["20261129235959.90", "20261129235959.95+0000", "20261130000000.05", "20261130000001"]
    sweep = timed(tmp_path / "a.dcm", **enhanced(moments), FrameTime=10)
    np.testing.assert_allclose(sweep.timestamps_s, [0, 0.05, 0.15, 1.1], atol=1e-6)
    sweep = timed(tmp_path / "b.dcm", **enhanced([40.0, 50.0, 40.0, 40.0], "FrameAcquisitionDuration"))
    np.testing.assert_allclose(sweep.timestamps_s, [0, 0.04, 0.09, 0.13])


@pytest.mark.parametrize(
    ("moments", "why"),
    [
        (["20261129120000"] * 4, "missing for some frames, or does not advance"),
        (["20261129120000", None, "20261129120002", "20261129120003"], "missing for some frames"),
        (["20261129120000", "20261129120001"], "it is there for 2 frames of 4"),
    ],
)
def test_times_of_an_enhanced_object_that_do_not_hold_are_noted_and_the_frame_time_counts(tmp_path, moments, why):
    sweep = timed(tmp_path / "a.dcm", **enhanced(moments), FrameTime=40)
    assert sweep.frame_rate_hz == pytest.approx(25)
    assert any(note.startswith("Left out FrameAcquisitionDateTime") and why in note for note in notes_of(sweep))


def test_decimal_commas_are_understood_and_words_are_left_out_with_a_note(tmp_path):
    path = make(tmp_path / "a.dcm", noise(4, 4, 5), FrameTime="33.333", PixelSpacing=[0.25, 0.125], CineRate="11")
    data = path.read_bytes()
    for old, new in ((b"33.333", b"33,333"), (b"0.25\\0.125", b"0,25\\0,125")):
        assert old in data
        data = data.replace(old, new)
    path.write_bytes(data)
    sweep = load(path)
    assert sweep.frame_rate_hz == pytest.approx(1000 / 33.333)
    assert sweep.spacing_mm == (0.125, 0.25)
    assert "FrameTime is written with a decimal comma (33,333); took it as a point." in notes_of(sweep)
    path.write_bytes(data.replace(b"33,333", b"fast  "))
    assert load(path).frame_rate_hz == pytest.approx(11)
    assert "FrameTime is not a number (fast) and was left out." in notes_of(load(path))


# Palettes, and pictures that are none.

RAMP = np.arange(256)[::-1]


def palette(entries, descriptor, dtype="<u2"):
    elements = {}
    for colour in ("Red", "Green", "Blue"):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = descriptor
        elements[f"{colour}PaletteColorLookupTableData"] = np.asarray(entries).astype(dtype).tobytes()
    return elements


@pytest.mark.parametrize(
    ("name", "elements"),
    [
        ("16 bits", palette(RAMP * 257, [256, 0, 16])),
        ("8 bits", palette(RAMP, [256, 0, 8], "u1")),
        ("8-bit values in a table of 16", palette(RAMP, [256, 0, 16])),
        ("12-bit values in a table of 16", palette(RAMP * 16, [256, 0, 16])),
        ("a descriptor of 8 bits for a table of 16", palette(RAMP * 257, [256, 0, 8])),
        ("a descriptor of 16 bits for a table of 8", palette(RAMP, [256, 0, 16], "u1")),
        ("a descriptor of more entries than there are", palette(RAMP * 257, [0, 0, 16])),
    ],
)
def test_a_palette_is_read_as_wide_as_it_is(tmp_path, name, elements):
    indices = speckle()
    sweep = load(make(tmp_path / "a.dcm", indices, "PALETTE COLOR", **elements))
    np.testing.assert_array_equal(sweep.frames, 255 - indices)


def test_a_palette_that_begins_above_zero_holds_its_ends(tmp_path):
    indices = speckle()
    elements = palette(np.arange(100), [100, 50, 8], "u1")
    sweep = load(make(tmp_path / "a.dcm", indices, "PALETTE COLOR", **elements))
    np.testing.assert_array_equal(sweep.frames, np.clip(indices.astype(int) - 50, 0, 99))


@pytest.mark.parametrize("elements", [palette(np.full(256, 7), [256, 0, 8], "u1"), {}])
def test_a_picture_that_comes_out_constant_is_refused(tmp_path, elements):
    pixels = speckle() if elements else np.full((3, 8, 9), 7, np.uint8)
    path = make(tmp_path / "a.dcm", pixels, "PALETTE COLOR" if elements else "MONOCHROME2", **elements)
    with pytest.raises(InputError, match=r"All pixels of a\.dcm are of one grey, 7 of 255, so there is no picture"):
        load(path)


def test_more_pixels_than_frames_are_left_out_with_a_note(tmp_path):
    sweep = load(make(tmp_path / "a.dcm", PIXELS, NumberOfFrames=2))
    np.testing.assert_array_equal(sweep.frames, PIXELS[:2])
    assert "The file announces 2 frames and holds 3; left out the last 1." in notes_of(sweep)


# Encapsulated video.

VIDEOS = {
    "MPEG-2 stream": ("mpeg2video", "m2v", "mpeg2video", "1.2.840.10008.1.2.4.100"),
    "MPEG-2 in fragments": ("mpeg2video", "ts", None, "1.2.840.10008.1.2.4.101.1"),
    "H.264 in MPEG-4": ("libx264", "mp4", None, "1.2.840.10008.1.2.4.102"),
    "H.264 stream in fragments": ("libx264", "h264", "h264", "1.2.840.10008.1.2.4.104.1"),
    "HEVC": ("libx265", "ts", None, "1.2.840.10008.1.2.4.107"),
}


@pytest.mark.parametrize("kind", VIDEOS)
def test_encapsulated_video_is_read_with_region_and_rate(tmp_path, kind):
    from test_io_video import make as make_video
    from test_io_video import smooth_frames

    codec, suffix, container, syntax = VIDEOS[kind]
    if codec not in av.codecs_available:
        pytest.skip(f"This PyAV has no encoder {codec}.")
    frames = smooth_frames(height=64, width=96)
    make_video(tmp_path / f"v.{suffix}", frames, codec, "yuv420p", container=container)
    stream = (tmp_path / f"v.{suffix}").read_bytes()
    parts = [stream[at : at + 1000] for at in range(0, len(stream), 1000)] if syntax.endswith(".1") else [stream]
    colour = np.repeat(frames[..., None], 3, -1)
    regions = [region(10, 4, 89, 59)]
    path = packed(tmp_path / "a.dcm", colour, parts, syntax, "YBR_PARTIAL_420", regions=regions, CineRate=20)
    sweep = load_sweep(path)
    assert sweep.frames.shape == (20, 56, 80)
    assert np.abs(sweep.window(0, 20).astype(int) - frames[:, 4:60, 10:90]).mean() < 4
    assert sweep.spacing_mm == pytest.approx((0.2, 0.3))
    assert sweep.frame_rate_hz == pytest.approx(20)


def test_video_of_another_size_than_announced_keeps_its_region_and_lacks_no_frame(tmp_path):
    from test_io_video import make as make_video
    from test_io_video import smooth_frames

    frames = smooth_frames(height=64, width=96)
    make_video(tmp_path / "v.m2v", frames, "mpeg2video", "yuv420p", container="mpeg2video")
    path = packed(
        *(tmp_path / "a.dcm", np.zeros((25, 32, 96, 3), np.uint8), [(tmp_path / "v.m2v").read_bytes()]),
        *("1.2.840.10008.1.2.4.100", "YBR_PARTIAL_420"),
        regions=[region(8, 2, 87, 29)],
    )
    sweep = load(path)
    assert sweep.frames.shape == (20, 56, 80)
    assert sweep.spacing_mm == pytest.approx((0.2, 0.15))
    assert "The file announces 25 frames and its video has 20; took these." in notes_of(sweep)


@pytest.mark.parametrize("stream", [b"\0\0\1\xb3 and no more of it", b"no video at all."])
def test_bytes_that_are_no_video_are_refused_by_name(tmp_path, stream):
    with pytest.raises(InputError, match=r"^a\.dcm "):
        load(packed(tmp_path / "a.dcm", np.zeros((2, 8, 9, 3), np.uint8), [stream], "1.2.840.10008.1.2.4.100", "RGB"))


def test_an_object_without_pixels_is_named(tmp_path):
    path = make(tmp_path / "a.dcm", PIXELS, PixelData=None, Rows=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    with pytest.raises(InputError, match=r"a\.dcm is DICOM \(Comprehensive SR Storage\) without Rows and PixelData"):
        load(path)


def test_no_element_that_is_missing_ends_in_the_words_of_python(tmp_path):
    good = pydicom.dcmread(with_regions(tmp_path / "a.dcm", region(4, 2, 33, 21), FrameTime=40))
    for element in list(good):
        changed = pydicom.dcmread(tmp_path / "a.dcm")
        del changed[element.tag]
        changed.save_as(tmp_path / "b.dcm")
        try:
            load(tmp_path / "b.dcm")
        except InputError as error:
            sentence = str(error)
            good_words = "attribute" not in sentence and "NoneType" not in sentence
            if not good_words:
                pytest.fail(f"{element.keyword}: {sentence}")
