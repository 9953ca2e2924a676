"""Model cards, and the catalogue of models that are published, ship or are installed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from DualTrackCore.errors import CheckpointError, InputError, reason_of
from DualTrackCore.files import json_text
from DualTrackCore.memory import format_bytes
from DualTrackCore.settings import build, check_settings, setting, short_text
from DualTrackCore.staging import restore_interrupted

#: Key of the card in a safetensors file's metadata.
CARD_KEY = "dualtrack_card"
#: Key in that metadata of the SHA-256 of the PyTorch file that a safetensors file was made of.
ORIGINAL_KEY = "dualtrack_original_sha256"
#: What PyTorch files start with: a zip archive or, the old ones, a pickle.
PICKLE_HEADS = (b"PK\x03\x04", b"\x80")
#: Of a card as JSON; one that names none has this one.
CARD_SCHEMA_VERSION = 1
#: Longer safetensors headers than this belong to no weights of this network.
_MAX_HEADER_BYTES = 1 << 24
#: How facts begin that only some cards state: those of weights with further heads, or trained on drawn acquisitions.
_OF_SOME = ("step_error_", "direction_sure_logit", "trained_ranges", "input_limits", "training_fingerprint")
_SixNumbers = tuple[float, float, float, float, float, float]
#: Pixel spacing that the millimetres of the published weights are baked in at, mm (columns, rows).
PUBLISHED_SPACING_MM = (0.22938919, 0.22097969)


@dataclass(frozen=True)
class ModelCard:
    """Facts about a set of weights; the defaults are those of unknown weights of the published network.

    Attributes:
        name, title, version: short name, as in `load_model(name)`; one line for a list; version of the weights.
        trained: whether the weights come from training; random weights give motions that mean nothing.
        simulated_only: whether the training saw nothing but simulated sweeps.
        architecture: arguments of :class:`~DualTrackCore.network.dualtrack.DualTrack`.
        spacing_mm: pixel spacing (columns, rows) that the millimetres are tied to.
        frame_size: (rows, columns) of the training frames at that spacing.
        frame_rate_hz: frame rate of the training sweeps, or None.
        global_mean, global_std: the global image is normalised as (grey / 255 - mean) / std. Both None where nobody
            states it; the weights themselves tell it then (:mod:`~DualTrackCore.network.statistics`).
        training_data, licence, licence_url: one sentence on what the weights saw; their licence.
        expected_error: one sentence, with the metric and the data it was measured on.
        bf16_error, fp16_error: largest change of a motion (mm or degrees) on sweeps of speckle when the trunks ran in
            bfloat16 or float16; None where nobody measured it, and then neither is chosen unasked and unchecked.
        step_error_correlation, step_error_freedom, step_error_powers, step_error_growth: how the errors of motions
            behave (:mod:`~DualTrackCore.uncertainty`), of each component tx to rz; the freedom is that of all. Where
            nobody measured it all of an error is the same in all steps, normal, and as large as the network states.
        trained_ranges: [least, greatest] by name of what the training sweeps were drawn from ("view.depth_mm",
            "motion.step_mm", ...); None where nobody states it, and then frame size and frame rate stand for it.
        input_limits: greatest distances from the training images, on whole frames and on local crops, of clips like
            the training sweeps (:mod:`~DualTrackCore.network.statistics`); None for the limits of sweeps of one kind.
        training_fingerprint: sizes, spacings, rates and motions of the training sweeps (`fingerprint`), or None.
        direction_sure_logit: log-odds, to either side, from which a direction head is sure; None where nobody measured
            it, and then it never is.
    """

    name: str = "unknown"
    title: str = "Weights without a model card"
    version: str = "unknown"
    trained: bool = True
    simulated_only: bool = False
    architecture: Mapping[str, Any] = field(default_factory=dict)
    spacing_mm: tuple[float, float] = setting(PUBLISHED_SPACING_MM, above=0)
    frame_size: tuple[int, int] = setting((480, 640), at_least=1)
    frame_rate_hz: float | None = setting(20.0, above=0)
    global_mean: float | None = None
    global_std: float | None = setting(None, above=0)
    training_data: str = "unknown"
    licence: str = "unknown"
    licence_url: str = ""
    expected_error: str = "unknown"
    bf16_error: float | None = setting(None, above=0)
    fp16_error: float | None = setting(None, above=0)
    step_error_correlation: _SixNumbers | None = setting(None, at_least=0, at_most=1)
    step_error_freedom: float | None = setting(None, above=2)
    step_error_powers: _SixNumbers | None = setting(None, above=0)
    step_error_growth: _SixNumbers | None = None
    direction_sure_logit: float | None = setting(None, at_least=0)
    trained_ranges: Mapping[str, Any] | None = None
    input_limits: tuple[float, float] | None = setting(None, above=0)
    training_fingerprint: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        try:
            check_settings(self, "The model card's")
        except InputError as error:
            raise CheckpointError(str(error)) from None

    def __reduce__(self) -> tuple[object, tuple]:
        # A mapping proxy cannot be pickled, and networks go to worker processes with their card.
        return partial(ModelCard, **self.as_dict()), ()

    @property
    def normalisation(self) -> tuple[float, float] | None:
        """(mean, std) of the global image where the card states it; one that it lacks is 0 or 1."""
        mean, std = self.global_mean, self.global_std
        return None if mean is None and std is None else (0.0 if mean is None else mean, 1.0 if std is None else std)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as written to JSON."""
        values = {**vars(self), "architecture": dict(self.architecture)}
        # The cards of other weights stay as they were.
        return {key: value for key, value in values.items() if value is not None or not key.startswith(_OF_SOME)}

    def to_json(self) -> str:
        """The card as JSON text."""
        return json_text({"schema_version": CARD_SCHEMA_VERSION, **self.as_dict()}).rstrip()

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelCard:
        """Read a card.

        Args:
            text: JSON.
            where: name of the source for error messages.

        Raises CheckpointError: not JSON, an unknown field, or a value of the wrong kind.
        """
        try:
            values = json.loads(text)
            version = values.pop("schema_version", 1) if isinstance(values, dict) else 1
            if version != CARD_SCHEMA_VERSION:
                raise InputError(
                    f"The model card {where} has schema version {short_text(version)}; "
                    f"this version reads {CARD_SCHEMA_VERSION}."
                )
            return build(cls, values, f"the model card {where}")
        except InputError as error:
            raise CheckpointError(str(error)) from None
        except ValueError as error:
            raise CheckpointError(f"The model card {where} is not JSON: {reason_of(error)}.") from None


