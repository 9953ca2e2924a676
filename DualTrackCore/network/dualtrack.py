"""DualTrack (arXiv 2509.09530): local and global encoders, fusion transformer, pose head.

    local images  - Trunk (3D) - SpatialTransformer - temporal BERT - linear -----.
                                                                                  fusion BERT - head - relative poses
    global images - backbone (2D, every 16th frame) - linear + position - BERT ---'

Two heads are not in the published network: the direction in which the sweep runs, and the variances of the motions.

Modules nest so that the state dict has the published names; the levels called `module` and `backbone` are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from DualTrackCore.errors import InputError
from DualTrackCore.network.blocks import TRUNK_STRIDE, BertEncoder, Scope, SpatialTransformer, Trunk

#: Name of the global backbone that the published weights use; every other name is timm's.
PUBLISHED_BACKBONE = "dualtrack-resnet18"
#: Heads that only training stages use: in the state dict, without effect on the poses.
UNUSED_HEADS = ("local_encoder.0.backbone.module.fc.", "local_encoder.0.temporal_encoder.fc.", "global_encoder.fc.")
#: Arguments that add a head; networks without it keep the arguments and the state dict that they had before there was
#: one.
_ADDED_HEADS = ("direction", "uncertainty")
#: What a new head of variances says of every component: a standard deviation of 0.1 mm or degrees.
_FIRST_LOG_VARIANCE = 2 * math.log(0.1)


class NetworkOutput(NamedTuple):
    """What the network finds in a batch of B sweeps of N frames.

    Attributes:
        motions: [B, N - 1, 6], mm and degrees, frame i + 1 in frame i. With a direction head they are those of the
            sweep taken as running towards +z of the image frame.
        log_variance: [B, N - 1, 6], natural logarithm of the variance of each component, mm^2 and degrees^2; None
            without the head.
        direction_logit: [B] log-odds that the sweep runs towards +z, as the motions say it; None without the head.
    """

    motions: Tensor
    log_variance: Tensor | None = None
    direction_logit: Tensor | None = None


class LocalEncoder(nn.Module):
    """Local motion from speckle: a 3D trunk on a crop of every frame, a ViT on each feature map, a BERT over time."""

    def __init__(self, trunk: Trunk, vit: SpatialTransformer, temporal: BertEncoder, hidden: int) -> None:
        super().__init__()
        cnn = Scope(module=Scope(backbone=trunk))
        self.backbone = Scope(module=Scope(backbone=cnn, vit=vit, fc=nn.Linear(hidden, 6)))
        self.temporal_encoder = Scope(encoder=temporal, fc=nn.Linear(hidden, 6))

    @property
    def trunk(self) -> Trunk:
        """The 3D convolutional trunk."""
        return self.backbone.module.backbone.module.backbone

    @property
    def spatial(self) -> SpatialTransformer:
        """The ViT over a frame's feature map."""
        return self.backbone.module.vit

    @property
    def temporal(self) -> BertEncoder:
        """The BERT over the frames of the sweep."""
        return self.temporal_encoder.encoder

    def frame_features(self, maps: Tensor) -> Tensor:
        """Trunk output [B, C, N, h, w] to class tokens [B, N, hidden]."""
        frames = maps.transpose(1, 2)
        return self.spatial(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def forward(self, images: Tensor) -> Tensor:
        """Crops [B, N, crop, crop] in 0 to 1 to class tokens [B, N, hidden], before the temporal encoder."""
        return self.frame_features(self.trunk(images[:, None]))


class PooledTrunk(nn.Module):
    """The published global backbone: the 2D trunk, averaged over positions."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.backbone = trunk

    def forward(self, images: Tensor) -> Tensor:
        """[n, 1, H, W] to [n, width]."""
        return self.backbone(images[:, :, None]).mean(dim=(2, 3, 4))


class GlobalEncoder(nn.Module):
    """Anatomy of the sweep: an image backbone on every 16th frame, and a BERT over those frames."""

    def __init__(self, backbone: nn.Module, features: int, bert: BertEncoder, hidden: int, positions: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(backbone)
        self.proj = nn.Linear(features, hidden)
        self.pos_emb = nn.Embedding(positions, hidden)
        self.bert = bert
        self.fc = nn.Linear(hidden, 6)

    def image_features(self, images: Tensor) -> Tensor:
        """Global images [B, K, S, S] to pooled features [B, K, F]."""
        return self.backbone(images.flatten(0, 1)[:, None]).unflatten(0, images.shape[:2])

    def forward(self, features: Tensor, frame_index: Tensor) -> Tensor:
        """Pooled features [B, K, F] of frames `frame_index` [K] (index in the sweep) to context [B, K, hidden]."""
        return self.bert(self.proj(features) + self.pos_emb(frame_index))


class DirectionHead(nn.Module):
    """Which way the sweep runs: a BERT of its own over the global encoder's image features, so that the motions need
    not know."""

    def __init__(self, features: int, bert: BertEncoder, hidden: int, positions: int) -> None:
        super().__init__()
        self.proj = nn.Linear(features, hidden)
        self.pos_emb = nn.Embedding(positions, hidden)
        self.bert = bert
        self.fc = nn.Linear(hidden, 1)

    def forward(self, features: Tensor, frame_index: Tensor) -> Tensor:
        """Pooled features [B, K, F] of frames `frame_index` [K] to log-odds [B] that the sweep runs towards +z."""
        context = self.bert(self.proj(features) + self.pos_emb(frame_index))
        return self.fc(context.mean(dim=1))[:, 0]


class DualTrack(nn.Module):
    """The network. Defaults are the published size; smaller models pass smaller numbers.

    Args:
        crop_size: pixels a side of the local crop; a multiple of 32.
        global_size: pixels a side of the global image, the resized frame.
        global_every: the global encoder sees frames 0, global_every, 2 global_every, ...
        positions: most frames at a time (size of the position and distance tables).
        local_widths, local_stem, local_blocks: channels of the four stages, of the stem, basic blocks a stage.
        local_hidden, local_heads, local_mlp: width, heads and MLP width of the spatial and temporal transformers.
        spatial_layers, temporal_layers: layers of the two.
        global_backbone: "dualtrack-resnet18" or the name of a timm model, built without weights.
        global_widths, global_stem, global_blocks: as for the local trunk; for "dualtrack-resnet18" only.
        hidden, heads, mlp, global_layers, fusion_layers: the global and fusion transformers.
        dropout: in training, in the temporal, global and fusion transformers.
        direction: with a head for the direction of the sweep.
        uncertainty: with a head for the variances of the motions.

    Raises InputError: a size that no network has.
    """

    def __init__(
        self,
        *,
        crop_size: int = 256,
        global_size: int = 224,
        global_every: int = 16,
        positions: int = 1024,
        local_widths: Sequence[int] = (64, 128, 256, 512),
        local_stem: int = 45,
        local_blocks: int = 2,
        local_hidden: int = 64,
        local_heads: int = 4,
        local_mlp: int = 32,
        spatial_layers: int = 4,
        temporal_layers: int = 4,
        global_backbone: str = PUBLISHED_BACKBONE,
        global_widths: Sequence[int] = (64, 128, 256, 512),
        global_stem: int = 45,
        global_blocks: int = 2,
        hidden: int = 512,
        heads: int = 8,
        mlp: int = 1024,
        global_layers: int = 8,
        fusion_layers: int = 12,
        dropout: float = 0.1,
        direction: bool = False,
        uncertainty: bool = False,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        #: What the network was built with, as plain values: the `architecture` of its model card.
        self.arguments = _stated(arguments)
        _require_possible(arguments)
        self.crop_size, self.global_size = crop_size, global_size
        self.global_every, self.positions = global_every, positions
        trunk, grid = Trunk(local_widths, local_stem, local_blocks, temporal=True), crop_size // TRUNK_STRIDE
        vit = SpatialTransformer(trunk.width, grid, local_hidden, spatial_layers, local_heads, local_mlp)
        temporal = BertEncoder(temporal_layers, local_hidden, local_heads, local_mlp, dropout, positions)
        self.local_encoder = nn.Sequential(
            LocalEncoder(trunk, vit, temporal, local_hidden), nn.Linear(local_hidden, hidden, bias=False)
        )
        sizes = (global_widths, global_stem, global_blocks)
        backbone, features = _global_backbone(global_backbone, global_size, sizes)
        shared = (hidden, heads, mlp, dropout)
        self.global_encoder = GlobalEncoder(backbone, features, BertEncoder(global_layers, *shared), hidden, positions)
        self.fusion_module = Scope(module=BertEncoder(fusion_layers, *shared, positions, cross=True))
        self.head = Scope(fc=nn.Linear(hidden, 6))
        direction_bert = BertEncoder(global_layers, *shared) if direction else None
        self.direction = DirectionHead(features, direction_bert, hidden, positions) if direction else None
        self.uncertainty = Scope(fc=_always(_FIRST_LOG_VARIANCE, hidden)) if uncertainty else None

    @property
    def local(self) -> LocalEncoder:
        """The local encoder without its last linear layer."""
        return self.local_encoder[0]

    def global_frames(self, count: int) -> range:
        """Indices of the frames that the global encoder sees in a sweep of `count` frames."""
        return range(0, count, self.global_every)

    def poses_from_features(self, local_features: Tensor, global_features: Tensor) -> Tensor:
        """The motions of :meth:`output_from_features`, [B, N - 1, 6]."""
        return self.output_from_features(local_features, global_features).motions

    def output_from_features(self, local_features: Tensor, global_features: Tensor) -> NetworkOutput:
        """The transformers over the sweep.

        Args:
            local_features: class tokens of all frames, [B, N, local_hidden].
            global_features: pooled backbone features of frames :meth:`global_frames`, [B, K, F].

        Raises InputError: more frames than positions, or numbers of local and global features that do not match.
        """
        frames = local_features.shape[1]
        if frames > self.positions:
            raise InputError(f"{frames} frames at a time are more than the {self.positions} that the weights have.")
        index = torch.arange(0, frames, self.global_every, device=local_features.device)
        if len(index) != global_features.shape[1]:
            raise InputError(
                f"{frames} frames need {len(index)} global features; {global_features.shape[1]} were given."
            )
        queries = self.local_encoder[1](self.local.temporal(local_features))
        context = self.global_encoder(global_features, index)
        fused = self.fusion_module.module(queries, context)
        log_variance = None if self.uncertainty is None else self.uncertainty.fc(fused[:, 1:])
        logit = None if self.direction is None else self.direction(global_features, index)
        return NetworkOutput(self.head.fc(fused)[:, 1:], log_variance, logit)

    def forward(self, local_images: Tensor, global_images: Tensor) -> Tensor:
        """Whole sequences at once.

        Args:
            local_images: crops [B, N, crop_size, crop_size], grey value / 255.
            global_images: [B, K, global_size, global_size] of frames :meth:`global_frames`, normalised as the
                model card says.

        Returns:
            Relative poses [B, N - 1, 6], mm and degrees.
        """
        return self.poses_from_features(self.local(local_images), self.global_encoder.image_features(global_images))


def _stated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as plain values, without the heads that are not there."""
    return {
        name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for name, value in arguments.items()
        if name not in _ADDED_HEADS or value is not False
    }


def _always(value: float, features: int) -> nn.Linear:
    """A layer of six outputs that gives one value until it is trained."""
    layer = nn.Linear(features, 6)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, value)
    return layer


