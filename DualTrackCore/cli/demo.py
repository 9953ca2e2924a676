"""`dualtrack demo`: the main job on a sweep made on the spot."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from DualTrackCore.cli.console import Console
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.cli.results import write_results
from DualTrackCore.files import staged_folder
from DualTrackCore.simulation import rendered, simulated_sweep

#: A limb with vessels that branch and a bone.
_SEED = 5


def demo(options: Namespace, console: Console) -> None:
    """Simulate a tracked sweep and reconstruct it from its tracked poses."""
    console.say(
        "No trained model ships with this version, so nothing is estimated here: a small simulated sweep with known\n"
        "poses is made and reconstructed from those poses. It shows everything but the tracking."
    )
    target = Path(options.output)
    settings = build_parser().parse_args(["reconstruct", "simulated", "-o", str(target), "--hole-filling", "gaussian"])
    with staged_folder(target) as folder:
        sweep = simulated_sweep(_SEED, frames=120, family="Per_C_DtP", frame_size=(192, 256), spacing_mm=0.2)
        sweep = rendered(sweep, console.progress)
        write_results(folder, target, sweep, sweep.tracked, settings, console)
