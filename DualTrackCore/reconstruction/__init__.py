"""Frames and poses to a volume: planning the grid, compounding, filling holes, coverage."""

from DualTrackCore.reconstruction.builder import VolumeBuilder
from DualTrackCore.reconstruction.detect import ImageArea, detect_fan
from DualTrackCore.reconstruction.grid import VoxelGrid
from DualTrackCore.reconstruction.holes import HoleFilling
from DualTrackCore.reconstruction.mask import Fan
from DualTrackCore.reconstruction.plan import plan_grid
from DualTrackCore.reconstruction.plus_config import (
    PlusReconstructionSettings,
    reconstruction_settings_from_plus_config,
)
from DualTrackCore.reconstruction.volume import Reconstruction, reconstruct_volume

__all__ = [
    "Fan",
    "HoleFilling",
    "ImageArea",
    "PlusReconstructionSettings",
    "Reconstruction",
    "VolumeBuilder",
    "VoxelGrid",
    "detect_fan",
    "plan_grid",
    "reconstruct_volume",
    "reconstruction_settings_from_plus_config",
]
