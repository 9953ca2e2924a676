"""The sample sweep: a short simulated one with its true poses that ships with the package.

`make sample` makes the file anew: :data:`COMMAND` says how. Neither its phantom nor its path nor its speckle belongs to
the seeds that models are trained and compared on.
"""

from __future__ import annotations

from pathlib import Path

from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep
from DualTrackCore.sweep import Sweep

#: Arguments of `dualtrack` that make the file; `-o FILE` follows.
COMMAND = "simulate --seed 3000070 --family Per_C_DtP --frames 168 --size 160,128 --spacing 0.25"


def sample_path() -> Path:
    """Where the file lies, a sequence metafile of 2.9 MB."""
    return Path(__file__).resolve().parent / "data" / "sample.igs.mha"


def sample_sweep() -> Sweep:
    """168 simulated frames of 128 x 160 pixels, 0.25 mm each, at 20 frames a second, with the true poses as tracking.

    The probe crosses a limb with a bone and branching vessels on an arc of 52 mm, the image plane across its path.

    Raises InputError: the installation lacks the file, or it is damaged.
    """
    path = sample_path()
    if not path.is_file():
        raise InputError(f"This installation lacks the sample sweep {path}; install DualTrack again.")
    return load_sweep(path)
