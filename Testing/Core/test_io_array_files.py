"""NumPy and NIfTI arrays: upright and whole, or a sentence with the remedy."""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from sequence_files import asymmetric_clip

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.pixels import WindowSource

CLIP = asymmetric_clip()


def nifti(path, array=CLIP, spacing=(0.2, 0.3, 0.5), direction=None, origin=(5, 6, 7), **options):
    image = sitk.GetImageFromArray(array, **options)
    image.SetSpacing((*spacing, *(1,) * image.GetDimension())[: image.GetDimension()])
    if direction is not None:
        image.SetDirection(direction)
        image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))
    return path


def saved(path, array):
    np.save(path, array)
    return path


def patched(path, place, form, *values):
    """Write values into the header of a NIfTI file."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<" + form, content, place, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda clip: clip,
        lambda clip: np.asfortranarray(clip),
        lambda clip: clip.astype(">u2") * 257,
        lambda clip: np.repeat(clip[..., None], 3, -1),
        lambda clip: np.repeat(clip[:, None], 3, 1),
        lambda clip: clip.astype(np.float64),
    ],
    ids=["8 bits", "Fortran", "16 bits, big-endian", "colour last", "colour second", "real numbers"],
)
def test_a_numpy_file_is_read_as_frames_rows_columns(tmp_path, make):
    sweep = load_sweep(saved(tmp_path / "a.npy", make(CLIP)), spacing_mm=0.2)
    np.testing.assert_array_equal(sweep.window(0, 20), CLIP)
    assert sweep.spacing_mm == (0.2, 0.2)


def test_a_numpy_file_is_read_in_windows(tmp_path):
    assert isinstance(load_sweep(saved(tmp_path / "a.npy", CLIP)).frames, WindowSource)


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_nifti_file_is_read_upright_with_its_spacing(tmp_path, suffix):
    sweep = load_sweep(nifti(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(sweep.window(0, 20), CLIP)
    assert sweep.spacing_mm == (0.2, 0.3)
    assert sweep.provenance["spacing_source"] == "file"


@pytest.mark.parametrize(
    ("direction", "stored", "spacing"),
    [
        ((1, 0, 0, 0, -1, 0, 0, 0, 1), CLIP[:, ::-1], (0.2, 0.3, 0.5)),
        ((-1, 0, 0, 0, 1, 0, 0, 0, 1), CLIP[:, :, ::-1], (0.2, 0.3, 0.5)),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), CLIP[:, ::-1, ::-1], (0.2, 0.3, 0.5)),
        ((0, 1, 0, 1, 0, 0, 0, 0, 1), np.swapaxes(CLIP, 1, 2), (0.3, 0.2, 0.5)),
        ((0, 1, 0, -1, 0, 0, 0, 0, 1), np.swapaxes(CLIP[:, ::-1], 1, 2), (0.3, 0.2, 0.5)),
    ],
    ids=["rows from below", "columns from the right", "both", "columns first", "columns first, from below"],
)
@pytest.mark.parametrize("only_quaternion", [False, True])
def test_pictures_are_turned_as_viewers_show_them(tmp_path, direction, stored, spacing, only_quaternion):
    path = nifti(tmp_path / "a.nii", np.ascontiguousarray(stored), spacing, direction)
    if only_quaternion:
        patched(path, 254, "h", 0)
    sweep = load_sweep(path)
    np.testing.assert_array_equal(sweep.window(0, 20), CLIP)
    assert sweep.spacing_mm == (0.2, 0.3)


def test_colour_and_times_of_nifti_are_read(tmp_path):
    coloured = nifti(tmp_path / "a.nii", np.repeat(CLIP[..., None], 3, -1), isVector=True)
    np.testing.assert_array_equal(load_sweep(coloured).window(0, 20), CLIP)
    over_time = nifti(tmp_path / "b.nii", CLIP[:, None], (0.2, 0.3, 1, 0.05), isVector=False)
    sweep = load_sweep(over_time)
    np.testing.assert_array_equal(sweep.window(0, 20), CLIP)
    assert sweep.frame_rate_hz == pytest.approx(20)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: saved(path / "a.npy", np.array([{}])), "holds no numbers"),
        (lambda path: _damaged(saved(path / "a.npy", CLIP), 40, b"\0("), "holds no numbers"),
        (lambda path: saved(path / "a.npy", np.zeros((4, 5, 6), complex)), "whole or real numbers"),
        (lambda path: saved(path / "a.npy", CLIP[0]), "frames, rows, columns"),
        (lambda path: saved(path / "a.npy", np.moveaxis(CLIP, 0, -1)), r"numpy\.moveaxis\(frames, -1, 0\)"),
        (lambda path: _cut(saved(path / "a.npy", CLIP)), "cut short"),
        (lambda path: _archive(path / "a.npz"), r"numpy\.load\('a\.npz'\)"),
        (lambda path: _cut(nifti(path / "a.nii")), "cut short"),
        (lambda path: _cut(nifti(path / "a.nii.gz")), "cut short|damaged"),
        (lambda path: nifti(path / "a.nii", np.zeros((2, 3, 4, 5), np.uint8), isVector=False), "two image axes"),
        (lambda path: nifti(path / "a.img").with_suffix(".hdr"), "pair of files"),
        (lambda path: patched(nifti(path / "a.nii"), 70, "h", 1792), "type 1792"),
        (lambda path: patched(nifti(path / "a.nii"), 42, "h", -5), "damaged header"),
        (lambda path: patched(nifti(path / "a.nii"), 108, "f", np.nan), "damaged header"),
        (lambda path: nifti(path / "a.nii", direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1), origin=(0, 0, 0)), "plain array"),
        (lambda path: nifti(path / "a.vtk"), r"VTK file.*\.nrrd"),
        (lambda path: _matlab_5(path / "a.mat"), "-v7.3"),
        (lambda path: _transform(path / "a.tfm"), "give it as a calibration"),
        (lambda path: _transform(path / "a.h5"), "give it as a calibration"),
        (lambda path: _text(path / "a.xml", "<PlusConfiguration/>"), "give it as a calibration"),
        (lambda path: _text(path / "a.xml", '<?xml version="1.0"?>\n<PlusConfiguration/>'), "PLUS configuration"),
        (lambda path: _text(path / "a.vti", '<?xml version="1.0"?>\n<VTKFile type="ImageData">'), "VTK file"),
        (lambda path: _text(_text(path / "a.mhd", "").with_suffix(".raw"), "pixels"), r"pixels of a\.mhd; open that"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_the_remedy(tmp_path, make, said, capsys):
    path = make(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        load_sweep(path)
    assert path.name in str(caught.value)
    assert main(["info", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5000])
    return path


def _damaged(path, place, content):
    path.write_bytes(path.read_bytes()[:place] + content + path.read_bytes()[place + len(content) :])
    return path


def _transform(path):
    sitk.WriteTransform(sitk.AffineTransform(3), str(path))
    return path


def _text(path, text):
    path.write_text(text)
    return path


def _archive(path):
    np.savez(path, frames=CLIP)
    return path


def _matlab_5(path):
    from scipy.io import savemat

    savemat(path, {"images": np.moveaxis(CLIP, 0, -1)})
    return path


def test_a_bomb_of_zeros_is_refused_before_it_is_unpacked(tmp_path):
    path = nifti(tmp_path / "a.nii")
    header = patched(path, 42, "3h", 8000, 8000, 30000).read_bytes()[:352]
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(header + bytes(10_000_000)))
    with pytest.raises(InputError, match=r"claims|are announced"):
        load_sweep(tmp_path / "b.nii.gz")
