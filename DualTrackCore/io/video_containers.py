"""Video containers: identified by their first bytes, and their stated length."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

#: First bytes of a file that identify its container.
HEAD_BYTES = 4096

#: First bytes of a file, and FFmpeg's demuxer for it. None of these opens other files.
_SIGNATURES = (
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"FLV\x01", "flv"),
    (b"OggS", "ogg"),
    (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "asf"),
    (bytes.fromhex("060e2b34020501010d0102"), "mxf"),
    (bytes.fromhex("1f07003f"), "dv"),
    (bytes.fromhex("1f0700bf"), "dv"),
    (bytes.fromhex("b7d800203749da11a64e0007e95ead8d"), "wtv"),
    (b".RMF", "rm"),
    (b"DKIF", "ivf"),
    (b"nut/multimedia container", "nut"),
    (b"YUV4MPEG2 ", "yuv4mpegpipe"),
    (bytes.fromhex("000001b0"), "m4v"),
    (bytes.fromhex("0000010000000120"), "m4v"),
    (bytes.fromhex("12000a"), "obu"),
)

#: Demuxers of raw streams without times; FFmpeg invents 25 Hz.
TIMELESS = ("mjpeg", "h264", "hevc", "m4v", "obu")

#: First atoms of QuickTime and MPEG-4 files.
_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")

#: Brands of photos (HEIF) in files with such atoms.
_PHOTOS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif")

#: A PNG file with several pictures has the chunk acTL before the first one.
_PNG, _ANIMATED, _FIRST_PICTURE = b"\x89PNG\r\n\x1a\n", b"acTL", b"IDAT"

#: Identifiers of the first elements of a Matroska file.
_EBML, _EBML_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"

#: Sync byte of a transport stream, and (its offset, size of a packet): with or without four bytes of time.
_TS_SYNC, _TS_PACKETS = b"\x47", ((0, 188), (4, 192))

#: Start codes of raw streams, and possible first units: parameters or a delimiter.
_START_CODES = (b"\x00\x00\x00\x01", b"\x00\x00\x01")
_H264_UNITS, _HEVC_UNITS = (7, 9), (32, 35)

#: The end of a JPEG picture with the start of the next one; the start; the mark of several pictures in one photo.
_NEXT_JPEG, _JPEG, _SEVERAL_IN_ONE = b"\xff\xd9\xff\xd8\xff", b"\xff\xd8\xff", b"MPF\x00"
_SEARCHED_BYTES = 1 << 26


def demuxer(path: Path, head: bytes) -> str | None:
    """The demuxer for a file, from its first bytes (:data:`HEAD_BYTES` or more); None if it is no video.

    With a named demuxer, FFmpeg does not try playlist formats, which open other files.
    """
    if head[4:8] in _ATOMS:
        return None if head[4:8] == b"ftyp" and head[8:12] in _PHOTOS else "mov"
    if head.startswith(_PNG):
        return "apng" if _ANIMATED in head.split(_FIRST_PICTURE)[0] else None
    if _is_avi(head):
        return "avi"
    if head[:4] == _EBML:
        return "matroska"
    if head.startswith(_JPEG):
        return "mjpeg" if _holds_several_jpegs(path, head) else None
    named = next((name for signature, name in _SIGNATURES if head.startswith(signature)), None)
    return named or _raw_stream(head)


def _raw_stream(head: bytes) -> str | None:
    for start, step in _TS_PACKETS:
        if head[start : start + 4 * step : step] == _TS_SYNC * 4:
            return "mpegts"
    code = next((code for code in _START_CODES if head.startswith(code)), b"")
    if not code or len(head) == len(code) or head[len(code)] & 0x80:
        return None
    unit = head[len(code)]
    if unit & 0x1F in _H264_UNITS:
        return "h264"
    return "hevc" if unit >> 1 in _HEVC_UNITS else None


def _is_avi(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def _holds_several_jpegs(path: Path, head: bytes) -> bool:
    """Whether a JPEG file is a stream of several pictures."""
    if _SEVERAL_IN_ONE in head:
        return False
    with path.open("rb") as file:
        return _NEXT_JPEG in file.read(_SEARCHED_BYTES)


def declared_bytes(head: bytes) -> int:
    """The stated length of the file, bytes; 0 if not stated. FFmpeg ignores missing bytes of these formats."""
    if _is_avi(head):
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != _EBML:
        return 0
    length, start = _ebml_size(head, len(_EBML))
    segment = start + (length or 0)
    if length is None or head[segment : segment + 4] != _EBML_SEGMENT:
        return 0
    length, start = _ebml_size(head, segment + 4)
    return 0 if length is None else start + length


def goes_on(file: BinaryIO, declared: int) -> bool:
    """Whether an AVI file has another part after the first one, as long ones do."""
    file.seek(declared + declared % 2)
    following = file.read(12)
    return following[:4] == b"RIFF" and following[8:] == b"AVIX"


def _ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """A size in the variable-length code of EBML (RFC 8794), None if unknown (live streams); and the byte after it."""
    if at >= len(head) or head[at] == 0:
        return None, at
    width = 9 - head[at].bit_length()
    mask = (1 << 7 * width) - 1
    value = int.from_bytes(head[at : at + width], "big") & mask
    return None if value == mask else value, at + width
