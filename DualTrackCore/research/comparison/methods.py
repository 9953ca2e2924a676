"""Methods that estimate a trajectory from a sweep, behind one interface, and their names on the command line.

Decorrelation is the classical method (Gee et al. 2006, Med. Image Anal. 10: 137; Laporte and Arbel 2008): in-plane
motion by matching speckle, elevational motion, tilt and yaw from the correlation of patches by calibrated curves.
Distances have no sign: the probe is assumed to move one way throughout, and the images do not show which way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback, Reporter
from DualTrackCore.research.speckle.decorrelation import (
    DecorrelationCurves,
    elevational_direction,
    elevational_steps,
    in_plane_steps,
)
from DualTrackCore.research.speckle.patches import SweepCorrelation, sweep_correlation
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from DualTrackCore.network.model import Model
    from DualTrackCore.research.datasets import Dataset


@runtime_checkable
class Method(Protocol):
    """An estimator of the trajectory of a sweep.

    A method may also have `parameter_count`, the number of learned parameters; `needs_truth`, true if it uses part
    of the true path; and `fingerprint`, a text that changes whenever its results may change: without one its attributes
    are hashed (see :func:`~DualTrackCore.research.comparison.result_files.fingerprint`).

    Attributes:
        name: short, in tables.
        uses: its input, shown in every table: "nothing", "images", or more.
    """

    name: str
    uses: str

    def estimate(
        self,
        sweep: Sweep,
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
    ) -> Trajectory:
        """Return the trajectory of all frames; raise :class:`~DualTrackCore.errors.DualTrackError` if there is none."""
        ...


class Identity:
    """No motion at all."""

    name, uses = "identity", "nothing"

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """Every frame where the first one is."""
        return Trajectory.from_parameters(np.zeros((len(sweep) - 1, 6)), {"method": self.name})


class MeanMotion:
    """The same motion at every step.

    Args:
        parameters: [6] tx, ty, tz in mm and rotations about x, y, z in degrees, of frame i + 1 in frame i.
    """

    name, uses = "calibrated-mean-motion", "nothing"

    def __init__(self, parameters: np.ndarray) -> None:
        self.parameters = np.array(parameters, dtype=np.float64)
        if self.parameters.shape != (6,) or not np.isfinite(self.parameters).all():
            raise InputError(f"The mean motion is {parameters!r}; expected 6 finite numbers (mm, degrees).")

    @classmethod
    def calibrated(cls, sweeps: Iterable[Sweep]) -> MeanMotion:
        """The mean over all steps of tracked sweeps.

        Raises InputError: a sweep without tracking, or no step with two valid poses.
        """
        valid = [np.zeros((0, 6))]
        for sweep in sweeps:
            steps = sweep.require_truth().parameters
            valid.append(steps[np.isfinite(steps).all(axis=1)])
        steps = np.concatenate(valid)
        if not len(steps):
            raise InputError("The sweeps have no two neighbouring frames with valid poses, so no motion is known.")
        return cls(steps.mean(axis=0))

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """The motion repeated."""
        return Trajectory.from_parameters(np.tile(self.parameters, (len(sweep) - 1, 1)), {"method": self.name})


class OwnMeanMotion:
    """The mean true motion of the sweep itself at every step: a reference, because it needs the truth."""

    name, uses, needs_truth = "own-mean-motion", "the truth", True

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """The mean of the sweep's own tracking, repeated."""
        steps = MeanMotion.calibrated([sweep]).parameters
        return Trajectory.from_parameters(np.tile(steps, (len(sweep) - 1, 1)), {"method": self.name})


