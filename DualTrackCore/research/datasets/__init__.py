"""Data sets of tracked sweeps: opened lazily, examined, and converted."""

from DualTrackCore.errors import DatasetError
from DualTrackCore.research.datasets.check import check_dataset, usable
from DualTrackCore.research.datasets.convert import Conversion, convert_dataset
from DualTrackCore.research.datasets.dataset import Dataset, Entry, Finding
from DualTrackCore.research.datasets.entries import simulated_dataset
from DualTrackCore.research.datasets.opening import open_dataset
from DualTrackCore.research.datasets.splits import dealt, with_said_splits

__all__ = [
    "Conversion",
    "Dataset",
    "DatasetError",
    "Entry",
    "Finding",
    "check_dataset",
    "convert_dataset",
    "dealt",
    "open_dataset",
    "simulated_dataset",
    "usable",
    "with_said_splits",
]
