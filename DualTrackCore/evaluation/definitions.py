"""What every figure is, with its definition in one sentence, and the functions that compute it.

G_i maps frame i to the reference frame, L_i maps frame i to frame i - 1; an error is the distance between a point as
the estimate places it and as the truth does. The reference frame never counts. The definitions are those of the TUS-REC
challenges and of the DualTrack paper (arXiv 2509.09530).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np

from DualTrackCore.landmarks import Landmarks
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import accumulate, invert_rigid, matrices_from_parameters, parameters_from_matrices

#: Components of a relative pose: translations in mm, rotations about fixed axes in degrees.
COMPONENTS = ("tx", "ty", "tz", "rx", "ry", "rz")
#: Errors that the scores are made of.
_PIXELS, _LANDMARKS = ("gpe_mm", "lpe_mm"), ("gle_mm", "lle_mm")
#: Frames nearer than this to the reference, in mm, do not enter the average drift rate, which divides by it.
MIN_DISTANCE_MM = 0.1


@dataclass(frozen=True)
class Metric:
    """One figure of a trajectory against the truth.

    Attributes:
        title: short, for the head of a table.
        unit: "mm", "%" or "" for a plain number.
        better: "less", "more", or "neither" for facts about the truth.
        definition: one sentence without a full stop.
    """

    title: str
    unit: str
    better: Literal["less", "more", "neither"]
    definition: str


_FIVE = "pixels (0, 0), (W, 0), (0, H), (W, H) and (W // 2, H // 2)"
#: All figures by the names that `Evaluation.metrics` has, in the order of tables.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "gpe_mm": Metric("GPE", "mm", "less", "mean over frames and all pixels of the error with G"),
        "lpe_mm": Metric("LPE", "mm", "less", "mean over frames and all pixels of the error with L"),
        "gpe_five_point_mm": Metric("GPE, five points", "mm", "less", f"mean error with G over frames and {_FIVE}"),
        "lpe_five_point_mm": Metric("LPE, five points", "mm", "less", f"mean error with L over frames and {_FIVE}"),
        "gle_mm": Metric("GLE", "mm", "less", "mean over landmarks of the error with G"),
        "lle_mm": Metric("LLE", "mm", "less", "mean over landmarks of the error with L"),
        "tus_rec_score": Metric(
            "TUS-REC score",
            "",
            "more",
            "mean of 1 - E / E of no motion over GPE, LPE, GLE and LLE of the sweep, as TUS-REC 2025 has it; undefined "
            "without landmarks",
        ),
        "pixel_score": Metric(
            "Pixel score",
            "",
            "more",
            "mean of 1 - E / E of no motion over GPE and LPE of the sweep: the half of the TUS-REC score that needs no "
            "landmarks, not comparable with it",
        ),
        "final_drift_mm": Metric("Final drift", "mm", "less", "error of the last image centre with G"),
        "max_drift_mm": Metric("Max drift", "mm", "less", "largest error of an image centre with G"),
        "sum_drift_mm": Metric("Sum of drift", "mm", "less", "sum over frames of the error of the image centre with G"),
        "fdr_percent": Metric(
            "FDR", "%", "less", "final drift over the straight distance of the true last centre from the reference"
        ),
        "fdr_path_percent": Metric(
            "FDR (path)", "%", "less", "final drift over the length of the true path; not comparable with FDR"
        ),
        "adr_percent": Metric(
            "ADR", "%", "less", "mean of drift over straight distance so far, without frames nearer than 0.1 mm"
        ),
        "adr_path_percent": Metric(
            "ADR (path)", "%", "less", "mean of drift over path so far, without frames nearer than 0.1 mm"
        ),
        "hausdorff_mm": Metric("Hausdorff", "mm", "less", "symmetric Hausdorff distance of the paths of image centres"),
        **{
            f"correlation_{name}": Metric(
                f"r({name})", "", "more", f"Pearson's r of component {name} of the relative poses over the frames"
            )
            for name in COMPONENTS
        },
        "path_length_mm": Metric("Path", "mm", "neither", "length of the true path of the image centre"),
        "straight_distance_mm": Metric(
            "Distance", "mm", "neither", "straight distance of the true last image centre from the reference"
        ),
    }
)


@dataclass(frozen=True, eq=False)
class ReferencedPoses:
    """Poses in the frame of the first frame that counts.

    Attributes:
        poses: [N, 4, 4] reference_from_image, mm; NaN where not `used`.
        relative: [N - 1, 4, 4], entry i maps frame i + 1 to frame i; NaN where either is not used.
        used: [N] bool.
        reference: index of the first used frame.
    """

    poses: np.ndarray
    relative: np.ndarray
    used: np.ndarray
    reference: int

    @classmethod
    def of(cls, frame0_from_image: np.ndarray, used: np.ndarray) -> ReferencedPoses:
        """Re-express poses [N, 4, 4] given in any one frame of reference; at least one frame is used."""
        reference = int(np.argmax(used))
        poses = invert_rigid(frame0_from_image[reference]) @ np.where(used[:, None, None], frame0_from_image, np.nan)
        poses[reference] = np.eye(4)
        return cls(poses, invert_rigid(poses[:-1]) @ poses[1:], used, reference)

    @property
    def centres_mm(self) -> np.ndarray:
        """[N, 3] image centres in the reference frame, mm."""
        return self.poses[:, :3, 3]


def baseline_poses(true: ReferencedPoses) -> dict[str, ReferencedPoses]:
    """Return estimates that need no images: `identity`, no motion at all; `mean_motion`, the mean true step repeated.

    The latter is missing where no two neighbouring frames are used.
    """
    steps = true.relative[np.isfinite(true.relative).all(axis=(1, 2))]
    count = len(true.poses)
    baselines = {"identity": np.tile(np.eye(4), (count, 1, 1))}
    if len(steps):
        mean_step = matrices_from_parameters(parameters_from_matrices(steps).mean(axis=0))
        baselines["mean_motion"] = accumulate(np.tile(mean_step, (count - 1, 1, 1)))
    return {name: ReferencedPoses.of(poses, true.used) for name, poses in baselines.items()}


def image_from_pixel(sweep: Sweep, tus_rec_pixels: bool) -> np.ndarray:
    """[4, 4] pixel (column, row, 0, 1), counted from 0, to the place in image mm at which it is measured.

    That is its centre; or, as the code of the TUS-REC challenges counts pixels from 1 where it applies the calibration,
    the centre of the next one to the right and down.
    """
    place = np.eye(4)
    place[:2, 3] = float(tus_rec_pixels)
    return sweep.image_from_pixel @ place


def five_points_mm(image_from_pixel: np.ndarray, frame_size: tuple[int, int]) -> np.ndarray:
    """Return the five points at which the DualTrack paper and the TUS-REC baselines measure.

    Args:
        image_from_pixel: [4, 4] pixel to image mm.
        frame_size: (rows H, columns W).

    Returns:
        [4, 5] homogeneous image points, mm. Three lie one pixel outside the image, as in the published code.
    """
    height, width = frame_size
    pixels = [(0, 0), (width, 0), (0, height), (width, height), (width // 2, height // 2)]
    return image_from_pixel @ np.array([(u, v, 0, 1) for u, v in pixels], dtype=np.float64).T


def mean_point_error(predicted: np.ndarray, true: np.ndarray, points_mm: np.ndarray) -> np.ndarray:
    """Return [n] mm, the mean distance between points as two sets of poses place them; NaN where a pose is.

    Args:
        predicted, true: [n, 4, 4] poses, mm.
        points_mm: [4, k] homogeneous image points, mm.
    """
    return np.linalg.norm(((predicted - true) @ points_mm)[:, :3], axis=1).mean(axis=1)


def landmark_errors(
    predicted: np.ndarray, true: np.ndarray, landmarks: Landmarks, image_from_pixel: np.ndarray
) -> np.ndarray:
    """Return [L] mm, the distance between each landmark as two sets of poses place it.

    Args:
        predicted, true: [N, 4, 4] poses of all frames, mm; NaN, as is the result, where a frame does not count.
        landmarks: all in these frames.
        image_from_pixel: [4, 4] pixel to image mm.
    """
    pixels = np.column_stack([landmarks.pixels, np.zeros(len(landmarks)), np.ones(len(landmarks))])
    difference = predicted[landmarks.frames] - true[landmarks.frames]
    moved = difference[:, :3] @ (pixels @ image_from_pixel.T)[:, :, None]
    return np.linalg.norm(moved[..., 0], axis=1)


def drift_metrics(drift_mm: np.ndarray, true_centres_mm: np.ndarray) -> dict[str, float]:
    """Return drift, drift rates and lengths by the names in :data:`METRICS`; a rate without motion is NaN.

    Args:
        drift_mm: [n] error of the image centre over the frames that count, the reference first.
        true_centres_mm: [n, 3].
    """
    straight = np.linalg.norm(true_centres_mm - true_centres_mm[0], axis=1)
    path = np.concatenate([[0.0], np.linalg.norm(np.diff(true_centres_mm, axis=0), axis=1).cumsum()])
    return {
        "final_drift_mm": float(drift_mm[-1]),
        "max_drift_mm": float(drift_mm.max()),
        "sum_drift_mm": float(drift_mm.sum()),
        "fdr_percent": _percent(drift_mm[-1:], straight[-1:], 0.0),
        "fdr_path_percent": _percent(drift_mm[-1:], path[-1:], 0.0),
        "adr_percent": _percent(drift_mm, straight, MIN_DISTANCE_MM),
        "adr_path_percent": _percent(drift_mm, path, MIN_DISTANCE_MM),
        "path_length_mm": float(path[-1]),
        "straight_distance_mm": float(straight[-1]),
    }


def hausdorff_mm(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest distance of a point of either path [n, 3], [m, 3] from the nearest one of the other, mm."""
    from scipy.spatial.distance import directed_hausdorff

    return max(directed_hausdorff(one, other)[0], directed_hausdorff(other, one)[0])


