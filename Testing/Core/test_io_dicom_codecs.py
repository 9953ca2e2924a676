"""Compressed DICOM clips: every transfer syntax, labels that lie about colour, damage, missing packages."""

import random
import sys
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from dicom_files import coded, in_colour, lossless_jpeg, packed, speckle, with_component_names, without_marks
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from test_io_dicom import load, make, noise

from DualTrackCore.errors import InputError, MissingDependencyError, OutputError
from DualTrackCore.io import load_sweep
from DualTrackCore.memory import held_memory_bytes, memory_limit
from DualTrackCore.pixels import Spool

pytest.importorskip("jpeg_ls", reason="compressed DICOM needs the extra `dicom`")

FULL_PROGRESSION = "1.2.840.10008.1.2.4.55"

#: 8 x 8 pixels, (37 i) mod 256 row by row, as an encoder for high-throughput JPEG 2000 (OpenJPH) writes them.
HIGH_THROUGHPUT = bytes.fromhex(
    "ff4fff510029400000000008000000080000000000000000000000080000000800000000000000000001070101ff500008000200000002ff52"
    "000c00020001000504044001ff5c00132048505050505050505050505050484848ff64001700014f70656e4a50482056657220302e32362e33"
    "2eff90000a00000000008a0001ff93c025f900c774000000c012c012c01300dc00877400f8008774005bfe02077400c01510054c015025501d"
    "7000629400251ea0fcfe006194001d8e8f0f00c73400c02d2805a500b4009eef5f0da2f7fd7b3cc8da02c96188efd7009ef7ff7a7c5ffe38f2"
    "9cd701828be4a7d7007e7efdf8fbf5e7e70c67d708400fd800ffd9"
)


def notes_of(sweep):
    return sweep.provenance["conversions"]


def grey_of(colour):
    return (colour.astype(int) @ [299, 587, 114] + 500) // 1000


def jpeg_ls(image, bits=8, interleave=0, loss=0):
    from jpeg_ls import encode_buffer

    data = np.moveaxis(image, -1, 0).tobytes() if image.ndim == 3 and interleave == 0 else image.tobytes()
    channels = 3 if image.ndim == 3 else 1
    return bytes(encode_buffer(data, *image.shape[:2], channels, bits, lossy_error=loss, interleave_mode=interleave))


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("is_colour", [False, True])
def test_lossless_jpeg_of_every_predictor_is_exact(tmp_path, predictor, is_colour):
    pixels = in_colour(speckle(2)) if is_colour else speckle(2)
    syntax = JPEGLosslessSV1 if predictor == 1 else JPEGLossless
    streams = [lossless_jpeg(image, predictor) for image in pixels]
    sweep = load(packed(tmp_path / "a.dcm", pixels, streams, syntax, "RGB" if is_colour else "MONOCHROME2"))
    np.testing.assert_array_equal(sweep.frames, grey_of(pixels) if is_colour else pixels)


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("kind", ["lossless JPEG", "JPEG-LS"])
def test_deep_lossless_frames_are_scaled_by_their_stored_bits(tmp_path, bits, kind):
    pixels = noise(2, 9, 12, dtype=np.uint16) >> (16 - bits)
    if kind == "JPEG-LS":
        streams, syntax = [jpeg_ls(image, bits) for image in pixels], JPEGLSLossless
    else:
        streams, syntax = [lossless_jpeg(image, 6, bits) for image in pixels], JPEGLossless
    sweep = load(packed(tmp_path / "a.dcm", pixels, streams, syntax, BitsStored=bits, HighBit=bits - 1))
    np.testing.assert_array_equal(np.asarray(sweep.frames), np.rint(pixels / (2**bits - 1) * 255).astype(np.uint8))


COLOUR_CODERS = {
    "RLE": (RLELossless, None),
    "JPEG": (JPEGBaseline8Bit, lambda image: coded(image, quality=97)),
    "lossless JPEG": (JPEGLosslessSV1, lossless_jpeg),
    "JPEG-LS": (JPEGLSLossless, lambda image: jpeg_ls(image, interleave=1)),
    "JPEG 2000": (JPEG2000Lossless, lambda image: coded(image, "JPEG2000", no_jp2=True)),
}


