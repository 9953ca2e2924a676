"""One policy of grey values: the same clip gives the same greys however it was stored."""

import numpy as np
import pytest
import SimpleITK as sitk
from sequence_files import metafile
from test_io_dicom import make as make_dicom

from DualTrackCore import Sweep, load_sweep
from DualTrackCore.errors import Doubt, InputError, SweepWarning
from DualTrackCore.grey import to_grey_uint8
from DualTrackCore.io import load_sweep as load

CLIP = np.random.default_rng(3).integers(0, 256, (6, 48, 64), dtype=np.uint8)


def as_png_folder(folder):
    (folder / "png").mkdir()
    for index, frame in enumerate(CLIP):
        sitk.WriteImage(sitk.GetImageFromArray(frame), str(folder / "png" / f"{index}.png"))
    return folder / "png"


def as_metafile(folder, values, element):
    return metafile(folder / "a.mha", values, DimSize="64 48 6", ElementType=element)


def as_deep_png_folder(folder):
    (folder / "deep").mkdir()
    for index, frame in enumerate(CLIP):
        sitk.WriteImage(sitk.GetImageFromArray(frame.astype(np.uint16) * 257), str(folder / "deep" / f"{index}.png"))
    return folder / "deep"


def as_dicom(folder, bits):
    values = np.rint(CLIP * ((2**bits - 1) / 255)).astype(np.uint16)
    return make_dicom(folder / "a.dcm", values, BitsStored=bits, HighBit=bits - 1)


def as_video(folder, bits, name="a.mkv"):
    av = pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")
    pixel_format = f"gray{bits}le"
    with av.open(str(folder / name), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixel_format
        for frame in np.rint(CLIP * ((2**bits - 1) / 255)).astype(np.uint16):
            made = av.VideoFrame.from_ndarray(frame, format=pixel_format)
            container.mux(stream.encode(made))
        container.mux(stream.encode())
    return folder / name


STORED = {
    "8-bit images": as_png_folder,
    "8-bit metafile": lambda folder: as_metafile(folder, CLIP, "MET_UCHAR"),
    "8-bit values in 16 bits": lambda folder: as_metafile(folder, CLIP.astype("<u2"), "MET_USHORT"),
    "8-bit values in signed 16 bits": lambda folder: as_metafile(folder, CLIP.astype("<i2"), "MET_SHORT"),
    "8-bit values in real numbers": lambda folder: as_metafile(folder, CLIP.astype("<f4"), "MET_FLOAT"),
    "the range of 16 bits": lambda folder: as_metafile(folder, CLIP.astype("<u2") * 257, "MET_USHORT"),
    "images of 16 bits": as_deep_png_folder,
    "12-bit DICOM": lambda folder: as_dicom(folder, 12),
    "8-bit values in 16-bit DICOM": lambda folder: make_dicom(folder / "a.dcm", CLIP.astype(np.uint16)),
    "10-bit video": lambda folder: as_video(folder, 10),
    "12-bit video": lambda folder: as_video(folder, 12),
    "16-bit video": lambda folder: as_video(folder, 16),
}


@pytest.mark.parametrize("stored", STORED)
def test_the_same_clip_gives_the_same_greys_however_it_is_stored(tmp_path, stored):
    np.testing.assert_array_equal(load_sweep(STORED[stored](tmp_path)).frames, CLIP)


def test_a_clip_of_eight_bits_in_sixteen_is_said_and_not_stretched():
    values = np.array([[[3, 100, 200]]], np.uint16)
    grey, notes = to_grey_uint8(values, colour_axis=None)
    assert grey.tolist() == values.tolist()
    assert notes == ["The pixels are uint16 and hold 8 bits (0 to 255); took them as they are."]


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("hot", [256, 30000])
def test_hot_pixels_change_no_other_pixel(kind, hot):
    values = CLIP.astype(kind)
    values[:, 7, 9] = hot  # in every frame, as a broken sensor has it
    grey, notes = to_grey_uint8(values, colour_axis=None)
    others = np.ones(CLIP.shape, bool)
    others[:, 7, 9] = False
    np.testing.assert_array_equal(grey[others], CLIP[others])
    assert (grey[:, 7, 9] == 255).all()
    assert notes[1] == f"{len(CLIP)} of {CLIP.size} pixels lie beyond that and became black or white."


def test_a_hot_pixel_does_not_turn_real_numbers_black():
    values = CLIP * 0.01 + 0.001
    values[2, 3, 4] = 1e30
    grey, notes = to_grey_uint8(values, colour_axis=None)
    assert (
        np.abs(np.delete(grey.ravel(), 2 * 48 * 64 + 3 * 64 + 4).astype(int) - np.delete(CLIP.ravel(), 6340)).max() <= 1
    )
    assert isinstance(notes[0], Doubt)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (np.int8, -128, 0),
        (np.int8, 127, 255),
        (np.int16, -32768, 0),
        (np.int16, 32767, 255),
        (np.uint32, 2**32 - 1, 255),
        (np.int64, 2**63 - 1, 255),
        (np.uint64, 2**64 - 1, 255),
    ],
)
def test_whole_numbers_are_scaled_by_the_range_of_their_type(kind, value, expected):
    limits = np.iinfo(kind)
    grey, notes = to_grey_uint8(np.array([[[limits.min, value, limits.max]]], kind), colour_axis=None)
    assert grey[0, 0].tolist() == [0, expected, 255]
    assert "Scaled pixel values" in notes[0]


