"""Features of frame pairs, and an LSTM over time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from DualTrackCore.research.baselines.motion_network import MotionNetwork, State
from DualTrackCore.research.baselines.pair_encoder import PairEncoder


class CnnLstm(MotionNetwork):
    """A residual network over frame pairs, an LSTM over the sweep, one linear layer.

    Luo, Yang, Wang, Du and Ni 2022, "Deep motion network for freehand 3D ultrasound reconstruction" (MoNet, MICCAI).

    From the description: a residual network looks at neighbouring frames, an LSTM carries what came before along the
    sweep, and a linear layer gives the motion of every step. Different: the branches for the inertial sensor and the
    online self-supervision that its readings drive are left out, because plain sweeps have no sensor; the two frames
    enter as channels; the loss is that of all baselines here; sizes. Such a network without sensor is what the
    comparisons of that paper and of DualTrack's call a CNN-LSTM.

    Args:
        crop_size: pixels a side of the crop; a multiple of 2 to the number of widths.
        widths: channels of the stem and the residual blocks.
        features: numbers a pair.
        hidden: numbers of the LSTM's state.
        layers: of the LSTM.
    """

    architecture = "cnn-lstm"

    def __init__(
        self,
        crop_size: int = 64,
        widths: Sequence[int] = (16, 32, 48, 64),
        features: int = 64,
        hidden: int = 96,
        layers: int = 1,
    ) -> None:
        super().__init__(crop_size, locals())
        self.encoder = PairEncoder(crop_size, widths, features)
        self.recurrent = nn.LSTM(features, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, 6)

    def outputs(self, images: Tensor, state: State = None) -> tuple[Tensor, State]:
        """See :meth:`MotionNetwork.outputs`; the state is the LSTM's."""
        values, state = self.recurrent(self.encoder(images).relu(), state)
        return self.head(values), state
