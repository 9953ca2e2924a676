"""DualTrack: sensorless freehand 3D ultrasound.

A sweep of plain 2D frames goes in; the probe trajectory and a volume come out. The public names are imported when they
are first used, so that importing the package costs nothing. A package lists such names once for editors, under
`if TYPE_CHECKING:`, and once for Python; a test compares both.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from DualTrackCore.errors import MissingDependencyError

if TYPE_CHECKING:
    from DualTrackCore.evaluation import Evaluation as Evaluation
    from DualTrackCore.evaluation import evaluate as evaluate
    from DualTrackCore.io import load_sweep as load_sweep
    from DualTrackCore.io import save_sweep as save_sweep
    from DualTrackCore.network import load_model as load_model
    from DualTrackCore.reconstruction import (
        Reconstruction as Reconstruction,
    )
    from DualTrackCore.reconstruction import (
        VoxelGrid as VoxelGrid,
    )
    from DualTrackCore.reconstruction import (
        plan_grid as plan_grid,
    )
    from DualTrackCore.reconstruction import (
        reconstruct_volume as reconstruct_volume,
    )
    from DualTrackCore.sweep import Sweep as Sweep
    from DualTrackCore.tracking import estimate_trajectory as estimate_trajectory
    from DualTrackCore.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]], extra: str = ""
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: the package's `__name__`.
        modules: exported names by the module, relative to the package, that defines them.
        extra: extra of the installation that brings the packages which these modules import.

    Raises MissingDependencyError: at first use, a package of the extra is not installed.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def __getattr__(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{module_of[name]}"), name)
        except ModuleNotFoundError as error:
            if not extra or (error.name or "").startswith("DualTrackCore"):
                raise
            remedy = f"pip install 'dualtrack[{extra}]'"
            raise MissingDependencyError(f"{package} needs the package {error.name}: {remedy}.") from None

    return __getattr__, lambda: sorted(module_of), sorted(module_of)


__getattr__, __dir__, _lazy = lazy_exports(
    __name__,
    {
        "evaluation": ["Evaluation", "evaluate"],
        "io": ["load_sweep", "save_sweep"],
        "network": ["load_model"],
        "reconstruction": ["Reconstruction", "VoxelGrid", "plan_grid", "reconstruct_volume"],
        "sweep": ["Sweep"],
        "tracking": ["estimate_trajectory"],
        "trajectory": ["Trajectory"],
    },
)
__all__ = ["__version__", *_lazy]
