"""What a run is asked for and what it gives: plain data that crosses from one process to another."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.reconstruction.area import Fan
from DualTrackCore.reconstruction.builder import COMPOUNDINGS, INTERPOLATIONS
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.reconstruction.holes import METHODS
from DualTrackCore.trajectory import Trajectory

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
POSES = ("estimate", "tracked")
FANS = ("none", "auto")
HOLE_FILLINGS = ("none", *METHODS)
VIEW_COUNTS = (1, 2, 4)


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run is asked for, checked when it is made.

    Attributes:
        model: name of an installed model, or a weights file.
        card: model card (JSON file) of a weights file that has none, or None.
        device: "auto", "cpu", "cuda", "cuda:0", ..., "mps".
        precision: "auto", "fp32", "bf16" or "fp16".
        chunk_frames: frames through the network at a time, or "auto".
        views: how often the network runs, on the sweep as it is, mirrored and backwards, for the mean of the motions:
            1, 2 or 4; see :func:`~DualTrackCore.tracking.estimate_trajectory`. Estimated poses only.
        poses: "estimate" them from the images, or take those that the sweep was "tracked" with.
        reconstruct: whether a volume is wanted.
        first_frame, last_frame: the frames of the sweep that are used, counted from 0, both included; None is the last.
        clip: (x, y, width, height) in pixels: what the volume is made of; None is the whole frame.
        fan: the sector of a curvilinear probe as a :class:`~DualTrackCore.reconstruction.Fan` (or a mapping of its
            fields, as JSON has it); "auto" finds the image area, "none" does not look for one.
        voxel_mm: side of a voxel, mm; None lets the sweep decide.
        interpolation, compounding, hole_filling: as in :func:`~DualTrackCore.reconstruction.reconstruct_volume`.

    Raises:
        InputError: a value of the wrong kind or out of range.
    """

    model: str = "mini"
    card: str | None = None
    device: str = "auto"
    precision: str = "auto"
    chunk_frames: int | str = "auto"
    views: int = 1
    poses: str = "estimate"
    reconstruct: bool = True
    first_frame: int = 0
    last_frame: int | None = None
    clip: tuple[int, int, int, int] | None = None
    fan: str | Fan = "none"
    voxel_mm: float | None = None
    interpolation: str = "linear"
    compounding: str = "mean"
    hole_filling: str = "stick"

    def __post_init__(self) -> None:
        _require(isinstance(self.model, str) and self.model != "", "model", self.model, "a name or a file")
        _require(self.card is None or isinstance(self.card, str), "card", self.card, "a file or None")
        _require(isinstance(self.device, str) and self.device != "", "device", self.device, "a device's name")
        _require(
            self.chunk_frames == "auto" or _whole(self.chunk_frames, 1),
            "chunk_frames",
            self.chunk_frames,
            "'auto' or a whole number of at least 1",
        )
        _require(
            _whole(self.views, 1) and self.views in VIEW_COUNTS,
            "views",
            self.views,
            f"one of {', '.join(map(str, VIEW_COUNTS))}",
        )
        for name in ("reconstruct",):
            value = getattr(self, name)
            _require(isinstance(value, bool), name, value, "true or false")
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            _require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")
        self._check_frames()
        self._check_volume()

    def _check_frames(self) -> None:
        _require(_whole(self.first_frame, 0), "first_frame", self.first_frame, "a whole number of at least 0")
        _require(
            self.last_frame is None or _whole(self.last_frame, self.first_frame),
            "last_frame",
            self.last_frame,
            f"None or a whole number of at least {self.first_frame}, the first frame",
        )

    def _check_volume(self) -> None:
        if self.clip is not None:
            clip = self.clip if isinstance(self.clip, list | tuple) else ()
            fits = len(clip) == 4 and all(_whole(value, least) for value, least in zip(clip, (0, 0, 1, 1), strict=True))
            _require(fits, "clip", self.clip, "x, y, width, height in whole pixels, the sizes at least 1")
            object.__setattr__(self, "clip", tuple(int(value) for value in clip))
        if isinstance(self.fan, Mapping):
            object.__setattr__(self, "fan", _fan(self.fan))
        fits = isinstance(self.fan, Fan) or (isinstance(self.fan, str) and self.fan in FANS)
        _require(fits, "fan", self.fan, f"a fan or one of {', '.join(FANS)}")
        if self.voxel_mm is not None:
            number = isinstance(self.voxel_mm, int | float) and not isinstance(self.voxel_mm, bool)
            fits = number and math.isfinite(self.voxel_mm) and self.voxel_mm > 0
            _require(fits, "voxel_mm", self.voxel_mm, "None or a number of mm above 0")

    def frame_range(self, frames: int) -> tuple[int, int]:
        """(start, stop) of the frames used in a sweep of so many, as a Python slice counts.

        Raises:
            InputError: the range reaches beyond the sweep.
        """
        last = frames - 1 if self.last_frame is None else self.last_frame
        if max(self.first_frame, last) >= frames:
            raise InputError(
                f"The frames {self.first_frame} to {last} are not all in the sweep, "
                f"which has the frames 0 to {frames - 1}; choose a smaller range."
            )
        return self.first_frame, last + 1

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return plain_values(asdict(self))

    @classmethod
    def from_dict(cls, values: object) -> RunSettings:
        """Settings from :meth:`as_dict`; what is missing has its default.

        Raises:
            InputError: no mapping, a key that no setting has, or a value that cannot be used.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"Settings are {type(values).__name__}; expected names with values.")
        known = [field.name for field in fields(cls)]
        if unknown := [str(key) for key in values if key not in known]:
            raise InputError(f"There is no setting {', '.join(unknown)}; settings are {', '.join(known)}.")
        return cls(**values)

    def to_json(self) -> str:
        """The settings as one line of JSON."""
        return json.dumps(self.as_dict(), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunSettings:
        """Settings from :meth:`to_json`.

        Raises:
            InputError: not JSON, or as for :meth:`from_dict`.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"The settings are not readable JSON: {error}.") from None
        return cls.from_dict(values)


