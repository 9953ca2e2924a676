"""What a run needs and Slicer does not bring: found, asked for, installed at the first Apply.

Nothing here is imported by the module at load, and nothing is installed without asking. Packages that Slicer brings
itself are pinned to what they are while others are installed, so that they are never replaced.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import Cancelled, MissingDependencyError

#: Import names of what a run needs.
NEEDED = (
    *("torch", "torchvision", "timm", "h5py", "safetensors", "tqdm", "pydicom", "SimpleITK"),
    *("numba", "scipy", "pooch", "yaml", "PIL", "tifffile"),
    *("av", "jpeg_ls", "pylibjpeg", "openjpeg"),
)
#: Packages of Slicer's bundle that must stay as they are.
BUNDLED = ("numpy", "scipy", "SimpleITK", "pydicom", "vtk")
#: Oldest torch that the core is tested with; a lower bound, never an exact version.
TORCH_REQUIREMENT = ">=2.5"
REQUIREMENTS_FILE = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"


def isInstalled(name: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def installTorch() -> None:
    """Install torch by the PyTorch extension, which chooses the build for the graphics card."""
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        raise MissingDependencyError(
            _("The extension PyTorch is missing; install it in the Extensions Manager, restart, and press Apply again.")
        ) from None
    installed = PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=TORCH_REQUIREMENT)
    if installed is None:
        raise MissingDependencyError(_("PyTorch was not installed; see the module PyTorch Utils for the reason."))


def installPackages(requirements: Path, constraints: Path) -> None:
    """Install packages by Slicer's own installer, the newer one where it exists."""
    try:
        from slicer.packaging import load_requirements, pip_ensure  # of Slicer 5.11 and later
    except ImportError:
        slicer.util.pip_install(["-r", str(requirements), "-c", str(constraints)])
        return
    wanted = load_requirements(requirements)
    pip_ensure(wanted, constraints=constraints, prompt_install=False, requester="DualTrack")


def askBeforeInstalling(missing: Sequence[str]) -> bool:
    """Ask the user; yes where the application runs tests."""
    return slicer.util.confirmOkCancelDisplay(
        _(
            "DualTrack needs {packages}, which this Slicer does not have yet. They are installed into Slicer once; "
            "this may take several minutes and a few gigabytes of disk. Install them now?"
        ).format(packages=", ".join(missing)),
        windowTitle=_("DualTrack: first use"),
    )


@dataclass
class Dependencies:
    """Finds and installs what a run needs; every way of doing so can be replaced.

    Attributes:
        is_installed: whether a package is there.
        ask: shows what is missing, true if it may be installed.
        install_torch: installs torch with torchvision; raises if it cannot.
        install_packages: installs a requirements file under constraints; raises if it cannot.
    """

    is_installed: Callable[[str], bool] = isInstalled
    ask: Callable[[Sequence[str]], bool] = askBeforeInstalling
    install_torch: Callable[[], Any] = installTorch
    install_packages: Callable[[Path, Path], Any] = installPackages

    def missing(self) -> list[str]:
        """Names of the packages that are not there."""
        return [name for name in NEEDED if not self.is_installed(name)]

    def ensure(self) -> None:
        """Ask for and install what is missing; nothing where nothing is.

        Raises:
            Cancelled: the user does not want it.
            MissingDependencyError: it could not be installed; says why and what to do.
        """
        missing = self.missing()
        if not missing:
            return
        if not self.ask(missing):
            raise Cancelled(
                _("Nothing was installed; DualTrack cannot run without {packages}.").format(packages=", ".join(missing))
            )
        try:
            if {"torch", "torchvision"} & set(missing):
                self.install_torch()
            if self.missing():
                self._install_rest()
        except (Cancelled, MissingDependencyError):
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise MissingDependencyError(
                _("Installing {packages} failed ({reason}); check the network and press Apply again.").format(
                    packages=", ".join(missing), reason=reason
                )
            ) from error
        importlib.invalidate_caches()
        if left := self.missing():
            raise MissingDependencyError(
                _("{packages} could not be installed; restart Slicer and press Apply again.").format(
                    packages=", ".join(left)
                )
            )

    def _install_rest(self) -> None:
        """Install all but torch, with what Slicer brings, and torch, held where they are."""
        lines = []
        for name in (*BUNDLED, "torch", "torchvision"):
            with contextlib.suppress(metadata.PackageNotFoundError):
                lines.append(f"{name}=={metadata.version(name)}\n")
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text("".join(lines), encoding="utf-8")
            self.install_packages(REQUIREMENTS_FILE, constraints)
