"""Ultrasound clips in DICOM; the files are made here with pydicom."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from DualTrackCore.errors import InputError
from DualTrackCore.io import dicom


def load(path, calibration=None, spacing_mm=None):
    return dicom.read(path, calibration=calibration, spacing_mm=spacing_mm)


def region(x0, y0, x1, y1, dx=0.02, dy=0.03, space=1, tissue=1, unit=3):
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = space, tissue, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = x0, y0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = x1, y1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = dx, dy
    return item


def make(path, pixels, photometric="MONOCHROME2", regions=(), syntax=ExplicitVRLittleEndian, **elements):
    """A clip of pixels [N, H, W] or [N, H, W, 3]; elements of value None are left out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape[:3]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 4 else 1
    dataset.PhotometricInterpretation = photometric
    if pixels.ndim == 4:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.itemsize * 8
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    if regions:
        dataset.SequenceOfUltrasoundRegions = list(regions)
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    if syntax == RLELossless:
        dataset.compress(RLELossless, pixels)
    dataset.save_as(path, enforce_file_format=True)
    return path


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def test_a_clip_without_regions_is_read_whole(tmp_path):
    pixels = noise(5, 12, 10)
    path = make(tmp_path / "a.dcm", pixels)
    assert dicom.recognises(path, path.read_bytes()[:4096])
    assert not dicom.recognises(path, path.read_bytes()[4:4096])
    sweep = load(path)
    np.testing.assert_array_equal(sweep.frames, pixels)
    assert sweep.spacing_mm is None
    assert sweep.timestamps_s is None
    assert dict(sweep.provenance) == {
        "source": "a.dcm",
        "format": "DICOM",
        "conversions": [],
        "spacing_source": "unknown",
        "calibration": None,
    }


def test_the_largest_2d_tissue_region_is_cropped_and_calibrated(tmp_path):
    pixels = noise(3, 30, 40)
    regions = [
        region(0, 0, 39, 29, space=2),  # an M-mode trace
        region(0, 0, 9, 9, dx=0.5),  # a smaller tissue region
        region(4, 2, 33, 21, dx=-0.02, dy=0.03),
        region(0, 0, 39, 29, tissue=2),  # colour flow
    ]
    sweep = load(make(tmp_path / "a.dcm", pixels, regions=regions))
    np.testing.assert_array_equal(sweep.frames, pixels[:, 2:22, 4:34])
    assert sweep.spacing_mm == pytest.approx((0.2, 0.3))
    assert sweep.provenance["spacing_source"] == "file"
    assert "Cropped to the 2D tissue region: columns 4 to 33, rows 2 to 21." in sweep.provenance["conversions"]
    assert "Left out 1 other ultrasound region." in sweep.provenance["conversions"]


def test_a_region_that_reaches_beyond_the_image_is_cut_to_it(tmp_path):
    sweep = load(make(tmp_path / "a.dcm", noise(2, 30, 40), regions=[region(10, 5, 1000, 1000)]))
    assert sweep.frame_size == (25, 30)


def test_a_region_outside_of_the_image_crops_nothing_and_it_is_said(tmp_path):
    sweep = load(make(tmp_path / "a.dcm", noise(2, 30, 40), regions=[region(50, 50, 60, 60)]))
    assert sweep.frame_size == (30, 40)
    assert "A 2D tissue region lies outside of the image; it does not crop it." in sweep.provenance["conversions"]


def test_spacing_falls_back_to_the_image_and_gives_way_to_the_user(tmp_path):
    seconds = [region(0, 0, 39, 29, unit=4)]
    path = make(tmp_path / "a.dcm", noise(2, 30, 40), regions=seconds, PixelSpacing=[0.4, 0.3])
    assert load(path).spacing_mm == (0.3, 0.4)  # DICOM gives rows first
    given = load(path, spacing_mm=(0.1, 0.1))
    assert given.spacing_mm == (0.1, 0.1)
    assert "0.1 x 0.1 mm in place of the file's 0.3 x 0.4 mm" in given.provenance["conversions"][-1]
    assert load(make(tmp_path / "b.dcm", noise(2, 30, 40), ImagerPixelSpacing=[0.6, 0.5])).spacing_mm == (0.5, 0.6)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"FrameTime": 40}, [0, 0.04, 0.08]),
        ({"FrameTimeVector": [0, 40, 60]}, [0, 0.04, 0.1]),
        ({"FrameTimeVector": [0, 40, 60], "FrameTime": 10}, [0, 0.04, 0.1]),
        ({"CineRate": 20}, [0, 0.05, 0.1]),
        ({"RecommendedDisplayFrameRate": 10}, [0, 0.1, 0.2]),
    ],
)
def test_times_come_from_whichever_element_gives_them(tmp_path, elements, expected):
    sweep = load(make(tmp_path / "a.dcm", noise(3, 4, 5), **elements))
    np.testing.assert_allclose(sweep.timestamps_s, expected)


