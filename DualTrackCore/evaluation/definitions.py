"""What every figure is: name, unit, whether less or more is better, and its definition in one sentence.

G_i maps frame i to the reference frame, L_i maps frame i to frame i - 1; an error is the distance between where the
estimate and the truth put a point. The reference frame never counts. The definitions are those of the TUS-REC
challenges and of the DualTrack paper (arXiv 2509.09530).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

#: Components of a relative pose: translations in mm, rotations about fixed axes in degrees.
COMPONENTS = ("tx", "ty", "tz", "rx", "ry", "rz")

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
