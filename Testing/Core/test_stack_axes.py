"""Arrays of MATLAB and Python in HDF5: frames are never turned on their side, whoever stacked them."""

import json

import h5py
import numpy as np
import pytest
from hdf5_files import load, random_poses
from sequence_files import asymmetric_clip

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io.stack_axes import stack_axes


def matlab_file(path, **variables):
    """A file of `save -v7.3`: each variable as MATLAB shows it; its axes stand backwards in the file."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            data = file.create_dataset(name, data=np.ascontiguousarray(np.asarray(value).T))
            data.attrs["MATLAB_class"] = np.bytes_({"u": "uint8", "f": "double"}[data.dtype.kind])
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b"\0" * 8 + b"\x00\x02IM")
    return path


def stored(path, **data):
    with h5py.File(path, "w") as file:
        for name, value in data.items():
            file[name] = value
    return path


@pytest.mark.parametrize("name", ["images", "frames"])
def test_pictures_of_matlab_stand_upright_and_its_tables_are_read(tmp_path, name):
    clip, poses = asymmetric_clip(), random_poses(20)
    variables = {name: np.moveaxis(clip, 0, -1)}
    if name == "images":
        variables |= {"spacing": [[0.2], [0.3], [1.0]], "tracking": np.moveaxis(poses, 0, -1)}
    sweep = load(matlab_file(tmp_path / "a.mat", **variables))
    np.testing.assert_array_equal(sweep.window(0, 20), clip)
    assert "20 frames of 160 x 128 pixels (width x height)" in sweep.provenance["conversions"][0]
    if name == "images":
        assert sweep.spacing_mm == (0.2, 0.3)
        np.testing.assert_allclose(sweep.tracked.reference_from_frame0 @ sweep.tracked.poses, poses, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "notes"),
    [
        (lambda clip: {"images": (clip / 255).astype("f4")}, "stretched"),
        (lambda clip: {"images": clip.astype(np.uint16) * 257}, "uint16"),
        (lambda clip: {"images": np.repeat(clip[..., None], 3, -1)}, "colour"),
        (lambda clip: {"images": np.repeat(clip[:, None], 3, 1)}, "colour"),
        (lambda clip: {"frames": np.repeat(clip[..., None], 3, -1)}, "colour"),
        (lambda clip: {"images": clip[..., None]}, ""),
        (lambda clip: {"images": np.moveaxis(clip, 0, -1), "timestamps": np.arange(20.0)}, "20 frames"),
        (lambda clip: {"images": np.moveaxis(clip, 0, -1), "dimensions": [160, 128, 1]}, "20 frames"),
        (lambda clip: {"images": np.swapaxes(clip, 1, 2), "dimensions": [160, 128, 1]}, "20 frames"),
        (lambda clip: {"frames": np.moveaxis(clip, 0, -1), "tforms": np.tile(np.eye(4), (20, 1, 1))}, "20 frames"),
    ],
    ids=[
        *("real numbers", "16 bits", "colour last", "colour second", "TUS-REC in colour", "one channel"),
        *("frames last, times", "frames last, size", "columns first, size", "TUS-REC, frames last"),
    ],
)
@pytest.mark.filterwarnings("ignore::DualTrackCore.errors.SweepWarning")
def test_other_depths_colours_and_orders_of_axes_give_the_same_pictures(tmp_path, make, notes):
    clip = asymmetric_clip()
    sweep = load(stored(tmp_path / "a.h5", **make(clip)))
    assert np.abs(sweep.window(0, 20).astype(int) - clip).max() <= 1
    np.testing.assert_array_equal(sweep.window(7, 9), sweep.window(0, 20)[7:9])
    assert notes in " ".join(sweep.provenance["conversions"])


def test_colour_of_matlab_is_turned_as_well(tmp_path):
    clip = asymmetric_clip()
    coloured = np.repeat(np.moveaxis(clip, 0, -1)[:, :, None], 3, 2)  # rows, columns, colour, frames
    np.testing.assert_array_equal(load(matlab_file(tmp_path / "a.mat", images=coloured)).window(0, 20), clip)


def test_axes_that_make_no_pictures_are_refused_with_the_remedy(tmp_path, capsys):
    path = stored(tmp_path / "a.h5", images=np.moveaxis(asymmetric_clip(), 0, -1))
    assert main(["info", str(path)]) == 2
    said = capsys.readouterr().err
    assert "128 x 160 x 20" in said
    assert "numpy.moveaxis(frames, -1, 0)" in said
    path = matlab_file(tmp_path / "a.mat", images=asymmetric_clip(12, 100, 90))  # frames first
    assert main(["info", str(path)]) == 2
    assert "permute(frames, [2 3 1])" in capsys.readouterr().err


def test_axes_that_could_be_either_way_are_taken_by_custom_with_a_warning(tmp_path, capsys):
    path = stored(tmp_path / "a.h5", images=np.moveaxis(asymmetric_clip(90), 0, -1))
    assert main(["info", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["frame_size"] == [160, 90]
    assert "if that is wrong" in facts["provenance"]["warnings"][0]


@pytest.mark.parametrize("shape", [(5,), (128, 160), (20, 128, 160, 7), (2, 3, 128, 160, 3)])
def test_what_is_no_stack_of_pictures_is_refused(shape):
    with pytest.raises(InputError, match="expected frames, rows, columns"):
        stack_axes(shape, "'images' in a.h5")
