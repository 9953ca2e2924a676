"""The convolutional trunk for inference: exact streaming in bounded memory, by compiled kernels or by plain torch.

On the CPU in single precision numba compiles the kernels; on GPUs, in half precision and on processors without fused
multiply-add torch's own convolutions run. README.md in this folder explains the kernels. Import from here only.
"""

from DualTrackCore.network.fast.stream import (
    ENGINE_VARIABLE,
    StreamingTrunk,
    forget_prepared,
    has_compiled_kernels,
    prepare_engine,
    prepared,
)

__all__ = ["ENGINE_VARIABLE", "StreamingTrunk", "forget_prepared", "has_compiled_kernels", "prepare_engine", "prepared"]
