"""Which figures of the evaluation the tables show, which of them are tested, and how they are headed."""

from __future__ import annotations

from DualTrackCore.evaluation import METRICS

#: Figures of a method, in the order of tables; facts about the true path are none.
SHOWN = tuple(name for name, metric in METRICS.items() if metric.better != "neither")
#: Figures in which every two methods are tested against each other.
TESTED = ("gpe_mm", "lpe_mm", "fdr_percent", "max_drift_mm")


def heading(name: str) -> str:
    """Title with unit: "GPE (mm)"."""
    metric = METRICS[name]
    return f"{metric.title} ({metric.unit})" if metric.unit else metric.title
