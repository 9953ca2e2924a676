"""The result of one method on one sweep as one small JSON file; a long evaluation resumes from these files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from DualTrackCore import __version__
from DualTrackCore.evaluation import COMPONENTS
from DualTrackCore.files import plain_values, replacing
from DualTrackCore.research.comparison.fingerprint import fingerprint
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters


@dataclass(eq=False)
class PooledCorrelation:
    """Pearson's r of each component of the motion over the steps of many sweeps together.

    Attributes:
        count: number of steps.
        mean: [2, 6] of the estimated and the true steps.
        products: [3, 6] sums of products of the deviations from these: estimated squares, true squares, mixed.
    """

    count: int = 0
    mean: np.ndarray = field(default_factory=lambda: np.zeros((2, 6)))
    products: np.ndarray = field(default_factory=lambda: np.zeros((3, 6)))

    def __post_init__(self) -> None:
        self.mean = np.array(self.mean, dtype=np.float64).reshape(2, 6)
        self.products = np.array(self.products, dtype=np.float64).reshape(3, 6)

    @classmethod
    def of(cls, predicted: np.ndarray, true: np.ndarray) -> PooledCorrelation:
        """Of the steps [n, 6] of one sweep; those not finite in either are left out."""
        finite = np.isfinite(predicted).all(axis=1) & np.isfinite(true).all(axis=1)
        if not finite.any():
            return cls()
        values = np.stack([predicted[finite], true[finite]])
        mean = values.mean(axis=1)
        deviation = values - mean[:, None]
        return cls(values.shape[1], mean, (deviation[[0, 1, 0]] * deviation[[0, 1, 1]]).sum(axis=1))

    def add(self, more: PooledCorrelation) -> None:
        """Add the steps of another sweep."""
        total = self.count + more.count
        if not total:
            return
        shift = more.mean - self.mean
        share = self.count * more.count / total
        self.products = self.products + more.products + share * (shift[[0, 1, 0]] * shift[[0, 1, 1]])
        self.mean = self.mean + shift * more.count / total
        self.count = total

    def values(self) -> dict[str, float]:
        """r by component; NaN where one side does not vary."""
        own, true, mixed = self.products
        # The correlation of a component that is constant up to rounding is undefined.
        varies = np.minimum(own, true) > 1e-18 * max(self.count, 1)
        r = np.where(varies, mixed / np.sqrt(np.where(varies, own * true, 1)), np.nan)
        return {name: float(np.clip(value, -1, 1)) for name, value in zip(COMPONENTS, r, strict=True)}


#: Increase when the content or meaning of an item changes: items of another format are computed again.
FORMAT = 2


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


def item_key(method: str, method_fingerprint: str, sweep: str, sweep_fingerprint: str) -> str:
    """Hash of the inputs of an item: method with weights, sweep with landmarks, and version of the program."""
    return fingerprint(FORMAT, __version__, method, method_fingerprint, sweep, sweep_fingerprint)


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
