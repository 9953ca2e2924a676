"""Data sets of tracked sweeps: opened lazily, examined, and converted."""

from DualTrackCore.datasets.check import check_dataset, usable
from DualTrackCore.datasets.convert import Conversion, convert_dataset
from DualTrackCore.datasets.dataset import Dataset, Entry
from DualTrackCore.datasets.findings import Finding
from DualTrackCore.datasets.opening import open_dataset
from DualTrackCore.datasets.simulated import simulated_dataset
from DualTrackCore.errors import DatasetError

__all__ = [
    "Conversion",
    "Dataset",
    "DatasetError",
    "Entry",
    "Finding",
    "check_dataset",
    "convert_dataset",
    "open_dataset",
    "simulated_dataset",
    "usable",
]
