"""What is known of a sweep, put into its path: lengths, marks, places, limits, poses from elsewhere, scales."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from DualTrackCore import lazy_exports
from DualTrackCore.errors import InputError, named
from DualTrackCore.settings import check_settings, setting

if TYPE_CHECKING:
    from DualTrackCore.corrections.knowledge import Knowledge as Knowledge
    from DualTrackCore.corrections.knowledge import KnownLength as KnownLength
    from DualTrackCore.corrections.knowledge import KnownPoses as KnownPoses
    from DualTrackCore.corrections.knowledge import KnownScale as KnownScale
    from DualTrackCore.corrections.knowledge import Limits as Limits
    from DualTrackCore.corrections.knowledge import SamePlace as SamePlace
    from DualTrackCore.corrections.knowledge import SamePoint as SamePoint
    from DualTrackCore.corrections.path import correct as correct
    from DualTrackCore.corrections.proposals import propose_loops as propose_loops
    from DualTrackCore.corrections.reading import knowledge_of as knowledge_of

__getattr__, __dir__, _lazy = lazy_exports(
    __name__,
    {
        "knowledge": ["Knowledge", "KnownLength", "KnownPoses", "KnownScale", "Limits", "SamePlace", "SamePoint"],
        "path": ["correct"],
        "proposals": ["propose_loops"],
        "reading": ["knowledge_of"],
    },
)
__all__ = ["Corrections", "Mark", *_lazy]
#: Group of the options of the command line.
CORRECTIONS_GROUP = "what is known of the sweep; frames count from 0 in the clip"
#: Value of `tracker`: the transforms of the clip itself.
CLIP = "clip"
#: Values of a run's `profile` that name no scanner profile.
AUTO, NO_PROFILE = "auto", "none"


def _pairs_of_text(value: object) -> object:
    """Pairs of whole numbers from "first,last;...", as the command line gives them."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return [[int(number) for number in pair.split(",")] for pair in value.split(";")]
    return value


def _known(default: Any, text: str, unit: str = "", **facts: Any) -> Any:
    limits = {"mm": {"above": 0, "at_most": 1000}, "degrees": {"above": 0, "at_most": 180}}.get(unit, {})
    return setting(default, help=text, unit=unit, group=CORRECTIONS_GROUP, **{**limits, **facts})


_FRAMES = "pairs of frames first,last with ; between them"


@dataclass(frozen=True)
class Mark:
    """A point that was marked in a frame, in pixels of the turned and mirrored picture before the crop."""

    point: str = setting(help="name of the point")
    frame: int = setting(help="frame of the clip", at_least=0)
    x: float = setting(help="column")
    y: float = setting(help="row")

    def __post_init__(self) -> None:
        check_settings(self, "Of a mark")


@dataclass(frozen=True)
class Corrections:
    """What is known of a sweep; without any of it a path stays as it is (:mod:`DualTrackCore.corrections`).

    Raises InputError: a value of the wrong kind or out of range, or one that has no use alone.
    """

    known_length_mm: float | None = _known(
        None,
        "length of the path of the image centre, or with known_length_frames the distance between two frames; the "
        "motion is scaled so that it has that length",
        "mm",
        at_most=10000,
        metavar="MM",
    )
    known_length_frames: tuple[int, int] | None = _known(
        None, "the two frames whose distance is known", at_least=0, metavar="FIRST,LAST"
    )
    known_length_accuracy_mm: float = _known(
        1.0, "how well the length is known (standard deviation)", "mm", metavar="MM"
    )
    scale: Literal["elevational", "all"] = _known(
        "elevational", "what a known length scales: elevational (tz, rx and ry of each motion), or all positions"
    )
    places: tuple[Mark, ...] | str | None = _known(
        None,
        "table of points that are marked in two or more frames each: .csv with the columns point, frame, x and y, in "
        "pixels of the turned and mirrored picture before the crop",
        expects="a .csv file",
        metavar="FILE",
    )
    places_accuracy_mm: float = _known(1.0, "how well a point is marked (standard deviation)", "mm", metavar="MM")
    loops: tuple[tuple[int, int], ...] = _known(
        (),
        "pairs of frames at the same place: the probe came back",
        at_least=0,
        expects=_FRAMES,
        convert=_pairs_of_text,
        metavar="FIRST,LAST;...",
    )
    loops_accuracy_mm: float = _known(2.0, "how near such frames lie (standard deviation)", "mm", metavar="MM")
    loops_accuracy_deg: float = _known(
        3.0, "how alike such frames are turned (standard deviation)", "degrees", metavar="DEGREES"
    )
    monotone: bool = _known(False, "the probe never moved back across its images")
    most_step_mm: float | None = _known(None, "longest way from one frame to the next", "mm", metavar="MM")
    most_turn_deg: float | None = _known(None, "largest turn from one frame to the next", "degrees", metavar="DEGREES")
    stops: tuple[tuple[int, int], ...] = _known(
        (),
        "first and last frames between which the probe stood still",
        at_least=0,
        expects=_FRAMES,
        convert=_pairs_of_text,
        metavar="FIRST,LAST;...",
    )
    orientations: str | None = _known(
        None,
        "orientations of an IMU: .csv with the columns qw, qx, qy, qz (of the image in any fixed world) and frame or "
        "time_s",
        metavar="FILE",
    )
    orientations_accuracy_deg: float = _known(
        1.0, "how well they are known (standard deviation)", "degrees", metavar="DEGREES"
    )
    tracker: str | None = _known(
        None,
        "poses of a tracker that may have drop-outs: clip (the clip's own transforms), a trajectory .csv with valid 0 "
        "where a pose is missing, or a .csv with the columns frame, x_mm, y_mm, z_mm",
        expects="clip or a .csv file",
        metavar="clip|FILE",
    )
    tracker_accuracy_mm: float = _known(
        1.0, "how well its positions are known (standard deviation)", "mm", metavar="MM"
    )
    tracker_accuracy_deg: float = _known(
        1.0, "how well its orientations are known (standard deviation)", "degrees", metavar="DEGREES"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.known_length_frames is not None and self.known_length_mm is None:
            raise InputError(f"{named('known_length_frames')} has no length; give {named('known_length_mm')} as well.")
        for name in ("places", "orientations", "tracker"):
            if getattr(self, name) == "":
                raise InputError(f"The setting {name} is empty; give a file or leave it out.")

    def __bool__(self) -> bool:
        """Whether anything is known: accuracies alone are nothing."""
        names = ("known_length_mm", "places", "loops", "monotone", "most_step_mm", "most_turn_deg", "stops")
        return any(getattr(self, name) for name in (*names, "orientations", "tracker"))

    @property
    def files(self) -> dict[str, str]:
        """The files that the settings name, by setting."""
        files = {name: getattr(self, name) for name in ("places", "orientations", "tracker")}
        return {name: path for name, path in files.items() if isinstance(path, str) and path != CLIP}
