"""What is known of a sweep, put into its path: lengths, marks, places, limits, poses from elsewhere."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.corrections.knowledge import Knowledge as Knowledge
    from DualTrackCore.corrections.knowledge import KnownLength as KnownLength
    from DualTrackCore.corrections.knowledge import KnownPoses as KnownPoses
    from DualTrackCore.corrections.knowledge import Limits as Limits
    from DualTrackCore.corrections.knowledge import SamePlace as SamePlace
    from DualTrackCore.corrections.knowledge import SamePoint as SamePoint
    from DualTrackCore.corrections.path import correct as correct
    from DualTrackCore.corrections.proposals import propose_loops as propose_loops
    from DualTrackCore.corrections.reading import knowledge_of as knowledge_of
    from DualTrackCore.corrections.settings import Corrections as Corrections

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "knowledge": ["Knowledge", "KnownLength", "KnownPoses", "Limits", "SamePlace", "SamePoint"],
        "path": ["correct"],
        "proposals": ["propose_loops"],
        "reading": ["knowledge_of"],
        "settings": ["Corrections"],
    },
)
