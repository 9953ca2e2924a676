"""The blocks that both encoders are made of: the convolutional trunk and the transformers.

The trunk is a ResNet-18 over (time, row, column): that of the local encoder mixes neighbouring frames in every layer
(kernels of three frames), that of the global encoder treats each frame on its own (kernels of one). The transformers
are the BERT layers over time and the small ViT over a frame's feature map. LayerNorm uses eps 1e-12 and GELU is exact,
as in the published network; the defaults of torch change the poses visibly. Dropout acts in training only. Layer names
are those of the published state dicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from DualTrackCore.errors import InputError

#: Rows and columns of a crop over those of its feature map: the stem halves them once, stages 2 to 4 once each.
TRUNK_STRIDE = 16


class _Convolution(nn.Conv3d):
    """A convolution that trains faster where its kernel covers frames alone: torch has no quick 3D one for that."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, N, h, w] to [B, C', N, h', w']."""
        if self.kernel_size != (3, 1, 1) or not torch.is_grad_enabled():
            return super().forward(x)
        flat = F.conv2d(x.flatten(3), self.weight[..., 0], padding=(1, 0))
        return flat.unflatten(3, x.shape[3:])


def convolution(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, activate: bool = True
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size (times `stride` in space only), BatchNorm, optional ReLU."""
    padding = tuple(k // 2 for k in kernel)
    layers = [
        _Convolution(inputs, outputs, kernel, stride=(1, stride, stride), padding=padding, bias=False),
        nn.BatchNorm3d(outputs),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if activate else nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; the first convolution carries the spatial stride."""

    def __init__(self, inputs: int, outputs: int, frames: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, (frames, 3, 3), stride)
        self.conv2 = convolution(outputs, outputs, (frames, 3, 3), activate=False)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = convolution(inputs, outputs, (1, 1, 1), stride, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, N, h, w] to [B, C', N, h / stride, w / stride]."""
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.conv2(self.conv1(x)) + shortcut)


class Trunk(nn.Module):
    """Stem and four stages.

    Args:
        widths: channels of the four stages.
        stem_width: channels between the two stem convolutions.
        blocks: basic blocks a stage.
        temporal: whether kernels cover three frames (local encoder) or one (global encoder).
    """

    def __init__(self, widths: Sequence[int], stem_width: int, blocks: int, temporal: bool) -> None:
        super().__init__()
        frames = 3 if temporal else 1
        second = (3, 1, 1) if temporal else (1, 3, 3)
        self.stem = nn.Sequential(
            *convolution(1, stem_width, (1, 7, 7), stride=2), *convolution(stem_width, widths[0], second)
        )
        inputs = widths[0]
        for stage, width in enumerate(widths):
            first_stride = 1 if stage == 0 else 2
            stage_blocks = [
                BasicBlock(inputs if b == 0 else width, width, frames, first_stride if b == 0 else 1)
                for b in range(blocks)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*stage_blocks))
            inputs = width
        self.width = inputs

    @property
    def blocks(self) -> list[BasicBlock]:
        """All basic blocks in order."""
        return [block for stage in range(1, 5) for block in getattr(self, f"layer{stage}")]

    @property
    def reach_frames(self) -> int:
        """Frames on either side that an output frame depends on: half the receptive field."""
        return sum(module.kernel_size[0] // 2 for module in self.modules() if isinstance(module, nn.Conv3d))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, N, H, W] in 0 to 1 to [B, width, N, H / 16, W / 16]."""
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


LAYER_NORM_EPS = 1e-12
#: Most query rows for which relative scores exist at a time, and most bytes that these scores take: fewer rows where
#: there are many keys, so that attention memory does not grow with the sweep.
QUERY_BLOCK = 256
SCORE_BYTES = 32_000_000


class RelativeAttention(nn.Module):
    """Multi-head attention whose scores may carry a learnt term for the distance between query and key.

    score[l, r] = (q[l] . k[r] + q[l] . E[l - r + positions - 1]) / sqrt(head size), with one table E a layer, shared by
    its heads ("relative_key"; Shaw et al. 2018). Without `positions` the second term is absent.
    """

    def __init__(self, hidden: int, heads: int, dropout: float, positions: int | None = None) -> None:
        super().__init__()
        self.heads, self.dropout, self.positions = heads, dropout, positions
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        if positions is not None:
            self.distance_embedding = nn.Embedding(2 * positions - 1, hidden // heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Queries from x [B, N, C], keys and values from context [B, K, C]; returns [B, N, C].

        Raises InputError: more frames than the distance table has.
        """
        # [B, heads, N or K, C / heads]; heads are contiguous slices of channels.
        q, k, v = (
            layer(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, source in ((self.query, x), (self.key, context), (self.value, context))
        )
        drop = self.dropout if self.training else 0.0
        if self.positions is None:
            return F.scaled_dot_product_attention(q, k, v, dropout_p=drop).transpose(1, 2).flatten(2)
        keys, longest = k.shape[2], max(q.shape[2], k.shape[2])
        if longest > self.positions:
            raise InputError(f"{longest} frames at a time are more than the {self.positions} that the weights have.")
        block = query_rows(keys, len(q) * self.heads)
        # [d, N + keys - 1]: the entries that queries and keys can meet, in order of falling distance, scaled.
        table = self.distance_embedding.weight[self.positions - keys : self.positions + q.shape[2] - 1]
        columns = (table.flip(0).to(q.dtype) / q.shape[3] ** 0.5).T
        blocks = [
            F.scaled_dot_product_attention(
                rows, k, v, attn_mask=distance_scores(rows, columns, start, keys), dropout_p=drop
            )
            for start, rows in zip(range(0, q.shape[2], block), q.split(block, dim=2), strict=True)
        ]
        return torch.cat(blocks, dim=2).transpose(1, 2).flatten(2)


def query_rows(keys: int, heads: int) -> int:
    """Rows at a time whose scores against `keys` keys stay within `SCORE_BYTES`; `heads` counts those of the batch."""
    fitting = SCORE_BYTES // (4 * max(heads, 1) * (keys + QUERY_BLOCK))
    return max(1, min(QUERY_BLOCK, fitting))


def distance_scores(rows: Tensor, columns: Tensor, start: int, keys: int) -> Tensor:
    """The distance term of query rows start, start + 1, ...

    The rows are multiplied with the n + keys - 1 columns that they can meet. Row i needs the entries from n - 1 - i on;
    a view whose row stride is one entry shorter than the row selects them without a copy.

    Args:
        rows: [B, heads, n, d], queries.
        columns: [d, N + keys - 1], column j for the distance N - 1 - j of query and key.

    Returns:
        [B, heads, n, keys], an overlay on scores laid out as [B, n, heads, n + keys - 1].
    """
    batch, heads, n, dim = rows.shape
    width = n + keys - 1
    first = columns.shape[1] - (keys - 1) - (start + n)
    # Queries lie as [B, n, heads, d] in memory, so that this is one product without a copy.
    scores = rows.transpose(1, 2).reshape(-1, dim) @ columns[:, first : first + width]
    strides = (n * heads * width, width, heads * width - 1, 1)
    return scores.as_strided((batch, heads, n, keys), strides, scores.storage_offset() + n - 1)


class Scope(nn.Module):
    """Modules and parameters under names of their own: a level of the published state dict that computes nothing."""

    def __init__(self, **children: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)


class _Output(nn.Module):
    """Linear layer, dropout, residual, LayerNorm."""

    def __init__(self, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)
        self.dropout = dropout

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + F.dropout(self.dense(x), self.dropout, self.training))


class _Attention(nn.Module):
    """Attention with its output layer."""

    def __init__(self, hidden: int, heads: int, dropout: float, positions: int | None) -> None:
        super().__init__()
        self.self = RelativeAttention(hidden, heads, dropout, positions)
        self.output = _Output(hidden, hidden, dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.output(self.self(x, context), x)


class BertLayer(nn.Module):
    """Post-norm transformer layer: self-attention, optional cross-attention to a context, MLP. No mask of any kind."""

    def __init__(
        self, hidden: int, heads: int, mlp: int, dropout: float, positions: int | None = None, cross: bool = False
    ) -> None:
        super().__init__()
        self.attention = _Attention(hidden, heads, dropout, positions)
        self.crossattention = _Attention(hidden, heads, dropout, None) if cross else None
        self.intermediate = Scope(dense=nn.Linear(hidden, mlp))
        self.output = _Output(mlp, hidden, dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x [B, N, C], context [B, K, C] for layers with cross-attention; returns [B, N, C]."""
        x = self.attention(x, x)
        if self.crossattention is not None:
            x = self.crossattention(x, context)
        return self.output(F.gelu(self.intermediate.dense(x)), x)


class BertEncoder(nn.Module):
    """A stack of :class:`BertLayer`, made with its arguments; no embedding, no final norm, no pooler."""

    def __init__(self, layers: int, *arguments: Any, **options: Any) -> None:
        super().__init__()
        self.layer = nn.ModuleList(BertLayer(*arguments, **options) for _ in range(layers))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x [B, N, C] to [B, N, C]."""
        for layer in self.layer:
            x = layer(x, context)
        return x


class _ViTLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, hidden: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.attention = Scope(
            attention=RelativeAttention(hidden, heads, dropout=0.0), output=Scope(dense=nn.Linear(hidden, hidden))
        )
        self.intermediate = Scope(dense=nn.Linear(hidden, mlp))
        self.output = Scope(dense=nn.Linear(mlp, hidden))
        self.layernorm_before = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)
        self.layernorm_after = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.layernorm_before(x)
        x = x + self.attention.output.dense(self.attention.attention(normed, normed))
        return x + self.output.dense(F.gelu(self.intermediate.dense(self.layernorm_after(x))))


class SpatialTransformer(nn.Module):
    """ViT over one frame's feature map; its class token is the frame's local feature.

    Args:
        inputs: channels of the feature map.
        grid: rows (and columns) of the feature map.
        hidden, layers, heads, mlp: of the transformer.
        patch: rows (and columns) of the map that make a token.
    """

    def __init__(self, inputs: int, grid: int, hidden: int, layers: int, heads: int, mlp: int, patch: int = 2) -> None:
        super().__init__()
        self.embeddings = Scope(
            cls_token=nn.Parameter(torch.zeros(1, 1, hidden)),
            position_embeddings=nn.Parameter(torch.randn(1, (grid // patch) ** 2 + 1, hidden) * 0.02),
            patch_embeddings=Scope(projection=nn.Conv2d(inputs, hidden, patch, stride=patch)),
        )
        self.encoder = Scope(layer=nn.ModuleList(_ViTLayer(hidden, heads, mlp) for _ in range(layers)))
        self.layernorm = nn.LayerNorm(hidden, eps=LAYER_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps [n, inputs, grid, grid] to class tokens [n, hidden]."""
        parts = self.embeddings
        tokens = parts.patch_embeddings.projection(x).flatten(2).transpose(1, 2)
        x = torch.cat([parts.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + parts.position_embeddings
        for layer in self.encoder.layer:
            x = layer(x)
        return self.layernorm(x[:, 0])