def test_colour_becomes_grey(tmp_path):
    pixels = noise(2, 6, 5, 3)
    expected = (pixels.astype(int) @ [299, 587, 114] + 500) // 1000
    np.testing.assert_array_equal(load(make(tmp_path / "a.dcm", pixels, "RGB")).frames, expected)
    planar = make(
        tmp_path / "b.dcm", pixels, "RGB", PlanarConfiguration=1, PixelData=np.moveaxis(pixels, 3, 1).tobytes()
    )
    np.testing.assert_array_equal(load(planar).frames, expected)


def test_luma_and_chroma_give_the_luma(tmp_path):
    pixels = noise(2, 6, 5, 3)
    pixels[..., 1:] = 128  # no colour: grey is the luma itself
    sweep = load(make(tmp_path / "a.dcm", pixels, "YBR_FULL"))
    np.testing.assert_array_equal(sweep.frames, pixels[..., 0])


def test_a_palette_of_sixteen_bits_is_looked_up(tmp_path):
    indices = noise(2, 6, 5)
    ramp = (np.arange(256)[::-1] * 257).astype(np.uint16)
    palette = {}
    for colour in ("Red", "Green", "Blue"):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = ramp.tobytes()
    sweep = load(make(tmp_path / "a.dcm", indices, "PALETTE COLOR", **palette))
    np.testing.assert_array_equal(sweep.frames, 255 - indices)


def test_monochrome1_is_inverted_and_said(tmp_path):
    pixels = noise(2, 6, 5)
    sweep = load(make(tmp_path / "a.dcm", pixels, "MONOCHROME1"))
    np.testing.assert_array_equal(sweep.frames, 255 - pixels)
    assert sweep.provenance["conversions"] == ["Inverted the grey values (MONOCHROME1)."]


def test_sixteen_bits_are_scaled_over_the_whole_range(tmp_path):
    pixels = np.array([[[100, 200 * 257]], [[0, 65535]]], np.uint16)
    sweep = load(make(tmp_path / "a.dcm", pixels))
    assert sweep.frames.tolist() == [[[0, 200]], [[0, 255]]]
    assert "0 to 65535" in sweep.provenance["conversions"][0]


def test_a_single_frame_is_a_sweep_of_one(tmp_path):
    path = make(tmp_path / "a.dcm", noise(1, 6, 5), NumberOfFrames=None, FrameTime=40)
    assert load(path).frames.shape == (1, 6, 5)


def test_a_compressed_clip_is_unpacked(tmp_path):
    pixels = noise(3, 8, 6) // 64
    np.testing.assert_array_equal(load(make(tmp_path / "a.dcm", pixels, syntax=RLELossless)).frames, pixels)


def test_a_damaged_compressed_frame_is_refused_with_the_name(tmp_path):
    path = make(tmp_path / "a.dcm", noise(2, 6, 5), syntax=RLELossless)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\x03" + bytes(63)] * 2)
    dataset.save_as(path)
    with pytest.raises(InputError, match=r"a\.dcm cannot be unpacked"):
        load(path)


def test_fewer_compressed_frames_than_announced_are_refused(tmp_path):
    path = make(tmp_path / "a.dcm", noise(2, 6, 5), syntax=RLELossless)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 5
    dataset.save_as(path)
    with pytest.raises(InputError, match=r"a\.dcm"):
        load(path)


@pytest.mark.parametrize("kept", [140, 300, -50])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, kept):
    path = make(tmp_path / "cut.dcm", noise(3, 12, 10))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"cut\.dcm"):
        load(path)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"PixelData": None}, "without PixelData"),
        ({"Rows": None}, "without Rows"),
        ({"NumberOfFrames": 4}, "needs 480 bytes of pixels for 4 frames and holds 360"),
        ({"NumberOfFrames": 0}, "no frames"),
        ({"NumberOfFrames": 2_000_000_000, "Rows": 8000, "Columns": 8000}, "GiB"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535"),
        ({"PhotometricInterpretation": "CIELAB"}, "CIELAB"),
    ],
)
def test_unusable_files_are_refused_with_a_sentence(tmp_path, elements, message):
    path = make(tmp_path / "bad.dcm", noise(3, 12, 10), **elements)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    assert "bad.dcm" in str(caught.value)


def test_a_directory_that_lists_nothing_is_refused(tmp_path):
    path = make(tmp_path / "DICOMDIR", noise(2, 6, 5))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.save_as(path)
    with pytest.raises(InputError, match="DICOMDIR lists or holds no DICOM pictures"):
        load(path)
