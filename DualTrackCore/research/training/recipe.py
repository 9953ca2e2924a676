"""Recipes: all settings of one stage of training, in one short YAML file.

A file may name another one under `base` and replaces its values key by key. Recipes that ship are named without folder
and suffix (`mini/local1`, `paper/fusion`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import yaml

from DualTrackCore.errors import InputError, reason_of
from DualTrackCore.settings import build, check_settings, setting, short_text

Stage = Literal[
    "local1", "local2", "local3", "global", "fusion", "finetune1", "finetune2", "direction", "heads", "baseline"
]
#: Stages on windows of consecutive frames; `global` uses randomly drawn frames, the others whole sweeps.
WINDOW_STAGES = ("local1", "local2", "baseline")
#: Stages that train the global encoder.
GLOBAL_STAGES = ("global", "fusion", "finetune1", "finetune2", "direction", "heads")
#: Stages that can use stored class tokens, because trunk and ViT are frozen.
TOKEN_STAGES = ("local3", "fusion", "finetune1")
PRECISIONS = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}
#: Folder of the recipes and plans that ship.
RECIPES = Path(__file__).with_name("recipes")


class _Checked:
    """A part of a recipe, whose fields are checked when it is made."""

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Initial(_Checked):
    """Weights to start from: a .safetensors file, the folder of an earlier stage, its `output` name, or a model.

    Attributes:
        all: the whole network.
        local_encoder, global_encoder: one encoder each; replaces that of `all`.
        local_trunk: only the local encoder's 3D trunk; replaces that of the others, and fits a crop of any size.
        direction: weights whose global encoder, without the image backbone, initialises the direction head.
        positions: the global encoder's position table without given weights: "random", as published, or "waves", which
            encode the order of the frames from the first step on.
    """

    all: str | None = None
    local_encoder: str | None = None
    global_encoder: str | None = None
    local_trunk: str | None = None
    direction: str | None = None
    positions: Literal["random", "waves"] = "random"


@dataclass(frozen=True)
class Backbone(_Checked):
    """The global encoder's image backbone.

    Attributes:
        name: a timm model; None keeps `model.global_backbone` (by default the published trunk).
        weights: a local checkpoint of the pretrained backbone, .safetensors or PyTorch.
        train: "full"; "frozen"; or "lora": only adapters on the attention are trained, and merged into the result.
        rank: of the adapters.
        pixels: normalisation of RGB images in the pretraining: "imagenet" (mean and deviation of ImageNet) or "unit"
            (0 to 1, as in MedSAM).
    """

    name: str | None = None
    weights: str | None = None
    train: Literal["frozen", "full", "lora"] = "full"
    rank: int = setting(32, at_least=1)
    pixels: Literal["imagenet", "unit"] = "imagenet"


@dataclass(frozen=True)
class Data(_Checked):
    """The sweeps for training and validation.

    Attributes:
        kind: "simulated", "tusrec" or "dualtrack_h5".
        seeds, validation_seeds: simulated: first seed, and one past the last.
        frames: simulated: frames of a sweep.
        families: simulated: families of paths, in turn; None draws one by seed.
        speckles: simulated: number of speckle volumes that training sweeps share (a volume takes longer than the rest
            of a sweep); validation has as many of its own. None: one for every sweep.
        acquisitions: simulated: whether probe, scanner, view, motion, tissue and contact are drawn for every sweep, and
            the scanner again for every item (:mod:`~DualTrackCore.research.simulation.acquisition`).
        plain, plain_frames: simulated: number and frames of additional sweeps of a linear probe with every effect off
            (a tenth as many for validation); their seeds follow the others.
        store: simulated: whether sweeps are stored in the cache folder; else they are simulated at every start.
        folder, validation_folder: tusrec: folders to search for sweeps.
        csv: dualtrack_h5: table with `sweep_id`, `processed_sweep_path` (relative to the table) and `split`.
        limit, validation_limit: largest number of sweeps.
        memory_gb: memory for frames on each machine, at most half of what is free; its training processes share it.
            Other frames are read on demand.
        poses_are: origin of poses whose file does not state it; None: unknown, which is refused.
    """

    kind: Literal["simulated", "tusrec", "dualtrack_h5"]
    seeds: tuple[int, int] | None = None
    validation_seeds: tuple[int, int] | None = None
    frames: int = setting(200, at_least=2)
    families: tuple[str, ...] | None = None
    speckles: int | None = setting(None, at_least=1)
    acquisitions: bool = False
    plain: int = setting(0, at_least=0)
    plain_frames: int = setting(200, at_least=2)
    store: bool = True
    folder: str | None = None
    validation_folder: str | None = None
    csv: str | None = None
    limit: int | None = None
    validation_limit: int | None = None
    memory_gb: float = 4.0
    poses_are: Literal["measured", "simulated"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = {
            "simulated": ("seeds", "validation_seeds"),
            "tusrec": ("folder", "validation_folder"),
            "dualtrack_h5": ("csv",),
        }[self.kind]
        if missing := [name for name in needed if getattr(self, name) is None]:
            raise InputError(f"data of kind {self.kind} needs {' and '.join(missing)}.")
        if self.kind == "simulated":
            (a, b), (c, d) = self.seeds, self.validation_seeds
            if a >= b or c >= d or a < 0 or c < 0:
                raise InputError("seeds and validation_seeds are [first, one past the last], first below last.")
            if max(a, c) < min(b, d):
                raise InputError("seeds and validation_seeds overlap; validation needs sweeps of its own.")


@dataclass(frozen=True)
class Sampling(_Checked):
    """How training items are drawn.

    Attributes:
        window: frames of a window (local1, local2, baseline).
        windows_per_sweep: items per sweep and epoch.
        shortest: data.acquisitions, whole sweeps: fewest frames of the part of a sweep that is an item; its length is
            drawn log-uniformly up to the whole sweep. None: the whole sweep.
        random_frames: frames drawn from a sweep, in order (global).
        stored_crops: number of crop positions, with the centre, whose class tokens are stored (local3, fusion,
            finetune1); 0 runs the frozen trunk at every step instead.
        token_type: number type of stored tokens.
        chunk_frames: frames through a trunk at a time when it runs over a whole sweep.
    """

    window: int = setting(16, at_least=2)
    windows_per_sweep: int = setting(1, at_least=1)
    shortest: int | None = setting(None, at_least=2)
    random_frames: int = setting(64, at_least=2)
    stored_crops: int = setting(0, at_least=0)
    token_type: Literal["float16", "float32"] = "float32"
    chunk_frames: int = setting(128, at_least=1)


@dataclass(frozen=True)
class Augmentation(_Checked):
    """Probabilities of the changes to a training item; its poses change with it exactly.

    Attributes:
        hflip: mirror every frame left to right.
        reverse: run the sweep backwards.
        crop: whether the place of the local crop is drawn; else it is the centre.
        drop: leave out `drop_fraction` of the frames.
    """

    hflip: float = setting(0.0, at_least=0, at_most=1)
    reverse: float = setting(0.0, at_least=0, at_most=1)
    crop: bool = False
    drop: float = setting(0.0, at_least=0, at_most=1)
    drop_fraction: float = setting(0.1, at_least=0, below=1)


@dataclass(frozen=True)
class Optimiser(_Checked):
    """AdamW."""

    lr: float = setting(above=0)
    weight_decay: float = setting(0.0, at_least=0)
    betas: tuple[float, float] = setting((0.9, 0.999), at_least=0, below=1)


@dataclass(frozen=True)
class Validation(_Checked):
    """Epochs between validations, and the metric (smaller is better) that selects the best checkpoint."""

    every: int = setting(1, at_least=1)
    metric: Literal["gpe_five_point_mm", "lpe_five_point_mm", "loss"] = "gpe_five_point_mm"


@dataclass(frozen=True)
class Recipe(_Checked):
    """One stage of training.

    Attributes:
        stage: what is trained, see :mod:`~DualTrackCore.research.training.tasks`.
        output: folder of the results, below the runs folder.
        data, sampling, augmentation, optimiser, validation, initial, backbone: see their classes.
        epochs, warmup_epochs: the learning rate rises linearly over the warm-up, then falls as a cosine to zero.
        end_epoch: last epoch of the run, if earlier than `epochs`: the learning rate does not reach zero.
        batch_size: items per step in each process.
        accumulate: steps whose gradients are added up before the weights change.
        model: arguments of :class:`~DualTrackCore.network.DualTrack`; the stage baseline ignores them.
        baseline: baseline: `kind` and sizes, the arguments of :func:`~DualTrackCore.research.baselines.build_baseline`.
        card: fields of the :class:`~DualTrackCore.network.ModelCard`.
        precision: "fp32", "fp16" or "bf16" (mixed).
        standardise: train on targets of mean 0 and deviation 1; mean and scale are folded into the head of the result.
        weighting: of the squared errors of the six components: "equal", as published, or "likelihood", which divides
            each by its running mean, so that components with small errors count as much as others.
        one_way: train the motion of every item as if it ran towards +z, else mirrored at the image plane: speckle
            does not show the sign of elevational motion.
        head_grid: local1: rows and columns of the averaged feature map under the temporary head.
        average: decay per step of the moving average of the weights, for validation and the result; 0 for none.
        save_every: epochs between checkpoints for an interrupted run.
        workers: processes that prepare batches; 0 does it in the training process.
        devices, nodes: training processes on each machine, and machines.
        accelerator: Lightning's: auto, cpu, gpu, ...
        seed: of initial weights, sampling and dropout.
        files: files that the recipe was read from; not a key.
    """

    files: ClassVar[tuple[Path, ...]] = ()
    stage: Stage
    output: str
    data: Data
    optimiser: Optimiser
    epochs: int = setting(at_least=1)
    batch_size: int = setting(at_least=1)
    warmup_epochs: int = setting(0, at_least=0)
    end_epoch: int | None = None
    accumulate: int = setting(1, at_least=1)
    initial: Initial = field(default_factory=Initial)
    model: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    backbone: Backbone = field(default_factory=Backbone)
    card: Mapping[str, Any] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    validation: Validation = field(default_factory=Validation)
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    standardise: bool = False
    weighting: Literal["equal", "likelihood"] = "equal"
    one_way: bool = False
    head_grid: int = setting(4, at_least=1)
    average: float = setting(0.0, at_least=0, below=1)
    save_every: int = setting(1, at_least=1)
    workers: int = setting(0, at_least=0)
    devices: int = setting(1, at_least=1)
    nodes: int = setting(1, at_least=1)
    accelerator: str = "auto"
    seed: int = setting(0, at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end_epoch is not None and not 1 <= self.end_epoch <= self.epochs:
            raise InputError(f"end_epoch is {self.end_epoch}; it must lie between 1 and epochs ({self.epochs}).")
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"warmup_epochs is {self.warmup_epochs}; it must be below epochs ({self.epochs}).")
        self._put_backbone_into_model()
        if self.sampling.stored_crops and self.stage not in TOKEN_STAGES:
            raise InputError(f"sampling.stored_crops needs a frozen trunk and ViT, which stage {self.stage} trains.")
        if self.sampling.stored_crops and self.augmentation.drop:
            raise InputError("augmentation.drop changes what the trunk sees; set sampling.stored_crops to 0.")
        if self.data.acquisitions and (self.sampling.stored_crops or self.augmentation.drop):
            raise InputError(
                "data.acquisitions draws the scanner and the kept frames anew for every item; set "
                "sampling.stored_crops and augmentation.drop to 0."
            )
        if self.augmentation.drop and self.stage in (*WINDOW_STAGES, "global"):
            raise InputError(f"augmentation.drop works on whole sweeps; stage {self.stage} sees no whole sweep.")
        if (self.stage == "baseline") != ("kind" in self.baseline):
            raise InputError(
                "baseline.kind names the network of the stage baseline; that stage needs it, no other has it."
            )
        if self.stage == "baseline" and self.initial != Initial():
            raise InputError("The stage baseline starts from random weights; take initial out of the recipe.")

    def __deepcopy__(self, memo: dict[int, Any]) -> Recipe:
        return self  # immutable; the moving average of weights copies a task with its recipe

    def _put_backbone_into_model(self) -> None:
        """Put the backbone's name into `model`; raises InputError for keys that have no effect or contradict."""
        name, weights = self.backbone.name, self.backbone.weights
        if name is not None:
            named = self.model.get("global_backbone", name)
            if named != name:
                raise InputError(f"backbone.name is {name} and model.global_backbone is {named}; give one of them.")
            object.__setattr__(self, "model", MappingProxyType({**self.model, "global_backbone": name}))
        if self.stage not in GLOBAL_STAGES and (weights is not None or self.backbone.train != "full"):
            raise InputError(
                f"stage {self.stage} does not train the global encoder; backbone.weights and backbone.train have no "
                "effect there, so leave them out."
            )
        given = self.initial.all or self.initial.global_encoder
        if weights is not None and given is not None:
            raise InputError(
                f"backbone.weights and initial ({given}) both give the backbone its weights; leave one out: a stage "
                "that follows `global` starts from what that stage made of them."
            )