def _global_backbone(name: str, size: int, trunk_sizes: tuple[Sequence[int], int, int]) -> tuple[nn.Module, int]:
    """The image backbone by name, random weights, and the length of its features; trunk sizes are of the published."""
    if name == PUBLISHED_BACKBONE:
        return PooledTrunk(Trunk(*trunk_sizes, temporal=False)), trunk_sizes[0][-1]
    from DualTrackCore.network.backbones import timm_backbone

    return timm_backbone(name, size)


def _require_possible(arguments: Mapping[str, Any]) -> None:
    """Raise for sizes with which a network can be built that fails, or gives no numbers, once a sweep comes."""
    for name in _ADDED_HEADS:
        if not isinstance(arguments[name], bool):
            raise InputError(f"{name} is {arguments[name]!r}; expected true or false.")
    for name, values in arguments.items():
        for value in values if isinstance(values, Sequence) else (values,):
            if name not in ("dropout", "global_backbone", *_ADDED_HEADS) and (
                isinstance(value, bool) or not isinstance(value, int) or value < 1
            ):
                raise InputError(f"{name} is {values!r}; expected whole numbers of at least 1.")
    if arguments["crop_size"] % (2 * TRUNK_STRIDE):
        limit = 2 * TRUNK_STRIDE
        raise InputError(f"The crop size is {arguments['crop_size']}; it must be a multiple of {limit} pixels.")
    if arguments["global_every"] >= arguments["positions"]:
        raise InputError(
            f"global_every is {arguments['global_every']}; it must be below positions, the {arguments['positions']} "
            "frames that are seen at a time."
        )
