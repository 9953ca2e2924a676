"""Features of frame pairs, and a transformer over time that looks back a fixed number of steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from DualTrackCore.errors import InputError
from DualTrackCore.research.baselines.motion_network import MotionNetwork, State
from DualTrackCore.research.baselines.pair_encoder import PairEncoder


class BackwardAttention(nn.Module):
    """Multi-head attention of each step to itself and the `reach` - 1 steps before it.

    A learnt number for each head and distance is added to the scores, so that time is told by distance alone and a
    sweep may be of any length.
    """

    def __init__(self, hidden: int, heads: int, reach: int) -> None:
        super().__init__()
        self.heads, self.reach = heads, reach
        self.project = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.distance_bias = nn.Parameter(torch.zeros(heads, reach))

    def forward(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps x [B, n, C] after keys and values `before` [2, B, heads, k, C / heads]; returns both anew."""
        query, *latest = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        both = torch.stack(latest)
        if before is not None:
            both = torch.cat([before, both], dim=3)
        steps, keys = x.shape[1], both.shape[3]
        index = torch.arange(keys, device=x.device)
        distance = index[keys - steps :, None] - index
        seen = (distance >= 0) & (distance < self.reach)
        scores = self.distance_bias[:, distance.clamp(0, self.reach - 1)].masked_fill(~seen, -torch.inf)
        values = F.scaled_dot_product_attention(query, *both, attn_mask=scores.to(query.dtype))
        kept = both[:, :, :, max(keys - self.reach + 1, 0) :]
        return self.output(values.transpose(1, 2).flatten(2)), kept


class _Layer(nn.Module):
    """Attention and MLP, each after a LayerNorm and beside a shortcut."""

    def __init__(self, hidden: int, heads: int, mlp: int, reach: int) -> None:
        super().__init__()
        self.attention = BackwardAttention(hidden, heads, reach)
        self.mlp = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, mlp), nn.GELU(), nn.Linear(mlp, hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        """Steps [B, n, C] and what the layer keeps of those before."""
        attended, kept = self.attention(self.norm(x), before)
        x = x + attended
        return x + self.mlp(x), kept


class HybridTransformer(MotionNetwork):
    """A residual network over frame pairs, a transformer over the sweep, one linear layer.

    Ning, Liang, Zhou, Zhang and Liao 2022, "Spatial position estimation method for 3D ultrasound reconstruction based
    on hybrid transformers" (ISBI).

    From the description: a convolutional backbone takes local features from the images, and a transformer encoder over
    the sequence of features regresses the motion. Different: the backbone looks at pairs of frames; attention goes back
    `reach` steps a layer and never forward, with a learnt term for the distance in place of position codes, so that a
    sweep of any length is tracked as it comes in; LayerNorm before each part; the loss is that of all baselines here;
    sizes.

    Args:
        crop_size: pixels a side of the crop; a multiple of 2 to the number of widths.
        widths: channels of the stem and the residual blocks.
        hidden: numbers a step; a multiple of `heads`.
        layers, heads, mlp: of the transformer.
        reach: steps that a layer sees, its own among them; longer than the training windows it would be untrained.
    """

    architecture = "hybrid"

    def __init__(
        self,
        crop_size: int = 64,
        widths: Sequence[int] = (16, 32, 48, 64),
        hidden: int = 64,
        layers: int = 2,
        heads: int = 4,
        mlp: int = 128,
        reach: int = 19,
    ) -> None:
        super().__init__(crop_size, locals())
        if hidden % heads or reach < 1:
            raise InputError(
                f"hidden ({hidden}) must be a multiple of heads ({heads}), and reach ({reach}) at least 1."
            )
        self.encoder = PairEncoder(crop_size, widths, hidden)
        self.layers = nn.ModuleList(_Layer(hidden, heads, mlp, reach) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        """See :meth:`MotionNetwork.outputs`; the state is the layers' last keys and values."""
        x, kept = self.encoder(images), []
        for layer, before in zip(self.layers, state or [None] * len(self.layers), strict=True):
            x, latest = layer(x, before)
            kept.append(latest)
        return self.head(self.norm(x)), kept
