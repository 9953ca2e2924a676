"""DualTrack: sensorless freehand 3D ultrasound.

A sweep of plain 2D frames goes in; the probe trajectory and a volume come out. The public names are imported when they
are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from DualTrackCore.lazy import lazy_exports
from DualTrackCore.version import __version__

if TYPE_CHECKING:
    from DualTrackCore.evaluation import Evaluation as Evaluation
    from DualTrackCore.evaluation import evaluate as evaluate
    from DualTrackCore.io import load_sweep as load_sweep
    from DualTrackCore.io import save_sweep as save_sweep
    from DualTrackCore.network import load_model as load_model
    from DualTrackCore.reconstruction import Reconstruction as Reconstruction
    from DualTrackCore.reconstruction import VoxelGrid as VoxelGrid
    from DualTrackCore.reconstruction import plan_grid as plan_grid
    from DualTrackCore.reconstruction import reconstruct_volume as reconstruct_volume
    from DualTrackCore.sweep import Sweep as Sweep
    from DualTrackCore.tracking import estimate_trajectory as estimate_trajectory
    from DualTrackCore.trajectory import Trajectory as Trajectory

__getattr__, __dir__, _lazy = lazy_exports(
    __name__,
    {
        "evaluation": ["Evaluation", "evaluate"],
        "io": ["load_sweep", "save_sweep"],
        "network": ["load_model"],
        "reconstruction": ["Reconstruction", "VoxelGrid", "plan_grid", "reconstruct_volume"],
        "sweep": ["Sweep"],
        "tracking": ["estimate_trajectory"],
        "trajectory": ["Trajectory"],
    },
)
__all__ = ["__version__", *_lazy]
