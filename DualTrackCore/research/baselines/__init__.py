"""Networks of earlier methods, for comparison: built from their papers, trained by the stage `baseline`."""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.research.baselines.method import (
        Baseline as Baseline,
    )
    from DualTrackCore.research.baselines.method import (
        baseline_method as baseline_method,
    )
    from DualTrackCore.research.baselines.method import (
        load_baseline as load_baseline,
    )
    from DualTrackCore.research.baselines.motion_network import (
        MotionNetwork as MotionNetwork,
    )
    from DualTrackCore.research.baselines.motion_network import (
        motions_in_pieces as motions_in_pieces,
    )
    from DualTrackCore.research.baselines.networks import (
        ARCHITECTURES as ARCHITECTURES,
    )
    from DualTrackCore.research.baselines.networks import (
        build_baseline as build_baseline,
    )

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "method": ["Baseline", "baseline_method", "load_baseline"],
        "motion_network": ["MotionNetwork", "motions_in_pieces"],
        "networks": ["ARCHITECTURES", "build_baseline"],
    },
)
