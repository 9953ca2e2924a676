"""Package exports that are imported at first use, so that importing a package costs nothing.

A package lists its exports once for editors, under `if TYPE_CHECKING:`, and once for Python, by the module that has
them. Editors follow the first list to the definition; a test compares both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from DualTrackCore.errors import MissingDependencyError


def lazy_exports(
    package: str, modules: Mapping[str, Sequence[str]], extra: str = ""
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: the package's `__name__`.
        modules: exported names by the module, relative to the package, that defines them.
        extra: extra of the installation that brings the packages which these modules import.

    Raises:
        MissingDependencyError: at first use, a package of the extra is not installed.
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
