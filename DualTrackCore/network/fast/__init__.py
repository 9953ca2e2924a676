"""The local trunk for inference: folded norms, channels last, Winograd convolutions, exact streaming.

:func:`prepared` gives a trunk's weights in the form that inference wants, :class:`FastStream` pushes frames through it.
On the CPU in single precision numba compiles the kernels; everywhere else torch's own
convolutions do the same.
"""

from DualTrackCore.network.fast.backend import compiled_backend, prepare_engine
from DualTrackCore.network.fast.prepared import forget_prepared, prepared
from DualTrackCore.network.fast.trunk import FastStream

__all__ = ["FastStream", "compiled_backend", "forget_prepared", "prepare_engine", "prepared"]
