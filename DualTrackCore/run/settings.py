"""What a run is asked for: every choice once, with its default, limits, unit and the sentence that explains it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from DualTrackCore.corrections import AUTO, CORRECTIONS_GROUP, NO_PROFILE, Corrections
from DualTrackCore.errors import InputError, named
from DualTrackCore.files import plain_values, read_yaml
from DualTrackCore.reconstruction import Fan
from DualTrackCore.settings import build, check_settings, setting

NOTICE = "Research use only; not for diagnosis. Millimetres are estimates."
#: Groups of settings; a command of the command line takes the options of some of them.
INPUT, POSES, NETWORK, FRAMES, VOLUME, RESULTS = "input", "poses", "network", "frames", "volume", "results"
#: The settings of this one prepare the pictures, in their order (:mod:`DualTrackCore.run.preparation`).
PICTURES = "pictures, in this order; rectangles count pixels of the turned and mirrored picture before the crop"
#: Values of `poses` that are no file.
ESTIMATE, TRACKED = "estimate", "tracked"


def _fan_of_numbers(value: object) -> object:
    """A fan from x, y, left, right, start, stop and perhaps the aspect, as the command line gives it."""
    if isinstance(value, list | tuple) and len(value) in (6, 7):
        return Fan(tuple(value[:2]), tuple(value[2:4]), tuple(value[4:6]), *value[6:])
    return value


def _rectangles_of_text(value: object) -> object:
    """Rectangles from "x,y,width,height;...", as the command line gives them."""
    if isinstance(value, str) and value not in ("auto", "none"):
        with contextlib.suppress(ValueError):
            return [[int(number) for number in box.split(",")] for box in value.split(";")]
    return value


@dataclass(frozen=True)
class RunSettings:
    """Everything that a run is asked for, checked when it is made; the fields say what each setting means.

    Command-line options, validation, the limits of the panel and the YAML file of a run are derived from the fields.

    Raises InputError: a value of the wrong kind or out of range.
    """

    spacing_mm: float | tuple[float, float] | None = setting(
        None,
        help="pixel size: one number, or columns,rows; needed where the file does not state it; goes before the file's "
        "own",
        unit="mm",
        above=0,
        at_most=10,
        group=INPUT,
        option="spacing",
        metavar="MM",
    )
    calibration: str | None = setting(
        None,
        help="image-to-probe calibration of a tracked sweep: PLUS XML, transform of Slicer or ITK (.tfm, .h5, .txt), "
        "4x4 text, or calib_matrix.csv",
        group=INPUT,
        metavar="FILE",
    )
    probe: str | None = setting(
        None,
        help="tracked device that carries the transducer, where the calibration has several or another name for it",
        expects="a name",
        group=INPUT,
        metavar="NAME",
    )
    series: str | None = setting(
        None,
        help="which one of several series in a folder of DICOM or a DICOMDIR: its number in the list that is shown "
        "without it, its UID, its description, or the name of its file",
        expects="a number or a name",
        group=INPUT,
        metavar="S",
    )
    memory_gb: float | None = setting(
        None,
        help="most memory that the program may hold, where it is to be less than the machine and its limits allow",
        unit="GB",
        above=0,
        group=INPUT,
        option="memory",
        metavar="GB",
    )
    poses_are: Literal["measured", "simulated", "estimated"] | None = setting(
        None,
        help="where poses are from whose file does not say it, the sweep's own or those of a .csv; errors are measured "
        "against measured and simulated ones only",
        group=POSES,
    )
    direction: Literal["auto", "as-found", "other-way"] = setting(
        "auto",
        help="which way along the sweep the probe moved, which pictures alone hardly tell: auto as the weights say, "
        "as-found as they see the motion without asking for its direction, other-way the mirror image of that, or of "
        "the estimated poses of a file",
        group=POSES,
    )
    model: str = setting(
        "mini",
        help="name of a model that ships or is installed, a weights file, or the folder of a training run",
        expects="a name or a file",
        group=NETWORK,
        metavar="M",
    )
    card: str | None = setting(
        None, help="model card (JSON) of a weights file that has none", group=NETWORK, metavar="FILE"
    )
    device: str = setting(
        "auto",
        help="auto, cpu, cuda, cuda:0, ..., mps, or the address of a server (https://host:port)",
        expects="a device's name",
        group=NETWORK,
        metavar="DEVICE",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = setting(
        "auto", help="number format of the convolutional networks", group=NETWORK
    )
    chunk_frames: int | Literal["auto"] = setting(
        "auto", help="frames through the network at a time", at_least=1, group=NETWORK, option="chunk", metavar="N"
    )
    test_time_augmentation: Literal[1, 2, 4] = setting(
        1,
        help="run the network on the sweep as it is (1), mirrored as well (2), and both backwards as well (4), and "
        "take the mean of those that agree: steadier in-plane motion for two or four times the time",
        group=NETWORK,
        option="tta",
    )
    poses: str = setting(
        ESTIMATE,
        help="estimate: from the images; tracked: those of the sweep's own tracking; or a trajectory .csv",
        expects="estimate, tracked or a trajectory .csv",
        metavar="estimate|tracked|FILE",
    )
    first_frame: int = setting(
        0, help="first frame that is used, counted from 0", at_least=0, group=FRAMES, metavar="N"
    )
    last_frame: int | None = setting(
        None,
        help="last frame that is used, counted from 0; none: the last of the sweep",
        at_least=0,
        group=FRAMES,
        metavar="N",
    )
    repeats: Literal["drop", "keep"] = setting(
        "drop",
        help="frames that show the picture before them again, as a fast recorder or a frozen scanner makes them: drop "
        "leaves them out of tracking and volume and gives them the pose of that picture, keep takes them as frames",
        group=FRAMES,
    )
    rotate: Literal[0, 90, 180, 270] = setting(0, help="turn the picture clockwise by so many degrees", group=PICTURES)
    mirror: bool = setting(
        False,
        help="mirror the picture left to right, after it is turned; tracked poses stay true, as of the same plane seen "
        "from behind",
        group=PICTURES,
    )
    crop: tuple[int, int, int, int] | None = setting(
        None,
        help="rectangle of each frame that is used; what is cropped away reaches neither network nor files",
        expects="x, y, width, height in whole pixels, the sizes at least 1",
        group=PICTURES,
        metavar="X,Y,W,H",
    )
    depth_mm: float | None = setting(
        None,
        help="what the picture shows from the probe to its greatest depth, as the scanner says it: gives the pixel "
        "size, over the rows of the crop where there is one, else of the image area that is found, else of the picture",
        unit="mm",
        above=0,
        at_most=1000,
        group=PICTURES,
        metavar="MM",
    )
    mask: tuple[tuple[int, int, int, int], ...] | Literal["auto", "none"] = setting(
        "auto",
        help="what is blacked out for network, volume and files: auto text and marks that stand still beside the "
        "ultrasound, so that a name does not travel, none, or rectangles",
        expects="auto, none, or rectangles x,y,width,height in whole pixels with ; between them",
        convert=_rectangles_of_text,
        group=PICTURES,
        metavar="auto|none|X,Y,W,H;...",
    )
    profile: str = setting(
        AUTO,
        help="scanner profile by which the elevational motion is scaled: a name of `dualtrack profile list`, or its "
        "file; auto: the one that was made with the scanner or probe that the file names, at its depth and frequency; "
        "none",
        expects="auto, none, a name or a file",
        group=CORRECTIONS_GROUP,
        metavar="auto|none|NAME|FILE",
    )
    corrections: Corrections = setting(
        Corrections(), help="what is known of the sweep, put into its path", expects="a mapping of what is known"
    )
    evaluate: bool = setting(True, help="measure the error where a tracker measured the sweep", group=RESULTS)
    reconstruct: bool = setting(True, help="reconstruct the volume", group=RESULTS)
    pictures: bool = setting(True, help="draw preview pictures", group=RESULTS)
    slicer: bool = setting(
        False,
        help="write scene.mrb as well: volume and moving frames in one file that 3D Slicer opens by drag and drop",
        group=RESULTS,
    )
    uncertainty_volume: bool = setting(
        False,
        help="write uncertainty.nrrd as well: how far what each voxel shows may lie from its true place, in mm",
        group=RESULTS,
    )
    voxel_mm: float | tuple[float, float, float] | None = setting(
        None,
        help="voxel size: one number, or x,y,z; none: chosen from the sweep",
        unit="mm",
        above=0,
        at_most=100,
        group=VOLUME,
        option="voxel",
        metavar="MM",
    )
    interpolation: Literal["linear", "nearest"] = setting(
        "linear", help="spread a pixel over the eight voxels around it, or give it to the nearest", group=VOLUME
    )
    compounding: Literal["mean", "maximum", "latest"] = setting(
        "mean", help="value of a voxel that several pixels reach", group=VOLUME
    )
    hole_filling: Literal["stick", "none", "nearest", "distance", "gaussian"] = setting(
        "stick", help="of voxels that no pixel reached; stick fills only between seen ones", group=VOLUME
    )
    axes: Literal["frame0", "principal"] = setting(
        "frame0", help="axes of the volume: those of the first frame, or the principal axes of the sweep", group=VOLUME
    )
    frame: Literal["frame0", "reference"] = setting(
        "frame0",
        help="frame of reference of the volume: the first frame, or the reference of the tracking",
        group=VOLUME,
    )
    clip: tuple[int, int, int, int] | None = setting(
        None,
        help="rectangle of each frame that goes into the volume, in pixels, up to column x + w and row y + h",
        expects="x, y, width, height in whole pixels, the sizes at least 1",
        group=VOLUME,
        metavar="X,Y,W,H",
    )
    fan: Fan | Literal["none", "auto"] = setting(
        "none",
        help="sector of a curvilinear probe: none, auto (find the image area), or origin x,y, angles left,right in "
        "degrees and radii start,stop, in pixels",
        expects="a fan or one of none, auto",
        convert=_fan_of_numbers,
        group=VOLUME,
        metavar="none|auto|X,Y,LEFT,RIGHT,START,STOP",
    )
    reject_below: int = setting(
        0,
        help="leave pixels out that are darker than this grey value",
        at_least=0,
        at_most=255,
        group=VOLUME,
        metavar="GREY",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("model", "device", "poses", "profile"):
            if not getattr(self, name):
                raise InputError(f"The setting {name} is empty; give a value or leave it out.")
        if self.server:
            from DualTrackCore.remote.consent import checked_address

            checked_address(self.server)
        if self.last_frame is not None and self.last_frame < self.first_frame:
            raise InputError(
                f"{named('last_frame')} is {self.last_frame}; expected at least {self.first_frame}, the first frame."
            )
        for name, box in [("clip", self.clip), ("crop", self.crop), *(("mask", box) for box in self.mask_regions)]:
            if box is not None and (min(box[:2]) < 0 or min(box[2:]) < 1):
                raise InputError(
                    f"The setting {name} is {box}; expected x, y, width, height in whole pixels, the sizes at least 1."
                )
        if self.depth_mm is not None and self.spacing_mm is not None:
            raise InputError(
                f"{named('depth_mm')} and {named('spacing_mm')} both give the pixel size; leave out one of the two."
            )

    def frame_range(self, frames: int) -> tuple[int, int]:
        """(start, stop) of the frames used in a sweep of so many, as a Python slice counts.

        Raises InputError: the range reaches beyond the sweep.
        """
        last = frames - 1 if self.last_frame is None else self.last_frame
        if max(self.first_frame, last) >= frames:
            raise InputError(
                f"The frames {self.first_frame} to {last} are not all in the sweep, "
                f"which has the frames 0 to {frames - 1}; choose a smaller range."
            )
        return self.first_frame, last + 1

    @property
    def server(self) -> str:
        """Address of the server that the network runs on; empty where it runs on this computer."""
        return self.device if "://" in self.device else ""

    @property
    def changes_pictures(self) -> bool:
        """Whether pictures are turned, mirrored, cropped, measured by depth or masked where the user says."""
        return bool(self.rotate or self.mirror or self.crop or self.depth_mm or self.mask_regions)

    @property
    def mask_regions(self) -> tuple[tuple[int, int, int, int], ...]:
        """The rectangles (x, y, width, height) that the user wants blacked out."""
        return () if isinstance(self.mask, str) else self.mask

    @property
    def names_profile(self) -> bool:
        """Whether the user wants a certain scanner profile."""
        return self.profile not in (AUTO, NO_PROFILE)

    @property
    def reading(self) -> dict[str, Any]:
        """What :func:`~DualTrackCore.io.load_sweep` is told."""
        return {name: getattr(self, name) for name in ("calibration", "spacing_mm", "probe", "series")}

    def chosen(self, *names: str) -> dict[str, Any]:
        """Some of the settings by name, for a function with arguments of these names."""
        return {name: getattr(self, name) for name in names}

    def with_whole_paths(self) -> RunSettings:
        """The same settings with files named from the root, for another folder or process."""
        changes: dict[str, Any] = {name: os.path.abspath(path) for name, path in self._named_files().items()}
        known = {name: os.path.abspath(path) for name, path in self.corrections.files.items()}
        return replace(self, **changes, corrections=replace(self.corrections, **known))

    @property
    def files(self) -> list[str]:
        """The files that the settings name."""
        return [*self._named_files().values(), *self.corrections.files.values()]

    def _named_files(self) -> dict[str, str]:
        files = {name: getattr(self, name) for name in ("card", "calibration")}
        if self.poses not in (ESTIMATE, TRACKED):
            files["poses"] = self.poses
        if os.path.isfile(self.model):
            files["model"] = self.model
        if self.names_profile and os.path.isfile(self.profile):
            files["profile"] = self.profile
        return {name: path for name, path in files.items() if path is not None}

    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON and YAML."""
        return plain_values(self)

    @classmethod
    def from_dict(cls, values: object, where: str = "the settings") -> RunSettings:
        """Settings from :meth:`as_dict`; what is missing has its default.

        Raises InputError: no mapping, a key that no setting has, or a value that cannot be used; one sentence.
        """
        return build(cls, values, where)

    def to_yaml(self) -> str:
        """The settings as YAML, a line each, for :meth:`from_yaml`."""
        import yaml

        return yaml.safe_dump(self.as_dict(), sort_keys=False)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike, changes: Mapping[str, Any] | None = None) -> RunSettings:
        """Settings from a YAML file, with `changes` put over it.

        Raises InputError: the file cannot be read, is not YAML, or as for :meth:`from_dict`.
        """
        path = Path(path)
        values = read_yaml(path, "the settings")
        values = {} if values is None else values
        if isinstance(values, Mapping):
            values = _with_changes(values, changes or {})
        return cls.from_dict(values, path.name)


def _with_changes(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others over them; of settings that are a mapping what changes alone."""
    found = {**values, **changes}
    for name, change in changes.items():
        if isinstance(change, Mapping) and isinstance(values.get(name), Mapping):
            found[name] = {**values[name], **change}
    return found
