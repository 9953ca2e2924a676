"""Ways to get a trajectory from a sweep, all behind one interface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from DualTrackCore.errors import InputError
from DualTrackCore.progress import CancelledCallback, ProgressCallback
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

if TYPE_CHECKING:
    from DualTrackCore.network.model import Model


@runtime_checkable
class Method(Protocol):
    """Something that says where the frames of a sweep lie.

    A method may also have `parameter_count`, how many numbers it learned, and `fingerprint`, a text that changes
    whenever its results may: without one its attributes are looked at (see
    :func:`~DualTrackCore.research.comparison.fingerprint.fingerprint`).

    Attributes:
        name: short, in tables.
        uses: what it is given of a sweep: "nothing", "images", or more, which every table then says.
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
        """Trajectory of all frames; raises :class:`~DualTrackCore.errors.DualTrackError` where there is none."""
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

    name, uses = "mean-motion", "nothing"

    def __init__(self, parameters: np.ndarray) -> None:
        self.parameters = np.array(parameters, dtype=np.float64)
        if self.parameters.shape != (6,) or not np.isfinite(self.parameters).all():
            raise InputError(f"The mean motion is {parameters!r}; expected 6 finite numbers (mm, degrees).")

    @classmethod
    def calibrated(cls, sweeps: Iterable[Sweep]) -> MeanMotion:
        """The mean over all steps of tracked sweeps.

        Raises:
            InputError: a sweep without tracking, or no step with two valid poses.
        """
        steps = [_tracked(sweep, "A calibration sweep").parameters for sweep in sweeps]
        known = [values[np.isfinite(values).all(axis=1)] for values in steps]
        if not sum(len(values) for values in known):
            raise InputError("The calibration sweeps have no two neighbouring frames with valid poses.")
        return cls(np.concatenate(known).mean(axis=0))

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """The motion repeated."""
        return Trajectory.from_parameters(np.tile(self.parameters, (len(sweep) - 1, 1)), {"method": self.name})


class OwnMeanMotion:
    """The mean true motion of the sweep itself at every step: a yardstick, since it needs the truth."""

    name, uses = "own-mean-motion", "the truth"

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """The mean of the sweep's own tracking, repeated."""
        _tracked(sweep, "The sweep")
        steps = MeanMotion.calibrated([sweep]).parameters
        return Trajectory.from_parameters(np.tile(steps, (len(sweep) - 1, 1)), {"method": self.name})


class Network:
    """The network, or one of its encoders through its own head.

    Args:
        model: from :func:`~DualTrackCore.network.load_model`.
        head: "fusion" is the whole network; see :func:`~DualTrackCore.tracking.estimate_with_head`.
        name: by default the card's, with the head where that is not "fusion".
        device, test_time_augmentation: as in :func:`~DualTrackCore.tracking.estimate_with_head`.
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
        self.model, self.head, self._device, self._test_time_augmentation = model, head, device, test_time_augmentation
        own = model.card.name if head == "fusion" else f"{model.card.name} ({head} alone)"
        self.name = own if name is None else name

    def estimate(
        self, sweep: Sweep, *, progress: ProgressCallback | None = None, cancelled: CancelledCallback | None = None
    ) -> Trajectory:
        """What the network makes of the images."""
        from DualTrackCore.research.heads import estimate_with_head

        return estimate_with_head(
            sweep,
            self.model,
            self.head,
            test_time_augmentation=self._test_time_augmentation,
            device=self._device,
            progress=progress,
            cancelled=cancelled,
        )


def parameter_count(method: Method) -> int | None:
    """How many numbers the method learned: what it says itself, or those of its network; None where it has neither."""
    count = getattr(method, "parameter_count", None)
    if count is not None:
        return int(count)
    network = getattr(getattr(method, "model", None), "network", None)
    return None if network is None else sum(parameter.numel() for parameter in network.parameters())


def _tracked(sweep: Sweep, what: str) -> Trajectory:
    if sweep.tracked is None:
        raise InputError(f"{what} has no tracking, so its true motion is unknown; choose a tracked sweep.")
    return sweep.tracked