def _percent(part: np.ndarray, whole: np.ndarray, least: float) -> float:
    """Mean of 100 part / whole where `whole` is above 0 and at least `least`; NaN where it never is."""
    kept = (whole > 0) & (whole >= least)
    return float((100 * part[kept] / whole[kept]).mean()) if kept.any() else math.nan


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
        return dict(zip(COMPONENTS, pearson(self.count, *self.products).tolist(), strict=True))


def pearson(count: np.ndarray | float, own: np.ndarray, other: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """Pearson's r of two quantities from their number and the sums of squares and products of their deviations.

    NaN where one of them is constant up to rounding, as for a network that only learned the mean. The one
    implementation, of sweeps, of all steps pooled and of training: torchmetrics' PearsonCorrCoef is as exact in fp64
    (1e-15 over 150,000 steps), takes 2.3 times as long for a sweep of 500 steps, and fails where no motion is known.
    """
    varies = np.minimum(own, other) > 1e-18 * np.maximum(count, 1)
    return np.where(varies, np.clip(mixed / np.sqrt(np.where(varies, own * other, 1)), -1, 1), np.nan)


def correlations(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return Pearson's r of the six components of relative poses [n, 4, 4], `correlation_tx` to `correlation_rz`."""
    counted = np.isfinite(true).all(axis=(1, 2))
    steps = PooledCorrelation.of(*(parameters_from_matrices(relative[counted]) for relative in (predicted, true)))
    return {f"correlation_{name}": value for name, value in steps.values().items()}


def scores(metrics: Mapping[str, float], identity: Mapping[str, float]) -> dict[str, float]:
    """Return `tus_rec_score` and `pixel_score`: 1 for no error, 0 for what no motion gives, negative for worse.

    Args:
        metrics, identity: `gpe_mm`, `lpe_mm`, `gle_mm` and `lle_mm` of the estimate and of no motion at all. A score is
            NaN where an error is undefined (no landmarks) or no motion has none.
    """

    def mean_over(names: tuple[str, ...]) -> float:
        if any(not identity[name] > 0 for name in names):
            return math.nan
        return sum(1 - metrics[name] / identity[name] for name in names) / len(names)

    return {"tus_rec_score": mean_over(_PIXELS + _LANDMARKS), "pixel_score": mean_over(_PIXELS)}