def card_path(weights: Path) -> Path:
    """Where the card of a weights file lies: the same name with the suffix .json."""
    return weights.with_suffix(".json")


def read_card_beside(weights: Path) -> ModelCard | None:
    """The card beside a weights file, or None where there is none."""
    path = card_path(weights)
    return read_card(path) if path.is_file() else None


def read_card_inside(weights: Path) -> ModelCard | None:
    """The card inside a safetensors file, read without torch; None for another file or one without a card.

    Raises CheckpointError: the card in the file is none.
    """
    text = _metadata(weights).get(CARD_KEY)
    return ModelCard.from_json(text, weights.name) if isinstance(text, str) else None


def original_sha256(weights: Path) -> str | None:
    """The SHA-256 of the PyTorch file that a safetensors file was made of; None for every other file."""
    text = _metadata(weights).get(ORIGINAL_KEY)
    return text if isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) else None


def _metadata(weights: Path) -> Mapping[str, Any]:
    """The metadata of a safetensors file, empty for every other one."""
    try:
        with weights.open("rb") as file:
            # Eight bytes give the length of the JSON header that follows them.
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _MAX_HEADER_BYTES else None
    except (OSError, ValueError):
        return {}
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def read_card(path: Path) -> ModelCard:
    """The card in a JSON file. Raises CheckpointError: the file cannot be read, or is no card."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The model card {path} cannot be read: {error}.") from None
    return ModelCard.from_json(text, path.name)


#: What `load_model()` loads and `dualtrack run` uses where no other model is named.
DEFAULT_MODEL = "mini"
#: Names of the models that ship with the package; no other model can have one of them.
SHIPPED_MODELS = (DEFAULT_MODEL,)
#: Environment variable that names the folder of installed models.
FOLDER_VARIABLE = "DUALTRACK_MODELS"
#: Suffixes of installed weights; PyTorch files were installed as they are before they were converted.
SUFFIXES = (".safetensors", ".pt")
#: What a model can be called.
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NON_COMMERCIAL = {
    "licence": "CC BY-NC-SA 4.0",
    "licence_url": "https://creativecommons.org/licenses/by-nc-sa/4.0/",
}


@dataclass(frozen=True)
class ModelEntry:
    """A published model.

    Attributes:
        card: name, title and licence of the weights, and what they expect.
        url: where the file is.
        description: one sentence for a person who chooses.
        size_bytes: exact size, or None where the makers do not state it.
        about_bytes: rough size, or None where that is unknown too.
        sha256: of the file at `url`, hexadecimal, or None where the makers do not state it.
    """

    card: ModelCard
    url: str
    description: str
    size_bytes: int | None = None
    about_bytes: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        """Short name, as in `load_model(name)`."""
        return self.card.name

    @property
    def size_text(self) -> str:
        """The exact size, else the rough one, else "size unknown"."""
        if self.size_bytes is not None:
            return format_bytes(self.size_bytes)
        return "size unknown" if self.about_bytes is None else f"about {format_bytes(self.about_bytes)}"


@dataclass(frozen=True)
class InstalledModel:
    """A weights file that ships with the package or lies in the models folder.

    Attributes:
        name: as in `load_model(name)`.
        path: of the weights.
        size_bytes: of the file.
        sha256: recorded when the file arrived, or shipped beside it; None without a record.
        ships: whether it is part of the package.
        original_sha256: of the PyTorch file that it was made of; None where it came as it is.
    """

    name: str
    path: Path
    size_bytes: int
    sha256: str | None
    ships: bool = False
    original_sha256: str | None = None


#: What all of TUS-REC has in common.
_TUS_REC = "healthy forearms, one curvilinear probe (4DC7-3/40, 6 MHz, 83 dB, depth 9 cm), 20 frames a second"


def published_models() -> dict[str, ModelEntry]:
    """The models that can be downloaded by name, the more general first."""
    tusrec2024 = ModelCard(
        name="dualtrack-tusrec2024",
        title="DualTrack, TUS-REC 2024",
        version="2024",
        training_data=f"TUS-REC 2024: {_TUS_REC}, 250 to 710 frames a sweep.",
        expected_error="4.9 mm five-point global error on the TUS-REC 2024 validation sweeps, as published.",
        **_NON_COMMERCIAL,
    )
    tusrec2025 = ModelCard(
        name="dualtrack-tusrec2025",
        title="DualTrack, TUS-REC 2025 challenge",
        version="2025",
        training_data=f"TUS-REC 2024, then TUS-REC 2025: {_TUS_REC}, about 1500 frames a sweep.",
        expected_error="9.25 mm all-pixel global error on the hidden TUS-REC 2025 test sweeps, as published.",
        **_NON_COMMERCIAL,
    )
    entries = (
        ModelEntry(
            tusrec2024,
            "https://downloads.imfusion.com/DualTrack/dualtrack_final.pt",
            "The weights of the paper, for sweeps of up to 1024 frames.",
            about_bytes=408_000_000,
        ),
        ModelEntry(
            tusrec2025,
            "https://downloads.imfusion.com/DualTrack/dualtrack_ft_tus_rec_2025_v3_best.pt",
            "The weights that won the 2025 challenge, for long and rotating sweeps of up to 4096 frames.",
        ),
    )
    return {entry.name: entry for entry in entries}


def find_entry(name: str) -> ModelEntry:
    """The published model of that name. Raises InputError: there is none; names those there are."""
    entries = published_models()
    if name not in entries:
        raise InputError(f"There is no model {name!r} to fetch; published models are {', '.join(entries)}.")
    return entries[name]


def published_card(name: str) -> ModelCard | None:
    """The card of the published model of that name; None where there is none."""
    entry = published_models().get(name)
    return None if entry is None else entry.card


def models_folder() -> Path:
    """Where models are installed: the folder that DUALTRACK_MODELS names, else one of the user's data folders."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "DualTrack" / "models"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "DualTrack" / "models"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "dualtrack" / "models"


