"""Pictures of results: PNG files about 1600 pixels wide, drawn without a display.

Each function writes the PNG file `path`, replaced as a whole, and returns its path. It raises MissingDependencyError
where matplotlib (the extra `report`) is not installed, and OutputError where the file cannot be written.
"""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.pictures.beside_truth import write_comparison as write_comparison
    from DualTrackCore.pictures.previews import (
        write_motion as write_motion,
    )
    from DualTrackCore.pictures.previews import (
        write_slices as write_slices,
    )
    from DualTrackCore.pictures.previews import (
        write_trajectory as write_trajectory,
    )

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {"beside_truth": ["write_comparison"], "previews": ["write_motion", "write_slices", "write_trajectory"]},
)
