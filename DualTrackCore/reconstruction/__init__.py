"""Frames and poses to a volume: planning the grid, compounding, filling holes, coverage."""

from typing import TYPE_CHECKING

from DualTrackCore.lazy import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.reconstruction.area import Fan as Fan
    from DualTrackCore.reconstruction.builder import VolumeBuilder as VolumeBuilder
    from DualTrackCore.reconstruction.builder import reconstruct_volume as reconstruct_volume
    from DualTrackCore.reconstruction.detect import ImageArea as ImageArea
    from DualTrackCore.reconstruction.detect import detect_fan as detect_fan
    from DualTrackCore.reconstruction.grid import Reconstruction as Reconstruction
    from DualTrackCore.reconstruction.grid import VoxelGrid as VoxelGrid
    from DualTrackCore.reconstruction.holes import HoleFilling as HoleFilling
    from DualTrackCore.reconstruction.plan import plan_grid as plan_grid

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "area": ["Fan"],
        "builder": ["VolumeBuilder", "reconstruct_volume"],
        "detect": ["ImageArea", "detect_fan"],
        "grid": ["Reconstruction", "VoxelGrid"],
        "holes": ["HoleFilling"],
        "plan": ["plan_grid"],
    },
)
