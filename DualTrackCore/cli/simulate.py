"""`dualtrack simulate`: a tracked sweep of a phantom, written like a recorded one."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np

from DualTrackCore.cli.console import Console, plural
from DualTrackCore.cli.sweeps import sweep_facts
from DualTrackCore.errors import InputError
from DualTrackCore.io import save_sweep
from DualTrackCore.research.simulation import FAMILIES, Probe, simulated_sweep


def simulate(options: Namespace, console: Console) -> None:
    """Write simulated frames with the true poses."""
    if options.seed < 0:
        raise InputError(f"The seed is {options.seed}; it must be 0 or more.")
    if options.family is not None and options.family not in FAMILIES:
        raise InputError(f"The family {options.family!r} is unknown; choose one of {', '.join(FAMILIES)}.")
    width, height = options.size
    spacing = options.spacing * 2 if len(options.spacing) == 1 else options.spacing
    random = np.random.default_rng([options.seed, 0x9B0B])
    pitch_mm = float(np.clip(width * spacing[0] / 192, 0.05, 1.0))
    probe = Probe.drawn(random, options.geometry, elements=192, pitch_mm=pitch_mm, frequency_mhz=options.frequency)
    sweep = simulated_sweep(
        options.seed,
        frames=options.frames,
        family=options.family,
        probe=probe,
        frame_size=(height, width),
        spacing_mm=spacing,
    )
    save_sweep(sweep, options.output, trajectory=sweep.tracked, progress=console.progress)
    console.say(
        f"Wrote {plural(len(sweep), 'simulated frame')} of a {sweep.tracked.path_length_mm:.1f} mm long "
        f"{sweep.provenance['family']} sweep with their true poses to {Path(options.output)}."
    )
    console.result({"output": str(options.output), "sweep": sweep_facts(sweep)})
