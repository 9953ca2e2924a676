"""DICOM files with compressed pixels, for tests: what encoders of pydicom's plugins cannot write is written here."""

import io

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian
from test_io_dicom import make


def speckle(count=3, height=40, width=56):
    """Frames with speckle, a bright block at the top left, another at the right and a dark bottom."""
    base = np.random.default_rng(0).gamma(2.0, 20.0, (height, width + count))
    frames = np.stack([base[:, i : i + width] for i in range(count)])
    frames[:, 4:12, 4:18], frames[:, 20:26, -14:-4], frames[:, -4:] = 250, 150, 20
    return frames.clip(0, 255).astype(np.uint8)


def in_colour(frames):
    """The same as RGB, with a red box as colour flow has it."""
    colour = np.repeat(frames[..., None], 3, -1)
    colour[:, 14:22, 20:34] = 200, 30, 30
    return colour


def packed(path, pixels, codestreams, syntax, photometric="MONOCHROME2", has_bot=True, fragments=1, **elements):
    """A clip whose frames are codestreams; `pixels` gives their number, size and type."""
    make(path, pixels, photometric, **elements)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(codestreams, has_bot=has_bot, fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path, enforce_file_format=True)
    return path


def coded(image, kind="JPEG", **options):
    """A picture as Pillow codes it."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def without_marks(jpeg):
    """A JPEG picture without its application segments (JFIF, Adobe)."""
    at = 2
    while 0xE0 <= jpeg[at + 1] <= 0xEF:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[:2] + jpeg[at:]


def with_component_names(jpeg, names):
    """A JPEG picture whose components are called so, in the headers of frame and scan."""
    data = bytearray(jpeg)
    frame, scan = data.find(b"\xff\xc0"), data.find(b"\xff\xda")
    for index, name in enumerate(names):
        data[frame + 10 + 3 * index] = data[scan + 5 + 2 * index] = name
    return bytes(data)


def lossless_jpeg(image, predictor=1, bits=8):
    """A picture [H, W] or [H, W, 3] as lossless JPEG, process 14, with codes of 5 bits for the sizes of differences."""
    x = np.atleast_3d(image).astype(np.int64)
    left, up = np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1], np.pad(x, ((1, 0), (0, 0), (0, 0)))[:-1]
    corner = np.pad(x, ((1, 0), (1, 0), (0, 0)))[:-1, :-1]
    guess = (
        *(left, up, corner, left + up - corner, left + (up - corner >> 1)),
        *(up + (left - corner >> 1), left + up >> 1),
    )[predictor - 1].copy()
    guess[0], guess[:, 0] = left[0], up[:, 0]
    guess[0, 0] = 1 << bits - 1
    text = ""
    for value in (((x - guess + 32768) & 0xFFFF) - 32768).ravel().tolist():
        size = abs(value).bit_length()
        text += f"{size:05b}" + (f"{value if value > 0 else value + (1 << size) - 1:0{size}b}" if 0 < size < 16 else "")
    text += "1" * (-len(text) % 8)
    height, width, count = x.shape
    names = range(1, count + 1)
    frame = bytes([bits, *height.to_bytes(2, "big"), *width.to_bytes(2, "big"), count])
    parts = {
        0xC3: frame + b"".join(bytes([name, 0x11, 0]) for name in names),
        0xC4: bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)]),
        0xDA: bytes([count, *(value for name in names for value in (name, 0)), predictor, 0, 0]),
    }
    head = b"".join(bytes([255, mark]) + (len(part) + 2).to_bytes(2, "big") + part for mark, part in parts.items())
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def series_of_frames(folder, frames, order=None, suffix="", **elements):
    """A folder of objects of one frame each; `order` gives the place of each frame among the file names."""
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        place = number if order is None else order[number]
        make(
            folder / f"IM_{place:04d}{suffix}", frame[None], NumberOfFrames=None, InstanceNumber=number + 1, **elements
        )
    return folder


def native(path):
    """The file as a data set with pixels in plain order."""
    dataset = pydicom.dcmread(path)
    assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    return dataset