def profile_paths(folder: Path | None = None) -> dict[str, Path]:
    """The files of the user's scanner profiles by name, beside the models in a folder or in the usual one."""
    found = sorted(((folder or models_folder()) / "profiles").glob("*.yaml"))
    return {path.stem: path for path in found if MODEL_NAME.fullmatch(path.stem)}


def shipped_folder() -> Path:
    """Where the shipped weights lie: each a `NAME.safetensors` with its checksum in `NAME.safetensors.sha256`."""
    return Path(__file__).resolve().parent / "weights"


def installed_models(folder: Path | None = None) -> list[InstalledModel]:
    """The models that ship with the package and those in the folder, by name."""
    shipped = [path for path in map(_shipped_path, SHIPPED_MODELS) if path.is_file()]
    folder = folder or models_folder()
    with contextlib.suppress(OSError):  # a place that is closed to writing
        restore_interrupted(folder)
    fetched = [
        path
        for path in folder.glob("*")
        if path.suffix in SUFFIXES and MODEL_NAME.fullmatch(path.stem) and path.stem not in SHIPPED_MODELS
    ]
    return [
        InstalledModel(p.stem, p, p.stat().st_size, recorded_sha256(p), p in shipped, original_sha256(p))
        for p in sorted([*fetched, *shipped], key=lambda p: p.name)
    ]