@pytest.mark.parametrize("planes", [0, 1])
@pytest.mark.parametrize("kind", COLOUR_CODERS)
def test_compressed_colours_do_not_depend_on_what_the_file_says_of_planes(tmp_path, kind, planes):
    pixels, (syntax, code) = in_colour(speckle(2)), COLOUR_CODERS[kind]
    if code is None:
        path = make(tmp_path / "a.dcm", pixels, "RGB", syntax=syntax)
        dataset = pydicom.dcmread(path)
        dataset.PlanarConfiguration = planes
        dataset.save_as(path)
    else:
        label = "YBR_FULL_422" if kind == "JPEG" else "RGB"
        path = packed(tmp_path / "a.dcm", pixels, list(map(code, pixels)), syntax, label, PlanarConfiguration=planes)
    difference = np.abs(np.asarray(load(path).frames).astype(int) - grey_of(pixels))
    assert difference.max() <= (10 if kind == "JPEG" else 0)


@pytest.mark.parametrize("interleave", [0, 1, 2])
def test_jpeg_ls_is_exact_however_its_colours_are_interleaved(tmp_path, interleave):
    pixels = in_colour(speckle(2))
    streams = [jpeg_ls(image, interleave=interleave) for image in pixels]
    sweep = load(packed(tmp_path / "a.dcm", pixels, streams, JPEGLSLossless, "RGB"))
    np.testing.assert_array_equal(sweep.frames, grey_of(pixels))
    # CharLS never returns from some of these.
    with pytest.raises(InputError, match=r"a\.dcm cannot be unpacked, they are damaged \(a frame has no end\)"):
        load(packed(tmp_path / "a.dcm", pixels, [stream[:700] for stream in streams], JPEGLSLossless, "RGB"))


def test_jpeg_ls_with_losses_stays_within_them(tmp_path):
    pixels = speckle(2)
    streams = [jpeg_ls(image, loss=3) for image in pixels]
    sweep = load(packed(tmp_path / "a.dcm", pixels, streams, JPEGLSNearLossless))
    assert np.abs(np.asarray(sweep.frames).astype(int) - pixels).max() == 3


def test_jpeg_2000_is_read_with_and_without_losses(tmp_path):
    pixels = speckle(2)
    streams = [coded(image, "JPEG2000", no_jp2=True) for image in pixels]
    np.testing.assert_array_equal(load(packed(tmp_path / "a.dcm", pixels, streams, JPEG2000Lossless)).frames, pixels)
    colour = in_colour(pixels)
    streams = [coded(image, "JPEG2000", no_jp2=True, mct=1) for image in colour]
    exact = load(packed(tmp_path / "b.dcm", colour, streams, JPEG2000Lossless, "YBR_RCT"))
    np.testing.assert_array_equal(exact.frames, grey_of(colour))
    options = {"irreversible": True, "quality_mode": "dB", "quality_layers": [45], "no_jp2": True}
    streams = [coded(image, "JPEG2000", **options) for image in pixels]
    lossy = load(packed(tmp_path / "c.dcm", pixels, streams, JPEG2000))
    assert 0 < np.abs(np.asarray(lossy.frames).astype(int) - pixels).mean() < 3


def test_high_throughput_jpeg_2000_is_exact(tmp_path):
    pixels = np.broadcast_to((np.arange(64) * 37 % 256).astype(np.uint8).reshape(8, 8), (2, 8, 8))
    sweep = load(packed(tmp_path / "a.dcm", pixels, [HIGH_THROUGHPUT] * 2, HTJ2KLossless))
    np.testing.assert_array_equal(sweep.frames, pixels)


