"""Kinds of PNG, JPEG, BMP and TIFF: the greys of each, damaged ones, and what SimpleITK read before."""

import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image, ImageOps

from DualTrackCore.errors import InputError, OutOfMemoryError
from DualTrackCore.grey import to_grey_uint8
from DualTrackCore.io import image_file, load_sweep

HOSTILE = Path(__file__).parents[1] / "Data" / "hostile"
GREY = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 1 << 16, (37, 53), dtype=np.uint16)
COLOUR = np.random.default_rng(2).integers(0, 256, (37, 53, 3), dtype=np.uint8)
GREY_AS_COLOUR = np.repeat(GREY[..., None], 3, axis=-1)
#: Of quality 100.
JPEG_LOSS = 2
PALETTE = Image.fromarray(GREY).convert("P")
PALETTE.putpalette([value for level in range(256) for value in (level, 255 - level, level // 2)])


def luma(colour):
    return ((colour.astype(int) @ [299, 587, 114] + 500) // 1000).astype(np.uint8)


def scaled(values):
    return to_grey_uint8(values.reshape(-1, *values.shape[-2:]), colour_axis=None)[0].squeeze()


def read(path):
    sweep = load_sweep(path)
    return np.asarray(sweep.frames), list(sweep.provenance["conversions"])


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        *((f"{kind}.{suffix}", pixels) for suffix in ("png", "bmp", "tif") for kind, pixels in
          (("grey", GREY), ("colour", COLOUR))),
        ("alpha.png", np.dstack([COLOUR, GREY])),
        ("alpha.tif", np.dstack([COLOUR, GREY])),
        ("deep.png", DEEP),
        ("deep.tif", DEEP),
        ("deep-colour.tif", np.dstack([DEEP, DEEP // 2, DEEP // 3])),
        ("signed.tif", DEEP.astype(np.int16)),
        ("real.tif", DEEP.astype(np.float32) / 7),
        ("stack.tif", np.stack([GREY, 255 - GREY, GREY // 2])),
        ("deep-stack.tif", np.stack([DEEP, DEEP // 2])),
    ],
)  # fmt: skip
def test_the_greys_are_those_that_simpleitk_read(tmp_path, name, pixels):
    is_colour = pixels.ndim == 3 and pixels.shape[-1] in (3, 4)
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=is_colour), str(tmp_path / name))
    before = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
    if before.shape[-1] in (3, 4):
        before = to_grey_uint8(before[None], colour_axis=3)[0][0]
    frames, _ = read(tmp_path / name)
    assert np.array_equal(frames.squeeze(), before if before.dtype == np.uint8 else scaled(before))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, DEEP], ids=["grey", "colour", "deep"])
def test_the_greys_of_a_compressed_tiff_are_those_that_simpleitk_read(tmp_path, compression, pixels):
    if compression == "jpeg" and pixels is DEEP:
        pytest.skip("JPEG in TIFF has 8 bits.")
    first, second = (Image.fromarray(array) for array in (pixels, pixels[::-1].copy()))
    first.save(tmp_path / "clip.tif", save_all=True, append_images=[second], compression=compression)
    before = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "clip.tif")))
    frames, _ = read(tmp_path / "clip.tif")
    assert np.array_equal(frames, luma(before) if pixels is COLOUR else scaled(before) if pixels is DEEP else before)


@pytest.mark.parametrize("pixels", [GREY, GREY_AS_COLOUR, COLOUR], ids=["grey", "grey as colour", "colour"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_as_simpleitk_did_to_within_one_grey(tmp_path, pixels, progressive):
    # Colour at full resolution: how reduced colour is enlarged differs between libraries.
    sampling = 0 if pixels is COLOUR else 2
    Image.fromarray(pixels).save(tmp_path / "one.jpg", quality=90, progressive=progressive, subsampling=sampling)
    before = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "one.jpg")))
    frames, _ = read(tmp_path / "one.jpg")
    assert np.abs(frames[0].astype(int) - (before if before.ndim == 2 else luma(before))).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_a_palette_becomes_its_colours(tmp_path, suffix):
    PALETTE.save(tmp_path / f"one.{suffix}")
    assert np.array_equal(read(tmp_path / f"one.{suffix}")[0][0], luma(np.asarray(PALETTE.convert("RGB"))))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_one_bit_a_pixel_is_black_and_white(tmp_path, suffix):
    Image.fromarray(GREY > 128).save(tmp_path / f"one.{suffix}")
    assert np.array_equal(read(tmp_path / f"one.{suffix}")[0][0], np.where(GREY > 128, 255, 0))


def test_grey_with_alpha_is_read_and_mixes_with_grey(tmp_path):
    Image.fromarray(np.dstack([GREY, 255 - GREY])).save(tmp_path / "1.png")
    Image.fromarray(GREY).save(tmp_path / "2.png")
    frames, notes = read(tmp_path)
    assert np.array_equal(frames, [GREY, GREY])
    assert notes == ["Dropped the alpha channel."]


def test_a_png_with_sixteen_bits_of_colour_says_which_were_taken(tmp_path):
    rows = b"".join(b"\0" + np.dstack([row] * 3).astype(">u2").tobytes() for row in DEEP)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 53, 37, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "one.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    frames, notes = read(tmp_path / "one.png")
    assert np.array_equal(frames[0], DEEP >> 8)
    assert notes[0] == "Took the upper 8 of the 16 bits of each colour."


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["one.jpg", "one.png", "plain.tif", "packed.tif"])
def test_pictures_are_turned_as_viewers_turn_them(tmp_path, orientation, name):
    path = tmp_path / name
    if name.endswith("tif"):
        compression = {"compression": "tiff_lzw"} if name == "packed.tif" else {}
        Image.fromarray(GREY).save(path, tiffinfo={274: orientation}, **compression)
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(GREY).save(path, exif=exif, **({"quality": 100} if name == "one.jpg" else {}))
    frames, notes = read(path)
    image = Image.fromarray(GREY)
    image.getexif()[274] = orientation
    turned = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert np.abs(frames[0] - turned).max() <= (JPEG_LOSS if name == "one.jpg" else 0)
    if name != "packed.tif":  # which Pillow turns by itself
        assert notes == (
            [] if orientation == 1 else [f"Turned the pictures as their orientation ({orientation}) says."]
        )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pixels", [GREY, DEEP], ids=["8 bits", "16 bits"])
def test_where_zero_is_white_the_greys_are_inverted(tmp_path, packed, pixels):
    compression = "adobe_deflate" if packed else None
    tifffile.imwrite(tmp_path / "one.tif", pixels, photometric="miniswhite", compression=compression)
    frames, _ = read(tmp_path / "one.tif")
    assert np.array_equal(frames[0], 255 - GREY if pixels is GREY else scaled(~DEEP))


@pytest.mark.parametrize("layout", [{"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
def test_layouts_of_tiff_make_no_difference(tmp_path, layout):
    clip = np.stack([DEEP, DEEP // 2])
    tifffile.imwrite(tmp_path / "clip.tif", clip, photometric="minisblack", **layout)
    assert np.array_equal(read(tmp_path / "clip.tif")[0], scaled(clip))


def test_colours_in_planes_of_their_own_are_put_together(tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read(tmp_path / "one.tif")[0][0], luma(COLOUR))


def imagej_stack(path, clip, images):
    """A stack as ImageJ writes large ones: one page, whose pixels the others follow."""
    tifffile.imwrite(path, clip[0], description=f"ImageJ=1.54f\nimages={images}\nslices={images}\n", metadata=None)
    with path.open("ab") as file:
        file.write(clip[1:].tobytes())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_imagej_stack_in_one_page_is_read_whole(tmp_path, dtype):
    clip = np.random.default_rng(3).integers(0, 255, (5, 9, 7)).astype(dtype)
    imagej_stack(tmp_path / "stack.tif", clip, 5)
    assert np.array_equal(read(tmp_path / "stack.tif")[0], clip)  # 8 bits, also in a type of 16


@pytest.mark.parametrize("images", [6, 10**12])
def test_an_imagej_stack_that_is_cut_short_is_refused(tmp_path, images):
    imagej_stack(tmp_path / "stack.tif", np.zeros((5, 9, 7), np.uint8), images)
    with pytest.raises(InputError, match=r"stack\.tif"):
        load_sweep(tmp_path / "stack.tif")


@pytest.mark.parametrize("marked", [True, False])
def test_a_thumbnail_beside_the_frames_is_left_out(tmp_path, marked):
    with tifffile.TiffWriter(tmp_path / "clip.tif") as writer:
        writer.write(GREY, photometric="minisblack")
        writer.write(GREY[::4, ::4], photometric="minisblack", subfiletype=1 if marked else 0)
        writer.write(255 - GREY, photometric="minisblack")
    frames, notes = read(tmp_path / "clip.tif")
    assert np.array_equal(frames, [GREY, 255 - GREY])
    assert notes == ["Left out 1 of 3 pages, which are thumbnails or masks."]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([GREY.T], "53 x 37 and of 37 x 53"),
        ([GREY[:5, :5]] * 3, "53 x 37 and of 5 x 5"),
        ([DEEP], "Page 2 of clip.tif"),
    ],
)
def test_pages_that_are_no_thumbnails_must_be_alike(tmp_path, others, message):
    with tifffile.TiffWriter(tmp_path / "clip.tif") as writer:
        for page in [GREY, *others]:
            writer.write(page, photometric="minisblack")
    with pytest.raises(InputError, match=message):
        load_sweep(tmp_path / "clip.tif")


def clip_of_all_kinds(folder):
    Image.fromarray(GREY).save(folder / "a.png")
    Image.fromarray(GREY).save(folder / "a.bmp")
    Image.fromarray(GREY).save(folder / "a.jpg")
    tifffile.imwrite(folder / "plain.tif", np.stack([GREY] * 3), photometric="minisblack")
    tifffile.imwrite(folder / "strips.tif", GREY, rowsperstrip=4)
    tifffile.imwrite(folder / "tiles.tif", GREY, tile=(16, 16))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        Image.fromarray(GREY).save(folder / f"{compression}.tif", compression=compression)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_what_is_cut_short_is_refused_by_its_name_and_nothing_is_printed(tmp_path, part, capfd):
    for path in clip_of_all_kinds(tmp_path):
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
        with pytest.raises(InputError, match=path.name.replace(".", r"\.")):
            load_sweep(path)
        printed = capfd.readouterr()
        assert path.name == "jpeg.tif" or printed == ("", "")  # libtiff itself prints of JPEG tables


def test_pages_that_refer_to_each_other_in_a_circle_are_refused(tmp_path):
    path = tmp_path / "clip.tif"
    tifffile.imwrite(path, np.zeros((300, 2, 2), np.uint8), photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        last, first = tiff.pages.next_page_offset, tiff.pages[1].offset
    content = bytearray(path.read_bytes())
    content[last : last + 4] = struct.pack("<I", first)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"pages of clip\.tif refer to each other in a circle"):
        load_sweep(path)


@pytest.mark.parametrize("name", ["crash.bmp", "hang.tif"])
def test_hostile_images_end_with_a_sentence_and_no_signal(name):
    done = subprocess.run(
        [sys.executable, "-m", "DualTrackCore.cli", "info", str(HOSTILE / name)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert name in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["bomb.png", "bomb.tif"])
def test_a_claim_of_absurd_size_allocates_nothing(tmp_path, name):
    Image.fromarray(GREY).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    if name == "bomb.png":
        content = bytearray(content)
        content[16:24] = struct.pack(">II", 70_000, 70_000)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    else:
        with tifffile.TiffFile(tmp_path / name) as tiff:
            offsets = [tiff.pages[0].tags[key].valueoffset for key in ("ImageWidth", "ImageLength")]
        content = bytearray(content)
        for offset in offsets:
            content[offset - 6 : offset + 4] = struct.pack("<HII", 4, 1, 70_000)
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match="70000 x 70000 pixels; the limit"):
        load_sweep(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_lack_of_memory_is_not_called_damage(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "one.png")

    def without_memory(*_):
        raise MemoryError

    monkeypatch.setattr(image_file, "_pixels", without_memory)
    with pytest.raises(OutOfMemoryError, match=r"one\.png needs more memory"):
        load_sweep(tmp_path / "one.png")
