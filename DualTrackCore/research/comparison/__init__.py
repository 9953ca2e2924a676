"""Methods of sensorless tracking compared on tracked sweeps: baselines, the network and its parts, one table.

    from DualTrackCore.research.comparison import Identity, Network, run_methods
    from DualTrackCore.research.datasets import open_dataset

    result = run_methods([Identity(), Network(load_model())], open_dataset("my-sweeps"), "results/items", workers=4)
    for summary in result.summaries:
        print(summary.method, summary.figures["gpe_mm"].mean, summary.sweeps)

The names are imported at first use: processes that only measure need no network.
"""

from typing import TYPE_CHECKING

from DualTrackCore import lazy_exports

if TYPE_CHECKING:
    from DualTrackCore.research.comparison.methods import (
        Decorrelation as Decorrelation,
    )
    from DualTrackCore.research.comparison.methods import (
        Identity as Identity,
    )
    from DualTrackCore.research.comparison.methods import (
        MeanMotion as MeanMotion,
    )
    from DualTrackCore.research.comparison.methods import (
        Method as Method,
    )
    from DualTrackCore.research.comparison.methods import (
        Network as Network,
    )
    from DualTrackCore.research.comparison.methods import (
        OwnMeanMotion as OwnMeanMotion,
    )
    from DualTrackCore.research.comparison.methods import (
        make_methods as make_methods,
    )
    from DualTrackCore.research.comparison.runner import run_methods as run_methods
    from DualTrackCore.research.comparison.summaries import Comparison as Comparison

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "methods": ["Decorrelation", "Identity", "MeanMotion", "Method", "Network", "OwnMeanMotion", "make_methods"],
        "runner": ["run_methods"],
        "summaries": ["Comparison"],
    },
)
