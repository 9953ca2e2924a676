"""Clips of noise in files of every kind."""

import h5py
import numpy as np
import pytest
from sequence_files import metafile
from test_io_dicom import make as make_dicom


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def stored(folder, kind, frames):
    """The clip in a file of the kind."""
    size = " ".join(map(str, frames.shape[::-1]))
    if kind == "mha":
        return metafile(folder / "a.mha", frames, DimSize=size)
    if kind == "turned":
        return metafile(folder / "a.mha", frames, DimSize=size, UltrasoundImageOrientation="MN")
    if kind == "compressed":
        return metafile(folder / "a.mha", frames, DimSize=size, compress=True)
    if kind == "deep":
        return metafile(folder / "a.mha", frames.astype("<u2") * 257, DimSize=size, ElementType="MET_USHORT")
    if kind == "dcm":
        return make_dicom(folder / "a.dcm", frames)
    if kind == "h5":
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset("images", data=frames, chunks=(1, *frames.shape[1:]))
        return folder / "a.h5"
    av = pytest.importorskip("av", reason="video needs the extra `video` (PyAV)")
    with av.open(str(folder / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=20)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:], "gray"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode())
    return folder / "a.mkv"
