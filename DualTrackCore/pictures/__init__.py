"""Pictures of results: PNG files about 1600 pixels wide, drawn without a display.

Each function writes the PNG file `path`, replaced as a whole, and returns its path. It raises MissingDependencyError
where matplotlib (the extra `report`) is not installed, and OutputError where the file cannot be written.
"""

from DualTrackCore.pictures.beside_truth import write_comparison
from DualTrackCore.pictures.previews import write_motion, write_slices, write_trajectory

__all__ = ["write_comparison", "write_motion", "write_slices", "write_trajectory"]
