"""Hashes of methods and sweeps: equal for equal contents, different as soon as anything about them changes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.sweep import Sweep

if TYPE_CHECKING:
    from DualTrackCore.landmarks import Landmarks

#: Frames that are read at once.
_FRAMES_A_READ = 32


def fingerprint(*values: Any) -> str:
    """Hash plain values, arrays, tensors, modules and objects made of them to 32 hexadecimal digits.

    An object counts by its class and its attributes; one that has an attribute `fingerprint` (a text) by that. The
    code of a class does not count: to store results by fingerprint, add the version of the program.

    Raises InputError: a value whose content cannot be hashed, such as a function or an open file.
    """
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        _add(digest, value, ())
    return digest.hexdigest()


def sweep_fingerprint(sweep: Sweep, landmarks: Landmarks | None = None) -> str:
    """Hash all inputs of methods and metrics: every pixel, the spacing, times, poses, their origin and landmarks.

    Reads every frame once, some at a time, so that a truncated file is detected here.
    """
    frames = hashlib.blake2b(digest_size=16)
    for _, window in sweep.windows(_FRAMES_A_READ):
        frames.update(np.ascontiguousarray(window).data)
    tracked = sweep.tracked
    poses = None
    if tracked is not None:
        poses = tracked.valid, np.where(tracked.valid[:, None, None], tracked.poses, 0), tracked.origin.value
    points = None if landmarks is None else (landmarks.frames, landmarks.pixels)
    facts = (sweep.frames.shape, sweep.spacing_mm, sweep.skew_deg, sweep.timestamps_s, sweep.frame_valid)
    return fingerprint(frames.hexdigest(), facts, poses, points)


def _add(digest: Any, value: Any, above: tuple[int, ...]) -> None:
    """Add one value with a mark of its kind and its length, so that different values give different bytes."""
    if value is None or isinstance(value, bool | int | float | complex | str | Path | np.generic):
        text = f"{type(value).__name__}:{value!r}" if not isinstance(value, Path) else f"path:{value}"
        _add_bytes(digest, b"v", text.encode())
    elif isinstance(value, bytes):
        _add_bytes(digest, b"b", value)
    elif isinstance(value, np.ndarray):
        _add_bytes(digest, b"a", f"{value.dtype.str}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif id(value) in above:
        _add_bytes(digest, b"c", str(above.index(id(value))).encode())
    else:
        _add_object(digest, value, (*above, id(value)))


def _add_object(digest: Any, value: Any, above: tuple[int, ...]) -> None:
    if isinstance(value, Mapping):
        _add_bytes(digest, b"m", str(len(value)).encode())
        for key in sorted(value, key=repr):
            _add(digest, key, above)
            _add(digest, value[key], above)
    elif isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        _add_bytes(digest, b"l", str(len(items)).encode())
        for item in items:
            _add(digest, item, above)
    elif hasattr(value, "untyped_storage"):  # a tensor
        import torch

        _add_bytes(digest, b"t", f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif callable(getattr(value, "state_dict", None)):
        # The text of a module holds the order of layers, strides and numbers of heads, which its tensors do not.
        _add_bytes(digest, b"n", repr(value).encode())
        _add(digest, dict(value.state_dict()), above)
    elif type(value).__module__ == "torch":  # a device or a kind of number
        _add_bytes(digest, b"v", repr(value).encode())
    elif isinstance(text := getattr(value, "fingerprint", None), str):
        _add_bytes(digest, b"f", f"{_class_name(value)}:{text}".encode())
    elif hasattr(value, "__dict__") and not callable(value) and not hasattr(value, "fileno"):
        _add_bytes(digest, b"o", _class_name(value).encode())
        _add(digest, vars(value), above)
    else:
        raise InputError(
            f"The content of a {_class_name(value)} cannot be hashed; give the method an attribute "
            "`fingerprint`, a text that changes whenever its results may change."
        )


def _add_bytes(digest: Any, kind: bytes, content: bytes) -> None:
    digest.update(kind + len(content).to_bytes(8, "little") + content)


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
