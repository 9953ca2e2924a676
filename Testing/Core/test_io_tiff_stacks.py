"""Stacks of ImageJ and OME: every frame once, in its size and time, or a sentence that says what to save."""

import numpy as np
import pytest
import tifffile
from sequence_files import asymmetric_clip

from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep

CLIP = asymmetric_clip(6)
IMAGEJ = {"imagej": True, "resolution": (5, 4)}
OME = {"ome": True}


def written(path, array, axes, options, **metadata):
    tifffile.imwrite(path, array, metadata={"axes": axes, **metadata}, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options", "metadata"),
    [
        ("a.tif", IMAGEJ, {"unit": "mm", "finterval": 0.05}),
        ("a.tif", {"imagej": True, "resolution": (0.005, 0.004)}, {"unit": "um", "finterval": 0.05}),
        (
            "a.ome.tif",
            OME,
            {"PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 250, "TimeIncrement": 0.05},
        ),
        (
            "a.ome.tif",
            OME,
            {"PhysicalSizeX": 200, "PhysicalSizeY": 250, "TimeIncrement": 50, "TimeIncrementUnit": "ms"},
        ),
    ],
    ids=["ImageJ mm", "ImageJ um", "OME mm and um", "OME um and ms"],
)
@pytest.mark.parametrize("axes", ["TYX", "ZYX"])
def test_a_stack_keeps_its_frames_size_and_times(tmp_path, name, options, metadata, axes):
    sweep = load_sweep(written(tmp_path / name, CLIP, axes, options, **metadata))
    np.testing.assert_array_equal(sweep.window(0, 6), CLIP)
    assert sweep.spacing_mm == pytest.approx((0.2, 0.25))
    assert sweep.provenance["spacing_source"] == "file"
    assert sweep.frame_rate_hz == pytest.approx(20)
    assert load_sweep(tmp_path / name, spacing_mm=0.3).spacing_mm == (0.3, 0.3)


@pytest.mark.parametrize(
    ("options", "metadata"),
    [
        ({"imagej": True, "resolution": (72, 72)}, {"unit": "inch"}),
        ({"imagej": True}, {}),
        ({"imagej": True, "resolution": (0.001, 0.001)}, {"unit": "mm"}),
        (OME, {"PhysicalSizeX": 0.2, "PhysicalSizeXUnit": "mm"}),
        ({}, {}),
    ],
    ids=["inch", "nothing", "beyond what pixels have", "one direction", "no description"],
)
def test_sizes_of_print_and_impossible_ones_stay_unknown(tmp_path, options, metadata):
    sweep = load_sweep(written(tmp_path / "a.tif", CLIP, "TYX", options, **metadata))
    assert (len(sweep), sweep.spacing_mm, sweep.timestamps_s) == (6, None, None)


@pytest.mark.parametrize("options", [IMAGEJ, OME], ids=["ImageJ", "OME"])
@pytest.mark.parametrize(
    ("shape", "axes", "said"),
    [((3, 2), "TCYX", r"2 pictures \(channels\).*Split Channels"), ((3, 2), "TZYX", "3 volumes of 2 slices")],
)
def test_channels_and_volumes_over_time_are_refused_with_the_remedy(tmp_path, options, shape, axes, said):
    array = CLIP.reshape(*shape, *CLIP.shape[1:])
    with pytest.raises(InputError, match=said) as caught:
        load_sweep(written(tmp_path / "a.tif", array, axes, options))
    assert "a.tif" in str(caught.value)


def test_colour_is_no_channel(tmp_path):
    coloured = np.repeat(CLIP[..., None], 3, -1)
    for options in (OME, {"imagej": True}):
        path = written(tmp_path / "a.tif", coloured, "TYXS", {**options, "photometric": "rgb"})
        np.testing.assert_array_equal(load_sweep(path).window(0, 6), CLIP)


def test_a_stack_of_which_other_files_hold_the_rest_is_refused(tmp_path):
    described = written(tmp_path / "a.ome.tif", CLIP, "TYX", OME)
    text = tifffile.TiffFile(described).ome_metadata
    tifffile.imwrite(tmp_path / "b.ome.tif", CLIP[0], description=text.encode(), metadata=None)
    with pytest.raises(InputError, match=r"has 6 pictures and holds 1.*into one file"):
        load_sweep(tmp_path / "b.ome.tif")


def test_a_damaged_description_does_not_spoil_the_pictures(tmp_path):
    for number, text in enumerate(['<?xml version="1.0"?><OME><Pixels', "<!DOCTYPE a><OME/>", "ImageJ=1.0\nimages=x"]):
        path = tmp_path / f"{number}.tif"
        with tifffile.TiffWriter(path) as file:
            for frame in CLIP:
                file.write(frame, description=text, metadata=None, contiguous=False)
        assert len(load_sweep(path)) == 6
