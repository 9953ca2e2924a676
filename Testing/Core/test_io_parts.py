"""Parts of frames in files: the same pixels however they are stored, read without the rest, by files opened once."""

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from hdf5_files import dualtrack_file, load

from DualTrackCore import pixels as pixels_module
from DualTrackCore.errors import InputError

STORED = {
    "as they are": {},
    "one frame a chunk": {"chunks": (1, 12, 10), "compression": 1},
    "chunks of many frames": {"chunks": (4, 5, 3)},
}


@pytest.mark.parametrize("storage", STORED)
def stored(path, pixels, storage, **options):
    """A DualTrack file whose frames are stored in one of these ways, opened."""
    others = dualtrack_file(path, count=len(pixels), images=None)
    with h5py.File(path, "w", **options) as file:
        for name, values in others.items():
            if values is not None:
                file[name] = values
        file.create_dataset("images", data=pixels, **STORED[storage])
    return load(path).frames


@pytest.mark.parametrize("before", [0, 512])
@pytest.mark.parametrize("storage", STORED)
def test_a_part_of_the_frames_is_that_part_however_they_are_stored(tmp_path, storage, before):
    pixels = np.random.default_rng(2).integers(0, 256, (9, 12, 10), np.uint8)
    frames = stored(tmp_path / "a.h5", pixels, storage, userblock_size=before)
    for source in (frames, frames.kept_open(), pickle.loads(pickle.dumps(frames.kept_open()))):
        np.testing.assert_array_equal(source.part(2, 7, slice(3, 9), slice(1, 8)), pixels[2:7, 3:9, 1:8])
        np.testing.assert_array_equal(source[1:8:3], pixels[1:8:3])


def test_parts_of_frames_that_matlab_wrote_are_upright(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (9, 10, 12), np.uint8)
    dualtrack_file(tmp_path / "m.h5", count=9, images=pixels)
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file["images"].attrs["MATLAB_class"] = np.bytes_("uint8")
    frames = load(tmp_path / "m.h5").frames
    wanted = pixels.transpose(0, 2, 1)[2:7, 3:9, 1:8]
    for source in (frames, frames.kept_open()):
        np.testing.assert_array_equal(source.part(2, 7, slice(3, 9), slice(1, 8)), wanted)


@pytest.mark.parametrize(("storage", "wanted"), [("as they are", 0), ("one frame a chunk", 1)])
def test_many_reads_open_a_file_once_and_see_that_it_has_changed(tmp_path, monkeypatch, storage, wanted):
    frames, opened = stored(tmp_path / "a.h5", np.ones((9, 12, 10), np.uint8), storage).kept_open(), []
    original = h5py.File.__init__
    monkeypatch.setattr(h5py.File, "__init__", lambda *a, **k: (opened.append(a), original(*a, **k))[1])
    for start in range(5):
        assert frames.part(start, start + 2, slice(2, 4), slice(0, 9)).sum() == 36
    assert sum(isinstance(path, Path) for _, path, *_ in opened) == wanted
    os.utime(tmp_path / "a.h5", ns=(0, 1))
    with pytest.raises(InputError, match=r"a\.h5 has changed since it was opened"):
        frames.window(0, 1)


def test_of_pixels_that_lie_as_they_are_only_the_rows_of_a_part_are_read(tmp_path, monkeypatch):
    values = np.arange(9 * 12 * 10, dtype=np.uint8).reshape(9, 12, 10)
    (tmp_path / "raw").write_bytes(b"head" + values.tobytes())
    read, original = [], pixels_module._read_at
    monkeypatch.setattr(pixels_module, "_read_at", lambda *a: (read.append(a[2]), original(*a))[1])
    part = pixels_module.FilePixels(tmp_path / "raw", 4, values.shape, values.dtype).part
    np.testing.assert_array_equal(part(2, 6, slice(4, 7), slice(3, 5)), values[2:6, 4:7, 3:5])
    assert sum(read) == 4 * 3 * 10
    (tmp_path / "raw").write_bytes(b"head" + values.tobytes()[:-60])
    with pytest.raises(InputError, match="raw was cut short"):
        part(7, 9, slice(4, 7), slice(3, 5))