class Network:
    """The network, or one of its encoders through its own head.

    Args:
        model: from :func:`~DualTrackCore.network.load_model`.
        head: "fusion" is the whole network; see :func:`~DualTrackCore.research.heads.estimate_with_head`.
        name: by default the card's, with the head where that is not "fusion".
        device, test_time_augmentation: as in :func:`~DualTrackCore.research.heads.estimate_with_head`.
    """

    uses = "images"

    def __init__(
        self,
        model: Model,
        head: Literal["fusion", "local", "global"] = "fusion",
        name: str | None = None,
        device: str = "auto",
        test_time_augmentation: int = 1,
    ) -> None:
        if head not in ("fusion", "local", "global"):
            raise InputError(f"The head {head!r} is unknown; choose fusion, local or global.")
        self.model, self.head, self.device, self._test_time_augmentation = model, head, device, test_time_augmentation
        own = model.card.name if head == "fusion" else f"{model.card.name} ({head} alone)"
        self.name = own if name is None else name

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """Run the network."""
        from DualTrackCore.research.heads import estimate_with_head

        return estimate_with_head(
            sweep,
            self.model,
            self.head,
            test_time_augmentation=self._test_time_augmentation,
            device=self.device,
            progress=progress,
            cancelled=cancelled,
        )


def parameter_count(method: Method) -> int | None:
    """Return the number of learned parameters, from the method itself or its network; None where it has neither."""
    count = getattr(method, "parameter_count", None)
    if count is not None:
        return int(count)
    network = getattr(getattr(method, "model", None), "network", None)
    return None if network is None else sum(parameter.numel() for parameter in network.parameters())


class Decorrelation:
    """Speckle decorrelation with curves from calibration sweeps.

    Args:
        curves: distance from correlation.
        gain: [3] what elevational motion, tilt and yaw as measured are multiplied with; below 1 where they are mostly
            noise.
        direction: sign of the elevational motion of a whole sweep: 1 or -1, assumed of every sweep, or "oracle":
            taken from the tracking of the sweep, which is then required.
    """

    def __init__(
        self, curves: DecorrelationCurves, gain: np.ndarray | None = None, direction: Literal[1, -1, "oracle"] = 1
    ) -> None:
        if direction not in (1, -1, "oracle"):
            raise InputError(f"The direction is {direction!r}; it must be 1, -1 or 'oracle'.")
        self.curves, self.direction = curves, direction
        self.gain = np.ones(3) if gain is None else np.asarray(gain, dtype=np.float64)
        self.needs_truth = direction == "oracle"
        self.name = "decorrelation (oracle direction)" if self.needs_truth else "decorrelation"
        self.uses = "images, true direction" if self.needs_truth else "images"

    @classmethod
    def calibrated(
        cls,
        sweeps: Iterable[Sweep],
        *,
        progress: ProgressCallback | None = None,
        cancelled: CancelledCallback | None = None,
    ) -> Decorrelation:
        """Fit the curves to tracked sweeps of one frame size, taken one at a time.

        Raises:
            InputError: no sweeps, one without tracking or spacing, different frame sizes, or no speckle.
            Cancelled: the caller asked to stop.
        """
        reporter, measured = Reporter(progress, cancelled), []
        for sweep in sweeps:
            measured.append((sweep_correlation(sweep, reporter), sweep.require_truth()))
            if len(measured[-1][0].grid.x_mm) != len(measured[0][0].grid.x_mm):
                raise InputError("The calibration sweeps differ in frame size; calibrate with sweeps of one size.")
        if not measured:
            raise InputError("Decorrelation needs at least one calibration sweep.")
        curves = DecorrelationCurves.fitted(measured)
        return cls(curves, _gain(curves, measured))

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """Trajectory of a sweep.

        Raises:
            InputError: fewer than two frames, no images, unknown spacing, frames too small for patches, or no tracking
                for the oracle direction.
            Cancelled: the caller asked to stop.
        """
        sign = self.direction
        if sign == "oracle":
            if sweep.truth is None:
                raise InputError(
                    "The sweep has no true poses, which the oracle direction needs; choose direction 1 or -1."
                )
            sign = elevational_direction(sweep.truth)
        measured = sweep_correlation(sweep, Reporter(progress, cancelled))
        parameters = np.zeros((len(sweep) - 1, 6))
        parameters[:, [0, 1, 5]] = in_plane_steps(measured)
        parameters[:, 2:5] = sign * self.gain * elevational_steps(self.curves, measured)
        return Trajectory.from_parameters(parameters, {"method": self.name, "uses": self.uses})


