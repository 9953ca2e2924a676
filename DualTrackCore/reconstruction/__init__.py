"""Frames and poses to a volume: planning the grid, compounding, filling holes, coverage."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.reconstruction.area import Fan as Fan
    from DualTrackCore.reconstruction.builder import (
        Reconstruction as Reconstruction,
    )
    from DualTrackCore.reconstruction.builder import (
        VolumeBuilder as VolumeBuilder,
    )
    from DualTrackCore.reconstruction.builder import (
        reconstruct_volume as reconstruct_volume,
    )
    from DualTrackCore.reconstruction.detect import ImageArea as ImageArea
    from DualTrackCore.reconstruction.detect import detect_fan as detect_fan
    from DualTrackCore.reconstruction.grid import VoxelGrid as VoxelGrid
    from DualTrackCore.reconstruction.grid import plan_grid as plan_grid
    from DualTrackCore.reconstruction.holes import HoleFilling as HoleFilling

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "area": ["Fan"],
        "builder": ["Reconstruction", "VolumeBuilder", "reconstruct_volume"],
        "detect": ["ImageArea", "detect_fan"],
        "grid": ["VoxelGrid", "plan_grid"],
        "holes": ["HoleFilling"],
    },
)