@pytest.mark.parametrize("syntax", [JPEGExtended12Bit, FULL_PROGRESSION])
def test_jpeg_of_other_processes_of_8_bits_is_read(tmp_path, syntax):
    pixels = speckle(2)
    streams = [coded(image, quality=95, progressive=syntax == FULL_PROGRESSION) for image in pixels]
    sweep = load(packed(tmp_path / "a.dcm", pixels, streams, syntax))
    assert np.abs(np.asarray(sweep.frames).astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("fragments", [1, 2])
@pytest.mark.parametrize("has_bot", [False, True])
def test_frames_in_fragments_are_put_together_with_and_without_a_table_of_offsets(tmp_path, fragments, has_bot):
    pixels = speckle(3)
    streams = [coded(image, quality=95) for image in pixels]
    path = packed(tmp_path / "a.dcm", pixels, streams, JPEGBaseline8Bit, has_bot=has_bot, fragments=fragments)
    assert np.abs(np.asarray(load(path).frames).astype(int) - pixels).mean() < 3


def marked(jpeg, transform):
    """A JPEG picture with the Adobe mark of this transform and no other."""
    return b"\xff\xd8\xff\xee\x00\x0eAdobe\x00d\0\0\0\0" + bytes([transform]) + without_marks(jpeg)[2:]


def stored_rgb(image):
    return coded(image, quality=95, subsampling=0, keep_rgb=True)


COLOUR_FORMS = {
    "YBR, JFIF": lambda image: coded(image, quality=95),
    "YBR, JFIF, not subsampled": lambda image: coded(image, quality=95, subsampling=0),
    "YBR, no mark": lambda image: without_marks(coded(image, quality=95)),
    "YBR, no mark, not subsampled": lambda image: without_marks(coded(image, quality=95, subsampling=0)),
    "YBR, Adobe": lambda image: marked(coded(image, quality=95), 1),
    "RGB, Adobe": stored_rgb,
    "RGB, named components": lambda image: without_marks(stored_rgb(image)),
    "RGB, no mark": lambda image: with_component_names(without_marks(stored_rgb(image)), (1, 2, 3)),
}


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL_422", "YBR_FULL"])
@pytest.mark.parametrize("form", COLOUR_FORMS)
def test_the_codestream_says_what_its_colours_are_and_not_the_label(tmp_path, recwarn, form, label):
    pixels = in_colour(speckle(2))
    path = packed(tmp_path / "a.dcm", pixels, list(map(COLOUR_FORMS[form], pixels)), JPEGBaseline8Bit, label)
    sweep = load(path)
    assert np.abs(np.asarray(sweep.frames).astype(int) - grey_of(pixels)).mean() < 3
    lies = form[:3] != label[:3]
    assert any("labelled" in note for note in notes_of(sweep)) == lies
    assert not recwarn.list  # what pydicom warns of is no sentence for users


@pytest.mark.parametrize("label", ["RGB", "YBR_FULL"])
def test_other_colours_are_taken_as_their_values_speak_where_the_label_is_plainly_wrong(tmp_path, label):
    pixels = in_colour(speckle(2))
    stored = pydicom.pixels.processing.convert_color_space(pixels, "RGB", "YBR_FULL") if label == "RGB" else pixels
    sweep = load(make(tmp_path / "a.dcm", stored, label))
    assert np.abs(np.asarray(sweep.frames).astype(int) - grey_of(pixels)).max() <= 2
    sweep = load(make(tmp_path / "b.dcm", noise(2, 6, 5, 3), label))  # colours of all kinds: the label counts
    assert not any("labelled" in note for note in notes_of(sweep))


@pytest.mark.parametrize(
    ("module", "syntax", "streams"),
    [
        ("av", JPEGLossless, lambda x: lossless_jpeg(x)),
        ("jpeg_ls", JPEGLSLossless, lambda x: b"\xff\xd8"),
        ("openjpeg", HTJ2KLossless, lambda x: HIGH_THROUGHPUT),
    ],
)
def test_without_the_extra_one_sentence_names_it(tmp_path, monkeypatch, module, syntax, streams):
    pixels = speckle(1)
    path = packed(tmp_path / "a.dcm", pixels, [streams(pixels[0])], syntax)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"^a\.dcm is compressed as .*pip install \"dualtrack\[dicom\]\"$"):
        load(path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.65", "1.2.3"])
def test_a_compression_that_is_not_read_is_named(tmp_path, syntax):
    with pytest.raises(InputError, match=r"a\.dcm is compressed as .*, which cannot be unpacked here; store it"):
        load(packed(tmp_path / "a.dcm", speckle(1), [b"\0\0"], syntax))


def test_jpeg_of_12_bits_with_losses_is_named(tmp_path):
    stream = coded(speckle(1)[0]).replace(b"\xff\xc0\x00\x0b\x08", b"\xff\xc1\x00\x0b\x0c")
    with pytest.raises(InputError, match=r"a\.dcm is JPEG of 12 bits with losses, which is not read; store it unc"):
        load(packed(tmp_path / "a.dcm", speckle(1), [stream], JPEGExtended12Bit))


DAMAGED = {
    "RLE": (RLELossless, None),
    "JPEG": (JPEGBaseline8Bit, coded),
    "lossless JPEG": (JPEGLossless, lossless_jpeg),
    "JPEG-LS": (JPEGLSLossless, jpeg_ls),
    "JPEG 2000": (JPEG2000Lossless, lambda image: coded(image, "JPEG2000", no_jp2=True)),
    "high-throughput": (HTJ2KLossless, lambda image: HIGH_THROUGHPUT),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_frames_end_in_one_sentence_and_never_the_process(tmp_path, kind):
    syntax, encode = DAMAGED[kind]
    pixels = speckle(2, 8, 8) if kind == "high-throughput" else speckle(2)
    path = tmp_path / "a.dcm"
    if encode is None:
        make(path, pixels, syntax=syntax)
    else:
        packed(path, pixels, list(map(encode, pixels)), syntax)
    good, rolls = path.read_bytes(), random.Random(1)
    start = good.find(b"\xe0\x7f\x10\x00") + 30
    sentences = []
    for _ in range(20):
        bad = bytearray(good)
        for _ in range(rolls.choice([1, 3, 20])):
            bad[rolls.randrange(start, len(bad) - 10)] = rolls.choice([0, 255, rolls.randrange(256)])
        path.write_bytes(bad)
        try:
            load(path)
        except InputError as error:
            sentences.append(str(error))
    assert sentences
    assert all("a.dcm" in sentence and "\n" not in sentence for sentence in sentences)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGED if kind != "RLE"])
