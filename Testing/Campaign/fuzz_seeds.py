"""Small valid files of every format that is read, made by the suite's helpers: where the fuzzer starts."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_HOSTILE = "hostile"


@dataclass(frozen=True)
class Seed:
    """One valid input.

    Attributes:
        format: name, for figures.
        reader: which reader takes it, a name in `fuzz_child.READERS`.
        files: content by name; several where an input is a folder or has companions.
        changed: the name of the file that is changed.
        entry: what the reader gets: a name, or "" for the folder.
        text: whether the whole file is text; else its first kilobytes may be.
        may_be_refused: whether a sentence that it is not supported is right, too.
    """

    format: str
    reader: str
    files: dict[str, bytes]
    changed: str
    entry: str
    text: bool = False
    may_be_refused: bool = False

    @property
    def is_hostile(self) -> bool:
        """Whether it is no valid file but one that is known to be hard."""
        return self.format.startswith(_HOSTILE)


def _one(format_: str, reader: str, name: str, content: bytes, text: bool = False) -> Seed:
    return Seed(format_, reader, {name: content}, name, name, text)


def make_seeds(hostile: Path | None = None) -> list[Seed]:
    """All seeds; the faulty files of a folder, where it exists, are seeds, too."""
    with tempfile.TemporaryDirectory(prefix="seeds-") as folder:
        makers = (_metafiles, _nrrds, _written, _hdf5s, _dicoms, _videos, _images, _poses, _models, _settings)
        return [seed for maker in makers for seed in maker(Path(folder))] + hostile_seeds(hostile)


def hostile_seeds(folder: Path | None) -> list[Seed]:
    """Files that are known to be hard."""
    if folder is None or not folder.is_dir():
        return []
    return [_one(f"{_HOSTILE} {path.name}", "sweep", path.name, path.read_bytes()) for path in sorted(folder.iterdir())]


def _tracked_fields(text: Callable, poses: list) -> list[tuple[str, str]]:
    fields = []
    for i, matrix in enumerate(poses):
        fields += [
            (f"Seq_Frame{i:04d}_ProbeToTrackerTransform", text(matrix)),
            (f"Seq_Frame{i:04d}_ProbeToTrackerTransformStatus", "OK"),
            (f"Seq_Frame{i:04d}_Timestamp", str(0.1 * i)),
        ]
    return fields


def _metafiles(folder: Path) -> Iterator[Seed]:
    from sequence_files import PROBES, metafile, pixels, text

    fields = _tracked_fields(text, PROBES)
    for name, options in {"raw.igs.mha": {}, "zlib.mha": {"compress": True}}.items():
        path = metafile(folder / name, pixels(3, 4, 5), fields, **options)
        yield _one(f"metafile {name}", "sweep", name, path.read_bytes())
    path = metafile(folder / "a.mhd", pixels(3, 4, 5), fields, ElementDataFile="a.raw")
    files = {"a.mhd": path.read_bytes(), "a.raw": pixels(3, 4, 5).tobytes()}
    yield Seed("metafile with data file", "sweep", files, "a.mhd", "a.mhd", True)


def _nrrds(folder: Path) -> Iterator[Seed]:
    from sequence_files import PROBES, nrrd, pixels, text

    fields = _tracked_fields(text, PROBES)
    for name, compress in {"raw.nrrd": False, "gzip.seq.nrrd": True}.items():
        path = nrrd(folder / name, pixels(3, 4, 5), fields, compress=compress)
        yield _one(f"nrrd {name}", "sweep", name, path.read_bytes())
    path = nrrd(folder / "a.nhdr", pixels(3, 4, 5), data_file="a.raw")
    header = path.read_bytes().split(b"\n\n")[0] + b"\n"
    yield Seed("nhdr", "sweep", {"a.nhdr": header, "a.raw": pixels(3, 4, 5).tobytes()}, "a.nhdr", "a.nhdr", True)


def _written(folder: Path) -> Iterator[Seed]:
    from training_data import tracked_sweep

    from DualTrackCore.io import save_sweep

    for name in ("written.igs.mha", "written.seq.nrrd", "written.h5"):
        save_sweep(tracked_sweep(0, 4, (8, 10)), folder / name)
        yield _one(f"own {name.split('.', 1)[1]}", "sweep", name, (folder / name).read_bytes())


def _hdf5s(folder: Path) -> Iterator[Seed]:
    from hdf5_files import calibration_csv, dualtrack_file, tus_rec_file

    dualtrack_file(folder / "d.h5")
    yield _one("hdf5", "sweep", "d.h5", (folder / "d.h5").read_bytes())
    tus_rec_file(folder / "t" / "scan.h5", 2, (24, 32))
    calibration_csv(folder / "t" / "calib_matrix.csv")
    files = {name: (folder / "t" / name).read_bytes() for name in ("scan.h5", "calib_matrix.csv")}
    for changed in files:
        yield Seed(f"TUS-REC {changed}", "TUS-REC", files, changed, "scan.h5", changed.endswith("csv"))


def _dicoms(folder: Path) -> Iterator[Seed]:
    from dicom_files import coded, lossless_jpeg, packed
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGBaseline8Bit,
        JPEGLossless,
        RLELossless,
    )
    from test_io_dicom import make, noise, region

    made = {
        "grey": (noise(3, 12, 10), {"regions": [region(0, 0, 9, 11)], "FrameTime": "50"}),
        "colour": (noise(2, 12, 10, 3), {"photometric": "RGB"}),
        "rle": (noise(2, 12, 10), {"syntax": RLELossless}),
        "deflated": (noise(2, 12, 10), {"syntax": DeflatedExplicitVRLittleEndian}),
    }
    for name, (pixels, options) in made.items():
        path = make(folder / f"{name}.dcm", pixels, **options)
        files = {path.name: path.read_bytes()}
        yield Seed(f"dicom {name}", "sweep", files, path.name, path.name)
    coders = {
        "jpeg": (JPEGBaseline8Bit, coded),
        "jpeg lossless": (JPEGLossless, lossless_jpeg),
        "jpeg 2000": (JPEG2000Lossless, lambda image: coded(image, "JPEG2000", no_jp2=True)),
    }
    for name, (syntax, code) in coders.items():
        frames = noise(2, 12, 10)
        path = packed(folder / f"{name}.dcm", frames, list(map(code, frames)), syntax)
        yield _one(f"dicom {name}", "sweep", path.name, path.read_bytes())


def _videos(folder: Path) -> Iterator[Seed]:
    import av
    from test_io_video import CONTAINERS, LOSSLESS, LOSSY
    from video_files import make, smooth_frames

    codings = {f"clip.{suffix}": (*coding, None) for suffix, coding in {**LOSSLESS, **LOSSY}.items()}
    for name, (codec, pixel_format, container, *_) in {**codings, **CONTAINERS}.items():
        if codec in av.codecs_available:
            # Frames of 32 rows made the encoder of HEVC write beyond its memory.
            make(folder / name, smooth_frames(4, 48, 64), codec, pixel_format, container=container)
            yield _one(f"video {name.removeprefix('clip.')}", "sweep", name, (folder / name).read_bytes())


def _images(folder: Path) -> Iterator[Seed]:
    import SimpleITK as sitk

    pixels = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    for suffix in ("png", "bmp", "tif", "jpg"):
        path = folder / f"image.{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
        yield _one(f"image {suffix}", "sweep", path.name, path.read_bytes())
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([pixels] * 3)), str(folder / "pages.tif"))
    yield _one("tiff pages", "sweep", "pages.tif", (folder / "pages.tif").read_bytes())
    png = (folder / "image.png").read_bytes()
    yield Seed("folder of images", "sweep", {f"frame{i}.png": png for i in range(3)}, "frame1.png", "")
    yield from _more_images(pixels)


def _more_images(pixels: np.ndarray) -> Iterator[Seed]:
    """Kinds that only Pillow writes, where it is installed: palettes, colour, compressed pages."""
    try:
        from PIL import Image
    except ImportError:
        return
    grey = Image.fromarray(pixels)
    kinds = {
        "palette.png": (grey.convert("P"), {}),
        "colour.bmp": (grey.convert("RGB"), {}),
        "palette.bmp": (grey.convert("P"), {}),
        "lzw.tif": (grey, {"compression": "tiff_lzw", "save_all": True, "append_images": [grey]}),
        "colour.jpg": (grey.convert("RGB"), {}),
    }
    for name, (image, options) in kinds.items():
        stream = io.BytesIO()
        image.save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(name.split(".")[1], name.split(".")[1]), **options)
        yield _one(f"image {name}", "sweep", name, stream.getvalue())


def _poses(folder: Path) -> Iterator[Seed]:
    from dataset_folders import CONFIGURATION
    from training_data import tracked_sweep

    from DualTrackCore.io import write_trajectory_csv

    yield _one("calibration xml", "calibration", "probe.xml", CONFIGURATION.encode(), True)
    matrix = "0.2 0 0 5\n0 0.2 0 7\n0 0 0.2 9\n0 0 0 1\n"
    yield _one("calibration text", "calibration", "matrix.txt", matrix.encode(), True)
    write_trajectory_csv(tracked_sweep(0, 4, (8, 10)).tracked, folder / "t.csv", np.arange(4) / 20)
    yield _one("trajectory csv", "trajectory", "t.csv", (folder / "t.csv").read_bytes(), True)


def _models(folder: Path) -> Iterator[Seed]:
    import struct

    from DualTrackCore.network.catalogue import ModelCard

    card = ModelCard(name="tiny", trained=False, architecture={"positions": 64}, frame_size=(96, 128))
    yield _one("model card", "card", "tiny.json", card.to_json().encode(), True)
    # The layout of safetensors: length of the header, header, data.
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": {"card": card.to_json()}, "weight": tensor}).encode()
    yield _one("safetensors", "weights", "w.safetensors", struct.pack("<Q", len(header)) + header + bytes(8))


def _settings(folder: Path) -> Iterator[Seed]:
    import yaml

    from DualTrackCore.run import RunSettings

    yield _one("settings yaml", "settings", "settings.yaml", RunSettings().to_yaml().encode(), True)
    values = {
        "stage": "local1",
        "output": "local1",
        "data": {"kind": "dualtrack_h5", "csv": "metadata.csv"},
        "sampling": {"window": 8, "random_frames": 6},
        "optimiser": {"lr": 1e-3, "weight_decay": 1e-2, "betas": [0.9, 0.999]},
        "epochs": 2,
        "batch_size": 2,
        "seed": 3,
    }
    yield _one("recipe yaml", "recipe", "recipe.yaml", yaml.safe_dump(values).encode(), True)