def load_recipe(name_or_path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        name_or_path: a YAML file, or the name of a recipe that ships, such as "mini/local1".
        changes: "key=value" pairs that replace values of the file; keys dotted, values in YAML: "optimiser.lr=0.001".
            Fewer `epochs` also shorten end_epoch, warmup_epochs and validation.every, unless a change names them.

    Raises:
        InputError: no such recipe, not YAML, an unknown key, a value of the wrong type or out of range; one sentence
            with key and file.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise InputError(f"There is no recipe {name_or_path}: neither a file nor one of {', '.join(recipe_names())}.")
    values, files = _read(path, ())
    for change in changes:
        _apply(values, change)
    _fit_to_epochs(values, {change.partition("=")[0].strip() for change in changes})
    recipe = build(Recipe, values, path.name)
    object.__setattr__(recipe, "files", files)
    return recipe


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    names = (path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*/*.yaml"))
    return sorted(name for name in names if not name.endswith("common"))


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The values of a recipe merged with those of its base, and the files that were read."""
    if path in above:
        raise InputError(f"base in {path.name} leads back to the file itself.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The recipe {path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"The recipe {path.name} is not YAML: {reason_of(error)}.") from None
    if not isinstance(values, dict):
        raise InputError(f"The recipe {path.name} holds no keys; expected stage, output, data and others.")
    base = values.pop("base", None)
    if base is None:
        return values, (*above, path)
    below = path.parent / str(base)
    if not below.is_file():
        raise InputError(f"base in {path.name} names {base}, and there is no such file beside it.")
    inherited, files = _read(below, (*above, path))
    return _merged(inherited, values), files


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _fit_to_epochs(values: dict[str, Any], changed: set[str]) -> None:
    """Where a change asks for fewer epochs, shorten what the file counts in them and no change names."""
    epochs = values.get("epochs")
    if "epochs" not in changed or not isinstance(epochs, int):
        return
    for key, most in {"end_epoch": epochs, "warmup_epochs": epochs - 1, "validation.every": epochs}.items():
        outer, _, last = key.rpartition(".")
        place = values.get(outer) if outer else values
        stated = place.get(last) if isinstance(place, Mapping) else None
        if key not in changed and isinstance(stated, int) and stated > most:
            _apply(values, f"{key}={most}")


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise InputError(f"The change {short_text(change)} is not of the form KEY=VALUE.")
    *outer, last = key.strip().split(".")
    place = values
    for name in outer:
        inner = place.get(name)
        place[name] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[name]
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"The value in {short_text(change)} is not YAML.") from None