def test_a_picture_of_another_size_is_refused_before_it_is_unpacked(tmp_path, kind):
    syntax, encode = DAMAGED[kind]
    with pytest.raises(InputError, match=r"a\.dcm announces frames of 9 x 7 pixels and holds one of \d+ x \d+"):
        load(packed(tmp_path / "a.dcm", speckle(1, 7, 9), [encode(speckle(1)[0])], syntax))


def test_more_compressed_frames_than_announced_are_left_out_with_a_note(tmp_path):
    pixels = speckle(4)
    streams = [coded(image, quality=95) for image in pixels]
    sweep = load(packed(tmp_path / "a.dcm", pixels[:3], streams, JPEGBaseline8Bit, has_bot=False))
    assert len(sweep) == 3
    assert "The file announces 3 frames and holds 4; left out the last 1." in notes_of(sweep)


# Uncompressed pixels, and files as a whole.


def test_subsampled_colour_of_several_frames_is_read(tmp_path):
    grey = speckle(3)
    ybr = pydicom.pixels.processing.convert_color_space(in_colour(grey), "RGB", "YBR_FULL")
    ybr[:, :, 1::2, 1:] = ybr[:, :, ::2, 1:]
    pairs = [ybr[:, :, 0::2, 0], ybr[:, :, 1::2, 0], ybr[:, :, ::2, 1], ybr[:, :, ::2, 2]]
    path = make(tmp_path / "a.dcm", ybr, "YBR_FULL_422", PixelData=np.stack(pairs, -1).tobytes())
    expected = grey_of(pydicom.pixels.processing.convert_color_space(ybr, "YBR_FULL", "RGB"))
    np.testing.assert_array_equal(load(path).frames, expected)


def test_colour_that_is_labelled_as_subsampled_and_is_not_is_read_as_it_is(tmp_path):
    ybr = pydicom.pixels.processing.convert_color_space(in_colour(speckle(3)), "RGB", "YBR_FULL")
    sweep = load(make(tmp_path / "a.dcm", ybr, "YBR_FULL_422"))
    np.testing.assert_array_equal(sweep.frames, load(make(tmp_path / "b.dcm", ybr, "YBR_FULL")).frames)
    assert "The colours are labelled YBR_FULL_422 and not subsampled; took them as they are." in notes_of(sweep)


