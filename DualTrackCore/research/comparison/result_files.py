"""The result of one method on one sweep as one small JSON file; a long evaluation resumes from these files.

A file is named by a hash of all that its result depends on: equal for equal contents, different as soon as anything
about the method or the sweep changes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DualTrackCore import __version__
from DualTrackCore.errors import InputError
from DualTrackCore.evaluation.definitions import PooledCorrelation
from DualTrackCore.files import plain_values, replacing
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

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


#: Increase when the content or meaning of an item changes: items of another format are computed again.
FORMAT = 4


@dataclass(frozen=True, eq=False)
class Item:
    """One method on one sweep.

    Attributes:
        key: see :func:`item_key`.
        method, uses: of the method.
        sweep: name of the sweep.
        frames, frames_used: of the sweep, and how many of them are valid in both trajectories.
        metrics: as :func:`~DualTrackCore.evaluation.evaluate` names them.
        seconds: of the estimate alone.
        peak_mebibytes: of the process meanwhile; NaN where unknown.
        parameter_count: learned parameters; None where unknown.
        path_mm: [N] length of the true path up to each frame; NaN where its pose is invalid.
        error_mm: [N] mean error over all pixels with the pose of each frame; NaN where it does not count.
        poses: [N, 6] estimated poses (mm, degrees) in the estimate's own frame0; NaN where invalid.
        steps: moments of estimated and true steps.
        truth: where the true poses are from, text of a :class:`~DualTrackCore.trajectory.PoseOrigin`.
        is_guess: whether the model never saw such sweeps.
        trust: what an estimate of a model is good for, :attr:`~DualTrackCore.path_error.Trust.text`; empty for others.
        warnings: sentences of the estimate.
    """

    key: str
    method: str
    uses: str
    sweep: str
    frames: int
    frames_used: int
    metrics: Mapping[str, float]
    seconds: float
    peak_mebibytes: float
    parameter_count: int | None
    path_mm: np.ndarray
    error_mm: np.ndarray
    poses: np.ndarray
    steps: PooledCorrelation
    truth: str
    is_guess: bool
    trust: str
    warnings: Sequence[str] = ()

    @property
    def seconds_per_frame(self) -> float:
        """Time of the estimate over the number of frames."""
        return self.seconds / self.frames

    def trajectory(self) -> Trajectory:
        """Return the estimate, to the six stored digits."""
        valid = np.isfinite(self.poses).all(axis=1)
        return Trajectory(
            matrices_from_parameters(np.nan_to_num(self.poses)), valid, provenance={"method": self.method}
        )


def item_key(method: str, method_fingerprint: str, sweep: str, sweep_fingerprint: str, tus_rec_pixels: bool) -> str:
    """Hash of the inputs of an item: method with weights, sweep with landmarks, pixel grid, version of the program."""
    return fingerprint(FORMAT, __version__, method, method_fingerprint, sweep, sweep_fingerprint, tus_rec_pixels)


def save_item(folder: Path, item: Item) -> None:
    """Write an item atomically into a folder, made if need be; raise OutputError where that is impossible."""
    method, sweep = (re.sub(r"[^A-Za-z0-9]+", "_", name)[-40:].strip("_") for name in (item.method, item.sweep))
    values = {
        name: np.round(value, 6) if isinstance(value, np.ndarray) else value for name, value in vars(item).items()
    }
    text = json.dumps(plain_values({"format": FORMAT, **values}), allow_nan=False)
    with replacing(folder / f"{method}-{sweep}-{item.key}.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def item_files(folder: Path) -> dict[str, Path]:
    """The file of every item in a folder by its key; names of half-written files begin with a dot."""
    files = [path for path in sorted(folder.glob("*-*.json")) if not path.name.startswith(".")]
    return {path.stem.rpartition("-")[2]: path for path in files}


def read_item(path: Path) -> Item | None:
    """The item in a file; None where it is damaged or of another format."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            return None
        for name in ("path_mm", "error_mm", "poses"):
            values[name] = np.array(values[name], dtype=np.float64)
        values["poses"] = values["poses"].reshape(-1, 6)
        values["steps"] = PooledCorrelation(**values["steps"])
        values["metrics"] = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
        if values["peak_mebibytes"] is None:
            values["peak_mebibytes"] = math.nan
        return Item(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
