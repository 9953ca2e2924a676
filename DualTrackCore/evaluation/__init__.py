"""How far an estimated trajectory lies from a tracked one: the metrics of the field, each by its own definition."""

from DualTrackCore.evaluation.definitions import COMPONENTS, METRICS, Metric
from DualTrackCore.evaluation.per_sweep import Evaluation, evaluate

__all__ = ["COMPONENTS", "METRICS", "Evaluation", "Metric", "evaluate"]
