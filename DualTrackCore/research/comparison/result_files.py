"""The result of one method on one sweep as one small JSON file; a long evaluation resumes from these files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from DualTrackCore.evaluation import COMPONENTS
from DualTrackCore.files import plain_values, replacing
from DualTrackCore.research.comparison.fingerprint import fingerprint
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters, parameters_from_matrices
from DualTrackCore.version import __version__


class PooledCorrelation:
    """Pearson's r of each component of the motion over the steps of many sweeps together.

    Unlike the mean over sweeps it shows whether the sign of the motion is right, which differs between sweeps.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros((2, 6))
        self._products = np.zeros((3, 6))  # of deviations: own squares, true squares, mixed

    @classmethod
    def of(cls, predicted: np.ndarray, true: np.ndarray) -> PooledCorrelation:
        """Of the steps [n, 6] of one sweep; those not finite in either are left out."""
        pooled = cls()
        known = np.isfinite(predicted).all(axis=1) & np.isfinite(true).all(axis=1)
        values = np.stack([predicted[known], true[known]])
        pooled._count = values.shape[1]
        if pooled._count:
            pooled._mean = values.mean(axis=1)
            own, other = values - pooled._mean[:, None]
            pooled._products = np.stack([(a * b).sum(axis=0) for a, b in ((own, own), (other, other), (own, other))])
        return pooled

    def add(self, more: PooledCorrelation) -> None:
        """Add the steps of another sweep."""
        total = self._count + more._count
        if not total:
            return
        shift = more._mean - self._mean
        share = self._count * more._count / total
        mixed = np.stack([shift[0] * shift[0], shift[1] * shift[1], shift[0] * shift[1]])
        self._products = self._products + more._products + share * mixed
        self._mean = self._mean + shift * more._count / total
        self._count = total

    def values(self) -> dict[str, float]:
        """r by component; NaN where one side does not vary."""
        own, true, mixed = self._products
        # The correlation of a component that is constant up to rounding is undefined.
        varies = np.minimum(own, true) > 1e-18 * max(self._count, 1)
        r = np.where(varies, mixed / np.sqrt(np.where(varies, own * true, 1)), np.nan)
        return {name: float(np.clip(value, -1, 1)) for name, value in zip(COMPONENTS, r, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """The moments as plain values for JSON."""
        return {"count": self._count, "mean": self._mean.tolist(), "products": self._products.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PooledCorrelation:
        """The inverse of :meth:`as_dict`."""
        pooled = cls()
        pooled._count = int(values["count"])
        pooled._mean = np.array(values["mean"], dtype=np.float64).reshape(2, 6)
        pooled._products = np.array(values["products"], dtype=np.float64).reshape(3, 6)
        return pooled


#: Increase when the content or meaning of an item changes: items of another format are computed again.
FORMAT = 1


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
        steps: moments of estimated and true steps.
        path_mm: [N] length of the true path up to each frame; NaN where its pose is invalid.
        error_mm: [N] mean error over all pixels with the pose of each frame; NaN where it does not count.
        poses: [N, 6] estimated poses (mm, degrees) in the estimate's own frame0; NaN where invalid.
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
    steps: PooledCorrelation = field(default_factory=PooledCorrelation)
    path_mm: np.ndarray = field(default_factory=lambda: np.zeros(0))
    error_mm: np.ndarray = field(default_factory=lambda: np.zeros(0))
    poses: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))

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


def poses_of(trajectory: Trajectory) -> np.ndarray:
    """[N, 6] poses in frame0 (mm, degrees); NaN where invalid."""
    return parameters_from_matrices(np.where(trajectory.valid[:, None, None], trajectory.poses, np.nan))


class ItemFolder:
    """The items of one or more evaluations in a folder.

    Args:
        folder: made when the first item is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def save(self, item: Item) -> Path:
        """Write an item atomically; raise OutputError where that is impossible."""
        path = self.folder / _file_name(item)
        values = {
            name: np.round(value, 6) if isinstance(value, np.ndarray) else value
            for name, value in vars(item).items()
            if name != "steps"
        }
        values = {"format": FORMAT, **values, "steps": item.steps.as_dict()}
        text = json.dumps(plain_values(values), allow_nan=False)
        with replacing(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
        return path

    def keys(self) -> dict[str, Path]:
        """Return the file of every item by its key; names of half-written files begin with a dot."""
        files = [path for path in sorted(self.folder.glob("*-*.json")) if not path.name.startswith(".")]
        return {path.stem.rpartition("-")[2]: path for path in files}


def read_item(path: Path) -> Item | None:
    """Return the item in a file; None where it is damaged or of another format."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("format") != FORMAT:
            return None
        arrays = {name: np.array(values.pop(name), dtype=np.float64) for name in ("path_mm", "error_mm", "poses")}
        arrays["poses"] = arrays["poses"].reshape(-1, 6)
        steps = PooledCorrelation.from_dict(values.pop("steps"))
        metrics = {name: math.nan if value is None else value for name, value in values.pop("metrics").items()}
        peak = values.pop("peak_mebibytes")
        peak = math.nan if peak is None else peak
        return Item(**values, metrics=metrics, peak_mebibytes=peak, steps=steps, **arrays)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _file_name(item: Item) -> str:
    method, sweep = (re.sub(r"[^A-Za-z0-9]+", "_", name)[-40:].strip("_") for name in (item.method, item.sweep))
    return f"{method}-{sweep}-{item.key}.json"
