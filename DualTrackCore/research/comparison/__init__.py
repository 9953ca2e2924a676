"""Methods of sensorless tracking compared on tracked sweeps: baselines, the network and its parts, one table.

    from DualTrackCore.research.comparison import Identity, Network, run_methods
    from DualTrackCore.research.datasets import open_dataset

    result = run_methods([Identity(), Network(load_model())], open_dataset("my-sweeps"), "results/items", workers=4)
    for summary in result.summaries:
        print(summary.method, summary.figures["gpe_mm"].mean, summary.sweeps)

The names are loaded when they are first used: processes that only measure need no network.
"""

from importlib import import_module

_HOMES = {
    "Comparison": "table",
    "Decorrelation": "decorrelation",
    "Identity": "methods",
    "MeanMotion": "methods",
    "Method": "methods",
    "Network": "methods",
    "OwnMeanMotion": "methods",
    "make_methods": "by_name",
    "run_methods": "runner",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