def _gain(curves: DecorrelationCurves, sweeps: Sequence[tuple[SweepCorrelation, Trajectory]]) -> np.ndarray:
    """[3] factors that bring what is measured nearest to the truth, by least squares over all steps."""
    product, square = np.zeros(3), np.full(3, 1e-12)
    for correlation, tracked in sweeps:
        true = tracked.parameters[:, 2:5] * elevational_direction(tracked)
        finite = np.isfinite(true).all(axis=1)
        measured = elevational_steps(curves, correlation)[finite]
        product += (measured * true[finite]).sum(axis=0)
        square += (measured**2).sum(axis=0)
    return product / square


#: Methods that need no weights, and those of them that are calibrated on tracked sweeps first.
SIMPLE = ("identity", "calibrated-mean-motion", "own-mean-motion", "decorrelation", "decorrelation-oracle-direction")
CALIBRATED = ("calibrated-mean-motion", "decorrelation", "decorrelation-oracle-direction")
#: Head and test-time augmentation by the word before the colon.
_HEADS = {"model": ("fusion", 1), "tta4": ("fusion", 4), "local": ("local", 1), "global": ("global", 1)}
_BASELINE = "baseline"


def require_method_names(names: Sequence[str]) -> None:
    """Raise :class:`InputError` for an unknown name."""
    for name in names:
        kind, _, weights = name.partition(":")
        if name not in SIMPLE and not (kind in (*_HEADS, _BASELINE) and weights):
            raise InputError(
                f"The method {name!r} is unknown; choose {', '.join(SIMPLE)}, model:M, tta4:M, local:M or "
                "global:M, where M is the name of a model or a weights file, or baseline:B, where B is the name of a "
                "trained baseline or its weights file."
            )


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Each file by the end of its path that no other has: its name without suffix, and folders where that is shared."""
    parts = {path: (*Path(path).parent.parts, Path(path).stem) for path in paths}
    short = {}
    for path, own in parts.items():
        tails = [own[-length:] for length in range(1, len(own) + 1)]
        others = [other for name, other in parts.items() if name != path]
        unique = (tail for tail in tails if not any(other[-len(tail) :] == tail for other in others))
        short[path] = "/".join(found) if (found := next(unique, None)) else path
    return short


def load_networks(names: Sequence[str], device: str = "auto") -> dict[str, Method]:
    """Load the methods among `names` that have weights; leave out the others.

    Args:
        names: as on the command line: "model:mini", "local:FILE", "baseline:FILE", ...
        device: of the networks.

    Raises:
        InputError: an unknown name.
        CheckpointError: weights that are missing, damaged or of another network.
    """
    require_method_names(names)
    parts = {name: name.partition(":")[::2] for name in names if ":" in name}
    short = short_names([weights for _, weights in parts.values()])
    networks: dict[str, Method] = {}
    for name, (kind, weights) in parts.items():
        label = f"{kind}:{short[weights]}"
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
    """Return methods by name, each once, in the order of their first mention.

    Args:
        names: as in :func:`load_networks`, or of :data:`SIMPLE`.
        calibration: opens the tracked sweeps on which the methods of :data:`CALIBRATED` are calibrated; called only
            if one of them is requested.
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
        if MeanMotion.name in names:
            made[MeanMotion.name] = MeanMotion.calibrated(_sweeps(dataset))
        if {"decorrelation", "decorrelation-oracle-direction"} & set(names):
            fitted = Decorrelation.calibrated(_sweeps(dataset), progress=progress, cancelled=cancelled)
            oracle = Decorrelation(fitted.curves, fitted.gain, "oracle")
            made |= {"decorrelation": fitted, "decorrelation-oracle-direction": oracle}
    return [made[name] for name in dict.fromkeys(names)]


def _sweeps(dataset: Dataset) -> Iterator[Sweep]:
    """One open at a time."""
    return (dataset.load(name) for name in dataset.names)
