"""Makes the sequence metafiles that the reader tests need, byte by byte and without the writer under test."""

from __future__ import annotations

import gzip
import zlib

import numpy as np
from shared_files import shared_path

META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "DimSize": "5 4 3",
    "Kinds": "domain domain list",
    "ElementSpacing": "1 1 1",
    "ElementType": "MET_UCHAR",
    "UltrasoundImageOrientation": "MFA",
    "UltrasoundImageType": "BRIGHTNESS",
}

NRRD = {
    "type": "uint8",
    "dimension": "3",
    "sizes": "5 4   3",
    "kinds": "domain domain list",
    "encoding": "raw",
    "endian": "little",
    "space directions": "(1,0) (0,1) none",
}


def pixels(*shape, dtype=np.uint8):
    """An array in which every entry differs from its neighbours along each axis."""
    count = int(np.prod(shape))
    return (np.arange(count) * 7 % 251).astype(dtype).reshape(shape)


def asymmetric_clip(n=20, h=128, w=160):
    """Asymmetric pictures: bright at the upper left, a block at the right, dark at the bottom, speckle elsewhere."""
    base = np.random.default_rng(0).gamma(2.0, 20.0, (h, w + n))
    clip = np.stack([np.clip(base[:, i : i + w], 0, 255) for i in range(n)]).astype(np.uint8)
    clip[:, 5:25, 8:40], clip[:, 60:70, w - 30 : w - 10], clip[:, h - 6 :] = 250, 150, 20
    return clip


def metafile(path, frames, fields=(), *, drop=(), end="\n", order=None, compress=False, **changes):
    """Write a MetaImage file; `changes` replace header fields, `fields` are (name, text) pairs of single frames."""
    data = np.ascontiguousarray(frames).tobytes()
    header = {**META, **changes}
    if compress:
        data = zlib.compress(data)
        header |= {"CompressedData": "True", "CompressedDataSize": f"{len(data)}        "}
    header = {k: v for k, v in header.items() if k not in drop}
    data_file = header.pop("ElementDataFile", "LOCAL")
    pairs = [*header.items(), *fields] if order is None else order(list(header.items()), list(fields))
    text = "".join(f"{k} = {v}{end}" for k, v in [*pairs, ("ElementDataFile", data_file)])
    path.write_bytes(text.encode() + (data if data_file == "LOCAL" else b""))
    return path


def nrrd(path, frames, keys=(), *, drop=(), compress=False, **changes):
    """Write an NRRD file; underscores in the names of `changes` stand for blanks, `keys` are (name, text) pairs."""
    data = np.ascontiguousarray(frames).tobytes()
    header = {**NRRD, **{k.replace("_", " "): v for k, v in changes.items()}}
    if compress:
        data, header["encoding"] = gzip.compress(data), "gzip"
    lines = ["NRRD0004", "# made by a test", *(f"{k}: {v}" for k, v in header.items() if k not in drop)]
    lines += [f"{k}:={v}" for k, v in keys]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + data)
    return path


def text(matrix):
    """A matrix as the formats write it."""
    return " ".join(f"{value:.17g}" for value in np.ravel(matrix))


def rotation(axis, degrees):
    """[4, 4] rotation about a coordinate axis (0, 1, 2)."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix, (i, j) = np.eye(4), [k for k in range(3) if k != axis]
    matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
    return matrix


def pose(tx, ty, tz, rx=0.0, ry=0.0, rz=0.0):
    """[4, 4] rigid motion: rotations about x, y, z in degrees, then a translation in mm."""
    matrix = rotation(2, rz) @ rotation(1, ry) @ rotation(0, rx)
    matrix[:3, 3] = tx, ty, tz
    return matrix


def config(name):
    return shared_path(f"data/config/PlusDeviceSet_{name}.xml")


def world_from_pixel(sweep):
    """Where the trajectory puts pixels, RAS, without the column that no pixel uses."""
    return (sweep.tracked.ras_from_frame0 @ sweep.tracked.poses @ sweep.image_from_pixel)[..., (0, 1, 3)]


#: Three poses of a probe.
PROBES = [pose(1, 2, 3, 5, 6, 7), pose(2, 2, 4, 6, 6, 8), pose(3, 1, 5, 7, 7, 9)]
