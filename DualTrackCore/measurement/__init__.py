"""Lengths, areas and volumes in what was made from a path, each with its band: how far the path may be off there."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.measurement.measure import Measured as Measured
    from DualTrackCore.measurement.measure import Measurements as Measurements

__getattr__, __dir__, __all__ = lazy_exports(__name__, {"measure": ["Measured", "Measurements"]})
