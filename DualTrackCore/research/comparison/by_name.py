"""Methods by the names that the command line and the tables give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback
from DualTrackCore.research.comparison.decorrelation import Decorrelation
from DualTrackCore.research.comparison.methods import Identity, MeanMotion, Method, Network, OwnMeanMotion

if TYPE_CHECKING:
    from DualTrackCore.research.datasets import Dataset
    from DualTrackCore.sweep import Sweep

#: Methods that need no weights, and those of them that are calibrated on tracked sweeps first.
SIMPLE = ("identity", "mean-motion", "own-mean-motion", "decorrelation", "decorrelation-oracle-direction")
CALIBRATED = ("mean-motion", "decorrelation", "decorrelation-oracle-direction")
#: Head and test-time augmentation by the word before the colon.
_HEADS = {"model": ("fusion", 1), "tta4": ("fusion", 4), "local": ("local", 1), "global": ("global", 1)}
_BASELINE = "baseline"


def require_known(names: Sequence[str]) -> None:
    """Raise :class:`InputError` for a name that is none of a method."""
    for name in names:
        kind, _, weights = name.partition(":")
        if name not in SIMPLE and not (kind in (*_HEADS, _BASELINE) and weights):
            raise InputError(
                f"The method {name!r} is unknown; choose {', '.join(SIMPLE)}, model:M, tta4:M, local:M or "
                "global:M, where M is the name of a model or a weights file, or baseline:B, where B is the name of a "
                "trained baseline or its weights file."
            )


def load_networks(names: Sequence[str], device: str = "auto") -> dict[str, Method]:
    """The methods among `names` that have weights, loaded; the others are left out.

    Args:
        names: as on the command line: "model:mini", "local:FILE", "baseline:FILE", ...
        device: of the networks.

    Raises:
        InputError: an unknown name.
        CheckpointError: weights that are missing, damaged or of another network.
    """
    require_known(names)
    labels = _labels(list(dict.fromkeys(names)))
    networks: dict[str, Method] = {}
    for name, label in labels.items():
        kind, _, weights = name.partition(":")
        if kind == _BASELINE:
            from DualTrackCore.research.baselines import baseline_method

            networks[name] = baseline_method(weights, name=label, device=device)
        else:
            from DualTrackCore.network import load_model

            head, test_time_augmentation = _HEADS[kind]
            networks[name] = Network(load_model(weights), head, label, device, test_time_augmentation)
    return networks


def make_methods(
    names: Sequence[str],
    calibration: Callable[[], Dataset],
    *,
    networks: dict[str, Method] | None = None,
    device: str = "auto",
    progress: ProgressCallback | None = None,
    cancelled: CancelledCallback | None = None,
) -> list[Method]:
    """Methods by name, in the order of their first mention; each once.

    Args:
        names: as in :func:`load_networks`, or of :data:`SIMPLE`.
        calibration: opens the tracked sweeps on which the methods of :data:`CALIBRATED` are calibrated; called only
            where there is one among the names.
        networks: from :func:`load_networks`; by default loaded here.
        device: of the networks.

    Raises:
        InputError: an unknown name, or calibration sweeps that cannot be used.
        CheckpointError: see :func:`load_networks`.
    """
    made: dict[str, Method] = {"identity": Identity(), "own-mean-motion": OwnMeanMotion()}
    made |= load_networks(names, device) if networks is None else networks
    if set(CALIBRATED) & set(names):
        dataset = calibration()
        if "mean-motion" in names:
            made["mean-motion"] = MeanMotion.calibrated(_sweeps(dataset))
        if {"decorrelation", "decorrelation-oracle-direction"} & set(names):
            fitted = Decorrelation.calibrated(_sweeps(dataset), progress=progress, cancelled=cancelled)
            made |= {"decorrelation": fitted, "decorrelation-oracle-direction": fitted.told()}
    return [made[name] for name in dict.fromkeys(names)]


def _sweeps(dataset: Dataset) -> Iterator[Sweep]:
    """One open at a time."""
    return (dataset.load(name) for name in dataset.names)


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Headings of methods: a weights file goes by its name without folder and suffix, where that is unmistakable."""
    short = {name: f"{name.partition(':')[0]}:{Path(name.partition(':')[2]).stem}" for name in names if ":" in name}
    return {name: label if list(short.values()).count(label) == 1 else name for name, label in short.items()}
