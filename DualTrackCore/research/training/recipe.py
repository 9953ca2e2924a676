"""Recipes: all settings of one stage of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from DualTrackCore.errors import InputError
from DualTrackCore.settings import check_settings, setting

Stage = Literal[
    "local1", "local2", "local3", "global", "fusion", "finetune1", "finetune2", "direction", "heads", "baseline"
]
#: Stages on windows of consecutive frames; `global` uses randomly drawn frames, the others whole sweeps.
WINDOW_STAGES = ("local1", "local2", "baseline")
#: Stages that train the global encoder.
GLOBAL_STAGES = ("global", "fusion", "finetune1", "finetune2", "direction", "heads")
#: Stages that can use stored class tokens, because trunk and ViT are frozen.
TOKEN_STAGES = ("local3", "fusion", "finetune1")
#: Stages that train other heads than that for motions.
HEAD_STAGES = ("direction", "heads")
#: Stages that go on with the whole network and its head.
_CONTINUING = ("finetune1", "finetune2")
PRECISIONS = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}


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
        splits: not simulated: CSV file that says which sweeps or subjects are for training (train) and validation
            (val), in place of `validation_folder`; see :func:`~DualTrackCore.research.datasets.with_said_splits`.
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
    splits: str | None = None
    limit: int | None = None
    validation_limit: int | None = None
    memory_gb: float = 4.0
    poses_are: Literal["measured", "simulated"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = {
            "simulated": ("seeds", "validation_seeds"),
            "tusrec": ("folder", "validation_folder" if self.splits is None else "splits"),
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
        stored_draws: data.acquisitions: number of drawn items of each sweep whose class tokens are stored; epochs take
            them in turn. 0 draws every item anew, and runs the frozen trunk at every step.
        token_type: number type of stored tokens.
        chunk_frames: frames through a trunk at a time when it runs over a whole sweep.
    """

    window: int = setting(16, at_least=2)
    windows_per_sweep: int = setting(1, at_least=1)
    shortest: int | None = setting(None, at_least=2)
    random_frames: int = setting(64, at_least=2)
    stored_crops: int = setting(0, at_least=0)
    stored_draws: int = setting(0, at_least=0)
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
    """Epochs between validations, and the metric (smaller is better) that selects the best checkpoint.

    The stages heads and direction leave the motions as they are, so they always go by `loss`, there that of their head.
    """

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
        batch_size: items of one change of the weights, whatever the number of devices that share them.
        at_once: most items that a device computes at a time; their gradients are added up. None: all of its share.
        grow_batch: where the devices cannot share `batch_size` equally, let it grow to the next number that they can,
            and the learning rate with the square root of that (Malladi et al. 2022); else several compute the same.
        model: arguments of :class:`~DualTrackCore.network.DualTrack`; the stage baseline ignores them.
        baseline: baseline: `kind` and sizes, the arguments of :func:`~DualTrackCore.research.baselines.build_baseline`.
        card: fields of the :class:`~DualTrackCore.network.ModelCard`.
        precision: "fp32", "fp16" or "bf16" (mixed).
        standardise: train on targets of mean 0 and deviation 1; mean and scale are folded into the head of the result.
        weighting: of the squared errors of the six components: "equal", as published, or "likelihood", which divides
            each by its running mean, so that components with small errors count as much as others.
        component_weights: what the errors of tx, ty, tz, rx, ry and rz count beside each other, after `weighting`.
        drift: what the squared mean error of an item counts beside the mean squared error of its motions: errors that
            all its motions share add up along the path, and others do not. 0: as published.
        relative: power of the size of an item's motions, at least 0.1 mm, by which its squared errors are divided: they
            grow with the steps, and with 0 a slow sweep hardly counts beside a fast one. Where a length is uncertain by
            a factor, 0.5 teaches its median, 0 makes it too long and 1 too short.
        one_way: train the motion of every item as if it ran towards +z, else mirrored at the image plane: speckle
            does not show the sign of elevational motion.
        head_grid: local1: rows and columns of the averaged feature map under the temporary head.
        average: decay per step of the moving average of the weights, for validation and the result; 0 for none.
        start_share: share of the initial weights in the result: the mean of both is validated, and is what comes out.
        save_every: epochs between checkpoints for an interrupted run; None: a hundredth of all.
        workers: processes that prepare batches; 0 does it in the training process.
        devices, nodes: training processes on each machine, one a device, and machines.
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
    at_once: int | None = setting(None, at_least=1)
    grow_batch: bool = False
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
    component_weights: tuple[float, float, float, float, float, float] = setting((1.0,) * 6, at_least=0)
    drift: float = setting(0.0, at_least=0)
    relative: float = setting(0.0, at_least=0, at_most=2)
    one_way: bool = False
    head_grid: int = setting(4, at_least=1)
    average: float = setting(0.0, at_least=0, below=1)
    start_share: float = setting(0.0, at_least=0, below=1)
    save_every: int | None = setting(None, at_least=1)
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
        if not any(self.component_weights):
            raise InputError("component_weights are all 0, so nothing would be trained; let at least one be larger.")
        self._put_backbone_into_model()
        self._check_stored()
        if self.augmentation.drop and self.stage in (*WINDOW_STAGES, "global"):
            raise InputError(f"augmentation.drop works on whole sweeps; stage {self.stage} sees no whole sweep.")
        if (self.stage == "baseline") != ("kind" in self.baseline):
            raise InputError(
                "baseline.kind names the network of the stage baseline; that stage needs it, no other has it."
            )
        if self.start_share and (self.average or self.stage not in _CONTINUING):
            raise InputError(
                "start_share is for finetune1 and finetune2, whose start is a trained network, and without average."
            )
        if self.stage == "baseline" and self.initial != Initial():
            raise InputError("The stage baseline starts from random weights; take initial out of the recipe.")

    def _check_stored(self) -> None:
        """Raise InputError where class tokens are to be stored that an item cannot use."""
        stored = {name: getattr(self.sampling, name) for name in ("stored_crops", "stored_draws")}
        for name, count in stored.items():
            if count and self.stage not in TOKEN_STAGES:
                raise InputError(f"sampling.{name} needs a frozen trunk and ViT, which stage {self.stage} trains.")
        if stored["stored_crops"] and self.augmentation.drop:
            raise InputError("augmentation.drop changes what the trunk sees; set sampling.stored_crops to 0.")
        if self.data.acquisitions and (stored["stored_crops"] or self.augmentation.drop):
            raise InputError(
                "data.acquisitions draws the scanner and the kept frames anew for every item; set "
                "sampling.stored_crops and augmentation.drop to 0, and sampling.stored_draws to store items as drawn."
            )
        if stored["stored_draws"] and not self.data.acquisitions:
            raise InputError(
                "sampling.stored_draws is for data.acquisitions; sampling.stored_crops stores other sweeps."
            )

    @property
    def metric(self) -> str:
        """The figure of the validation by which the best epoch is selected."""
        return "loss" if self.stage in HEAD_STAGES else self.validation.metric

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
