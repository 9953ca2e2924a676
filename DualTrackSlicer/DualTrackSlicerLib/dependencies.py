"""What a run needs: brought by Slicer, installed at the first Apply after asking, each in a version that fits.

Nothing here is imported by the module at load, and nothing is installed without asking. Packages that Slicer brings are
checked alone: they, and torch, are pinned to what they are while others are installed.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import Cancelled, MissingDependencyError

#: Oldest Slicer that brings what the core needs; older ones hold pydicom at version 2.
OLDEST_SLICER = (5, 12)
#: The builds of both fit one another, so the extension PyTorch installs them; lower bounds, never an exact version.
TORCH = ("torch>=2.5", "torchvision")
#: What the network alone needs, which a run at a server does without.
NETWORK_ONLY = ("timm", "safetensors")
_RESOURCES = Path(__file__).resolve().parents[1] / "Resources"
#: What is installed, and what Slicer brings: a requirement a line.
REQUIREMENTS_FILE, BUNDLED_FILE = _RESOURCES / "requirements.txt", _RESOURCES / "bundled.txt"


def requirementsIn(path: Path) -> list[str]:
    """The requirements of a file, such as "timm>=1.0"."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def packageOf(requirement: str) -> str:
    """The name of the package of a requirement."""
    return re.match(r"[\w.-]+", requirement)[0]


def tooOld() -> str:
    """A sentence where this Slicer is too old; empty otherwise."""
    running = (slicer.app.majorVersion, slicer.app.minorVersion)
    if running >= OLDEST_SLICER:
        return ""
    oldest, own = (".".join(map(str, version)) for version in (OLDEST_SLICER, running))
    return _("DualTrack needs Slicer {oldest} or later; this is Slicer {own}.").format(oldest=oldest, own=own)


def isSatisfied(requirement: str) -> bool:
    """Whether a package is there in a version that fits, without importing it; false in a Slicer that is too old."""
    try:
        from slicer.packaging import pip_check
    except ImportError:
        return False
    return pip_check(requirement)


def installTorch() -> None:
    """Install torch by the PyTorch extension, which chooses the build for the graphics card."""
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        raise MissingDependencyError(
            _("The extension PyTorch is missing; install it in the Extensions Manager, restart, and press Apply again.")
        ) from None
    version = TORCH[0].removeprefix("torch")
    if PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=version) is None:
        raise MissingDependencyError(_("PyTorch was not installed; see the module PyTorch Utils for the reason."))


def installPackages(requirements: Sequence[str], constraints: Path) -> None:
    """Install packages by Slicer's own installer, which shows what it does."""
    from slicer.packaging import pip_ensure

    pip_ensure(list(requirements), constraints=constraints, prompt_install=False, requester="DualTrack")


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
        is_satisfied: whether a requirement is met.
        ask: shows the names of what is missing, true if it may be installed.
        install_torch: installs torch with torchvision; raises if it cannot.
        install_packages: installs requirements under a file of constraints; raises if it cannot.
        network_is_here: whether the network runs on this computer, not on a server.
    """

    is_satisfied: Callable[[str], bool] = isSatisfied
    ask: Callable[[Sequence[str]], bool] = askBeforeInstalling
    install_torch: Callable[[], Any] = installTorch
    install_packages: Callable[[Sequence[str], Path], Any] = installPackages
    network_is_here: Callable[[], bool] = lambda: True

    def missing(self) -> list[str]:
        """Names of the packages to be installed that are not there, or too old."""
        torch = TORCH if self.network_is_here() else ()
        return [packageOf(line) for line in (*torch, *self._requirements()) if not self.is_satisfied(line)]

    def _requirements(self) -> list[str]:
        lines = requirementsIn(REQUIREMENTS_FILE)
        return [line for line in lines if self.network_is_here() or packageOf(line) not in NETWORK_ONLY]

    def unfit(self) -> str:
        """Why this Slicer cannot be used at all, in a sentence; empty where it can."""
        if sentence := tooOld():
            return sentence
        lacking = [line for line in requirementsIn(BUNDLED_FILE) if not self.is_satisfied(line)]
        if not lacking:
            return ""
        sentence = _("This Slicer lacks {packages}, which Slicer {oldest} brings: install Slicer anew.")
        return sentence.format(packages=", ".join(lacking), oldest=".".join(map(str, OLDEST_SLICER)))

    def ensure(self) -> None:
        """Ask for and install what is missing; nothing where nothing is. For the main thread alone, as pip is.

        Raises:
            Cancelled: the user does not want it.
            MissingDependencyError: this Slicer is too old, or packages could not be installed; says why and what to do.
        """
        if sentence := self.unfit():
            raise MissingDependencyError(sentence)
        missing = self.missing()
        if not missing:
            return
        if threading.current_thread() is not threading.main_thread():
            raise MissingDependencyError(_("Packages are installed by the panel alone; press Apply there once."))
        if not self.ask(missing):
            raise Cancelled(
                _("Nothing was installed; DualTrack cannot run without {packages}.").format(packages=", ".join(missing))
            )
        self._install(missing)
        importlib.invalidate_caches()
        if left := self.missing():
            raise MissingDependencyError(
                _("{packages} could not be installed; restart Slicer and press Apply again.").format(
                    packages=", ".join(left)
                )
            )

    def _install(self, missing: Sequence[str]) -> None:
        try:
            if {packageOf(line) for line in TORCH} & set(missing):
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

    def _install_rest(self) -> None:
        """Install all but torch, with what Slicer brings, and torch, held where they are."""
        held = ["vtk", *map(packageOf, (*requirementsIn(BUNDLED_FILE), *TORCH))]
        lines = []
        for name in held:
            with contextlib.suppress(metadata.PackageNotFoundError):
                lines.append(f"{name}=={metadata.version(name)}\n")
        with tempfile.TemporaryDirectory() as folder:
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text("".join(lines), encoding="utf-8")
            self.install_packages(self._requirements(), constraints)