@pytest.mark.parametrize("has_meta", [False, True])
@pytest.mark.parametrize("is_implicit", [False, True])
def test_a_file_without_preamble_is_read(tmp_path, has_meta, is_implicit):
    pixels = speckle(2)
    dataset = pydicom.dcmread(make(tmp_path / "a.dcm", pixels, FrameTime=40))
    syntax = ImplicitVRLittleEndian if is_implicit else dataset.file_meta.TransferSyntaxUID
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(tmp_path / "a.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    start = 132 if has_meta else data.find(b"\x08\0\x16\0")
    (tmp_path / "clip").write_bytes(data[start:])
    sweep = load_sweep(tmp_path / "clip")
    np.testing.assert_array_equal(sweep.frames, pixels)
    assert sweep.frame_rate_hz == pytest.approx(25)


def test_big_endian_pixels_are_read(tmp_path):
    pixels = noise(2, 6, 5, dtype=np.uint16)
    path = make(tmp_path / "a.dcm", pixels)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = pixels.byteswap().tobytes()
    dataset["PixelData"].VR = "OW"
    pydicom.dcmwrite(path, dataset, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(load(path).frames, np.rint(pixels / 65535 * 255).astype(np.uint8))


def test_a_deflated_file_is_inflated_as_far_as_its_pixels_go(tmp_path):
    pixels = speckle(3)
    path = make(tmp_path / "a.dcm", pixels, syntax=DeflatedExplicitVRLittleEndian, FrameTime=40)
    sweep = load(path)
    np.testing.assert_array_equal(sweep.frames, pixels)
    assert sweep.frame_rate_hz == pytest.approx(25)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.dcm is cut short: \d+ of \d+ bytes are there"):
        load(path)


def test_a_deflated_file_that_claims_more_than_it_can_hold_or_than_there_is_room_for_is_refused(tmp_path, monkeypatch):
    path = make(tmp_path / "a.dcm", speckle(1, 6, 10), syntax=DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    body = 144 + int.from_bytes(data[140:144], "little")
    plain = zlib.decompress(data[body:], wbits=-15)
    length = plain.rfind(b"\xe0\x7f\x10\0") + 8
    assert int.from_bytes(plain[length : length + 4], "little") == 60
    pack = zlib.compressobj(wbits=-15)
    lie = plain[:length] + (0xF0000000).to_bytes(4, "little") + plain[length + 4 :]
    path.write_bytes(data[:body] + pack.compress(lie) + pack.flush())
    with pytest.raises(InputError, match=r"a\.dcm claims 4026531840 bytes of pixels in \d+ deflated ones"):
        load(path)

    def full(spool, count):
        raise OutputError("no room")

    monkeypatch.setattr(Spool, "require_room", full)
    with pytest.raises(OutputError, match="no room"):
        load(make(tmp_path / "b.dcm", speckle(1), syntax=DeflatedExplicitVRLittleEndian))


def test_a_deflated_file_of_many_zeros_is_inflated_within_the_budget(tmp_path):
    pixels = np.zeros((40, 1000, 1000), np.uint8)
    pixels[:, 0, 0] = 1
    path = make(tmp_path / "a.dcm", pixels, syntax=DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < pixels.size / 500
    load(make(tmp_path / "b.dcm", speckle(1), syntax=DeflatedExplicitVRLittleEndian))
    with memory_limit(held_memory_bytes() / 1e9 + 0.05):
        tracemalloc.start()
        try:
            assert len(load(path)) == 40
            assert tracemalloc.get_traced_memory()[1] < 48 << 20
        finally:
            tracemalloc.stop()


def test_a_sequence_of_encapsulated_frames_needs_its_transfer_syntax(tmp_path):
    path = make(tmp_path / "a.dcm", speckle(1))
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([coded(speckle(1)[0])])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(path)
    data = path.read_bytes()
    path.write_bytes(data[data.find(b"\x08\0\x16\0") :])
    with pytest.raises(InputError, match=r"a\.dcm does not say how its pixels are encoded"):
        load(path)
