"""Frames and poses to a volume: planning the grid, compounding, filling holes, coverage."""

from typing import TYPE_CHECKING

from DualTrackCore.lazy import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.reconstruction.builder import VolumeBuilder as VolumeBuilder
    from DualTrackCore.reconstruction.detect import ImageArea as ImageArea
    from DualTrackCore.reconstruction.detect import detect_fan as detect_fan
    from DualTrackCore.reconstruction.grid import VoxelGrid as VoxelGrid
    from DualTrackCore.reconstruction.holes import HoleFilling as HoleFilling
    from DualTrackCore.reconstruction.mask import Fan as Fan
    from DualTrackCore.reconstruction.plan import plan_grid as plan_grid
    from DualTrackCore.reconstruction.plus_config import PlusReconstructionSettings as PlusReconstructionSettings
    from DualTrackCore.reconstruction.plus_config import (
        reconstruction_settings_from_plus_config as reconstruction_settings_from_plus_config,
    )
    from DualTrackCore.reconstruction.volume import Reconstruction as Reconstruction
    from DualTrackCore.reconstruction.volume import reconstruct_volume as reconstruct_volume

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "builder": ["VolumeBuilder"],
        "detect": ["ImageArea", "detect_fan"],
        "grid": ["VoxelGrid"],
        "holes": ["HoleFilling"],
        "mask": ["Fan"],
        "plan": ["plan_grid"],
        "plus_config": ["PlusReconstructionSettings", "reconstruction_settings_from_plus_config"],
        "volume": ["Reconstruction", "reconstruct_volume"],
    },
)
