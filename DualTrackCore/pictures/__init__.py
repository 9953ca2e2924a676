"""Preview pictures: slices of a volume, the trajectory in 3D, and the motion from frame to frame.

All are PNG files about 1600 pixels wide, drawn without a display. They need matplotlib (the extra `report`).
"""

from DualTrackCore.pictures.comparison import write_comparison
from DualTrackCore.pictures.motion import write_motion
from DualTrackCore.pictures.slices import write_slices
from DualTrackCore.pictures.trajectory import write_trajectory

__all__ = ["write_comparison", "write_motion", "write_slices", "write_trajectory"]
