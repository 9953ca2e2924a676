"""Data sets of tracked sweeps: opened lazily, examined, and converted."""

from DualTrackCore.datasets.dataset import Dataset, Entry
from DualTrackCore.datasets.findings import Finding
from DualTrackCore.datasets.opening import open_dataset
from DualTrackCore.datasets.simulated import simulated_dataset
from DualTrackCore.errors import DatasetError

__all__ = [
    "Dataset",
    "DatasetError",
    "Entry",
    "Finding",
    "open_dataset",
    "simulated_dataset",
]