_CHOICES = {
    "precision": PRECISIONS,
    "poses": POSES,
    "interpolation": INTERPOLATIONS,
    "compounding": COMPOUNDINGS,
    "hole_filling": HOLE_FILLINGS,
}


@dataclass(frozen=True, eq=False)
class JobResult:
    """What a run gives.

    Attributes:
        trajectory: frame0_from_image of the frames used, mm; frame0 is the first of them (the first valid one of
            tracked poses).
        first_frame: index in the sweep of the first frame used.
        volume: [nz, ny, nx] uint8 grey values, or None where no volume was wanted.
        coverage: [nz, ny, nx] float32, how much was seen, 0 is unseen; None without a volume.
        grid: where the voxels lie; None without a volume.
        evaluation: `Evaluation.as_dict()` against the tracking; None where there is none to measure by.
        warnings: sentences for the user.
        provenance: plain values. "settings" is `RunSettings.as_dict()`; "dualtrack_version" and "created" speak for
            themselves; "sweep" has the frames used, their size, spacing_mm and source; "trajectory" is the provenance
            of the poses (model, weights_sha256, device, precision, chunk_frames, ...) with path_length_mm, frames and
            valid_frames; "volume" has size, spacing_mm, origin_mm, description, covered_fraction, filled_fraction,
            frames_used, frames_skipped and settings, or is None.
        seconds: how long the parts took: "model", "trajectory", "volume", "evaluation", "total", and
            from a worker process also "sending" and "waiting" (start of the process, of the work before this).
    """

    trajectory: Trajectory
    first_frame: int
    volume: np.ndarray | None
    coverage: np.ndarray | None
    grid: VoxelGrid | None
    evaluation: dict[str, Any] | None
    warnings: list[str]
    provenance: dict[str, Any]
    seconds: dict[str, float]


class JobFailed(DualTrackError):
    """A run that ended without a result; `str()` is one sentence.

    Attributes:
        kind: what to offer next: "input" (settings or sweep), "memory" (smaller chunk, CPU, coarser voxels), "disk",
            "missing" (a package), "start" (the process did not start), "version" (of another DualTrack), "crash" (the
            process ended or said something unreadable), "fault" (an error in the program).
        log_path: log of the process; it is deleted when the client stops.
        details: the end of the log or the traceback, to be copied into a report.
    """

    def __init__(self, message: str, log_path: Path, details: str = "", kind: str = "fault") -> None:
        super().__init__(message)
        self.log_path = Path(log_path)
        self.details = details
        self.kind = kind


def plain_values(value: Any) -> Any:
    """The same with nothing but what JSON knows: lists for arrays and tuples, None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_values(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _fan(values: Mapping[str, Any]) -> Fan:
    """A fan from its fields.

    Raises:
        InputError: a field is missing, unknown or unusable.
    """
    known = [field.name for field in fields(Fan)]
    needed = [field.name for field in fields(Fan) if field.default is MISSING]
    if set(values) - set(known) or set(needed) - set(values):
        raise InputError(f"The setting fan has the fields {', '.join(map(str, values))}; it takes {', '.join(known)}.")
    aspect = values.get("aspect", 1.0)
    _require(isinstance(aspect, int | float), "fan", dict(values), "a fan with a number as aspect")
    return Fan(**values)


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _require(fits: bool, name: str, value: object, expected: str) -> None:
    if not fits:
        raise InputError(f"The setting {name} is {value!r}; it must be {expected}.")
