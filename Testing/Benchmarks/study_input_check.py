"""How far clips are from the training images of a model, by the check that every run makes.

    python Testing/Benchmarks/study_input_check.py [FILE ...]

Without files the 28 held-out simulated sweeps; the model is `mini`. Columns: distance on whole frames with either
normalisation, and on local crops.
"""

from __future__ import annotations

import sys

import numpy as np

from DualTrackCore import load_model, load_sweep
from DualTrackCore.network.statistics import PLAIN, SCALED
from DualTrackCore.research.datasets.entries import simulated_dataset
from DualTrackCore.tracking.preprocessing import examined

if __name__ == "__main__":
    model, rows = load_model("mini"), []
    sweeps = [(path, lambda path=path: load_sweep(path)) for path in sys.argv[1:]]
    for name, load in sweeps or [(entry.name, entry.load) for entry in simulated_dataset("held-out")]:
        check = examined(model, load()).check
        rows.append((check.whole[PLAIN], check.whole[SCALED], check.crop))
        print(f"{name:24s}", *(f"{value:6.2f}" for value in rows[-1]))
    for what, figure in (("least", np.min), ("median", np.median), ("greatest", np.max)):
        print(f"{what:24s}", *(f"{value:6.2f}" for value in figure(rows, axis=0)))