def installed_path(name: str, folder: Path | None = None) -> Path:
    """The weights file of a model that ships or is installed, or that the folder of a training run holds.

    Raises CheckpointError: not installed; says how to get it.
    """
    if os.path.isfile(trained := os.path.join(name, "model.safetensors")):
        return Path(trained)
    models = {model.name: model for model in installed_models(folder)}
    if name in models:
        return models[name].path
    if name in SHIPPED_MODELS:
        raise CheckpointError(
            f"The model {name} ships with DualTrack, but this installation lacks its file {_shipped_path(name)}; "
            "install DualTrack again, or name another model."
        )
    if name in published_models():
        how = f"`dualtrack models fetch {name}` downloads it, `dualtrack models import {name} FILE` takes a file"
        raise CheckpointError(f"The model {name} is not installed: {how}.")
    names = ", ".join(sorted({*models, *published_models()}))
    raise CheckpointError(f"There is no file and no model {name!r}; models are {names}.")


def installed_card(model: InstalledModel) -> ModelCard | None:
    """The card of a model: inside its file, else beside it, else the published one; None where there is none.

    Raises CheckpointError: the card cannot be read.
    """
    return read_card_inside(model.path) or read_card_beside(model.path) or published_card(model.name)


def record_path(weights: Path) -> Path:
    """Where the checksum of a weights file is recorded."""
    return weights.with_name(weights.name + ".sha256")


def recorded_sha256(weights: Path) -> str | None:
    """The checksum that is recorded beside a weights file; None without one."""
    try:
        words = record_path(weights).read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError):
        return None
    return words[0] if words and re.fullmatch(r"[0-9a-f]{64}", words[0]) else None


def _shipped_path(name: str) -> Path:
    return shipped_folder() / f"{name}.safetensors"