def test_a_wide_type_that_holds_sixteen_bits_is_scaled_as_sixteen():
    grey, _ = to_grey_uint8(np.array([[[0, 257 * 40, 65535]]], np.int64), colour_axis=None)
    assert grey.tolist() == [[[0, 40, 255]]]


def test_real_numbers_are_stretched_with_a_warning_that_travels(tmp_path):
    values = np.linspace(-1.5, 7.25, 60).reshape(3, 4, 5).astype("<f4")
    path = metafile(tmp_path / "a.mha", values, ElementType="MET_FLOAT")
    with pytest.warns(SweepWarning, match=r"-1\.5 to 7\.25.*store them as 8 bits"):
        sweep = load(path)
    np.testing.assert_array_equal(sweep.frames, np.rint((values + 1.5) / 8.75 * 255))
    assert sweep.provenance["warnings"] == sweep.provenance["conversions"][:1]


def test_fewer_bits_than_the_type_has_are_dark_and_it_is_said():
    values = np.random.default_rng(0).integers(0, 1024, (2, 40, 40)).astype(np.uint16)
    sweep = Sweep.from_array(values)
    assert sweep.frames.max() <= 4
    assert "store them as 8 bits" in sweep.provenance["warnings"][0]
    told = Sweep.from_array(values, grey_range=(0, 1023))
    np.testing.assert_array_equal(told.frames, np.rint(values / 1023 * 255))
    assert "warnings" not in told.provenance


@pytest.mark.parametrize("grey_range", [(5, 5), (9, 1), (0, np.inf)])
def test_a_grey_range_that_is_none_is_refused(grey_range):
    with pytest.raises(InputError, match="grey range"):
        Sweep.from_array(np.zeros((1, 2, 2), np.uint16), grey_range=grey_range)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"WindowCenter": 1000.5, "WindowWidth": 1001}, lambda x: (x - 500) / 1000),
        ({"WindowCenter": 1000, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"}, lambda x: (x - 500) / 1000),
        (
            {"WindowCenter": 1000, "WindowWidth": 500, "VOILUTFunction": "SIGMOID"},
            lambda x: 1 / (1 + np.exp(-4 * (x - 1000) / 500)),
        ),
        (
            {"WindowCenter": [2000.5, 7], "WindowWidth": [2001, 9], "RescaleSlope": 2, "RescaleIntercept": 0},
            lambda x: (2 * x - 1000) / 2000,
        ),
        ({"WindowCenter": 1000, "WindowWidth": 0}, lambda x: x / 4095),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_declared_window_goes_before_the_stored_bits(tmp_path, elements, expected, photometric):
    values = np.random.default_rng(1).integers(0, 4096, (2, 20, 30)).astype(np.uint16)
    sweep = load(make_dicom(tmp_path / "a.dcm", values, photometric, BitsStored=12, HighBit=11, **elements))
    grey = np.rint(np.clip(expected(values.astype(float)), 0, 1) * 255)
    np.testing.assert_array_equal(sweep.frames, 255 - grey if photometric == "MONOCHROME1" else grey)


def test_a_declared_table_of_greys_is_applied(tmp_path):
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], (np.arange(4096)[::-1] * 16).astype(np.uint16).tobytes()
    values = np.random.default_rng(1).integers(0, 4096, (2, 20, 30)).astype(np.uint16)
    sweep = load(make_dicom(tmp_path / "a.dcm", values, BitsStored=12, HighBit=11, VOILUTSequence=[table]))
    np.testing.assert_array_equal(sweep.frames, np.rint((4095.0 - values) * 16 / 65535 * 255))


def test_a_window_leaves_eight_bits_alone(tmp_path):
    sweep = load(make_dicom(tmp_path / "a.dcm", CLIP, WindowCenter=50, WindowWidth=20))
    np.testing.assert_array_equal(sweep.frames, CLIP)


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "gbrp10le", "rgb48le"])
def test_deep_colour_of_a_video_is_scaled_by_its_depth(tmp_path, pixel_format):
    av = pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")
    ramp = np.repeat(np.linspace(0, 255, 64)[None], 48, axis=0).astype(np.uint8)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixel_format
        frame = av.VideoFrame.from_ndarray(np.repeat(ramp[..., None], 3, axis=2), format="rgb24")
        container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    sweep = load(tmp_path / "a.mkv")
    assert np.abs(np.asarray(sweep.frames)[0].astype(int) - ramp).max() <= 1
    assert any("bits of the video to 8" in note for note in sweep.provenance["conversions"])


def test_the_range_of_a_long_clip_of_real_numbers_is_found_from_few_of_its_pixels(monkeypatch):
    from DualTrackCore import grey

    random, sorted_at_once, quantile = np.random.default_rng(1), [], np.quantile
    monkeypatch.setattr(grey, "_VALUES_A_PIECE", 2000)
    monkeypatch.setattr(grey, "_MOST_SAMPLED", 5000)
    monkeypatch.setattr(
        np, "quantile", lambda values, *more: sorted_at_once.append(len(values)) or quantile(values, *more)
    )
    frames = random.normal(size=(200, 40, 50))
    frames[0, 0, 0] = 1e6  # hot
    _, (note,) = to_grey_uint8(frames, colour_axis=None)
    low, high = (float(word) for word in note.removeprefix("Scaled pixel values ").split(",")[0].split(" to "))
    assert 0 < sorted_at_once[0] < 10000 < frames.size
    np.testing.assert_allclose((low, high), quantile(frames, (0.001, 0.999)), atol=0.6)
