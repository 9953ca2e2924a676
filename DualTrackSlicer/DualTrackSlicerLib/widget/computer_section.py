"""This computer: whether it is ready, what runs are run on, where models are kept."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore import __version__
from DualTrackCore.errors import DualTrackError
from DualTrackCore.network.catalogue import models_folder
from DualTrackSlicerLib.logic import DEVICE_KEY, MODELS_FOLDER_KEY
from DualTrackSlicerLib.run import THREAD_TURN_S
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.texts import sizeText

if TYPE_CHECKING:
    from DualTrackSlicerLib.widget.panel import Panel


class ComputerSection:
    """Preflight, device, models folder. The last two are settings of the computer, not of the scene."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self._job = None
        self._report: dict = {}
        self._sentence = ""
        ui, logic = self.ui, panel.logic
        labels = {
            "auto": _("automatic"),
            "cpu": _("processor"),
            "cuda": _("NVIDIA graphics card"),
            "mps": _("Apple graphics"),
        }
        labels.setdefault(logic.device(), logic.device())
        for label in labels.values():
            ui.deviceComboBox.addItem(label)
        self._devices = list(labels)
        ui.deviceComboBox.currentIndex = self._devices.index(logic.device())
        ui.modelsFolderEdit.filters = qt.QDir.Dirs
        ui.modelsFolderEdit.currentPath = str(logic.modelsFolder() or models_folder())
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._on_device)
        ui.modelsFolderEdit.connect("currentPathChanged(QString)", self._on_folder)
        ui.emptyFolderButton.connect("clicked()", self._on_empty)
        ui.preflightButton.connect("clicked()", self._on_check)
        ui.copyDiagnosticsButton.connect("clicked()", self._on_copy)

    def update(self) -> None:
        """Show whether this computer is ready, as far as is known."""
        ui, missing = self.ui, self.panel.logic.dependencies.missing()
        running = _("Wait until the run has ended, or cancel it.") if self.panel.isRunning() else ""
        if missing:
            sentence = _("The first Apply installs {packages}, after asking.").format(packages=", ".join(missing))
            reason = _("There is nothing to check before the packages are installed; press Apply.")
        else:
            sentence = self._sentence or _("The software is installed. Check tests graphics card, memory and disk.")
            reason = _("The check is under way.") if self._job is not None else running
        ui.preflightLabel.text = self.panel.logic.dependencies.unfit() or sentence
        enable(reason, ui.preflightButton)
        enable(running, ui.deviceComboBox, ui.modelsFolderEdit)
        own = [choice for choice in self.panel.modelSection.choices if choice.installed and not choice.installed.ships]
        nothing = "" if own else _("There is no downloaded model.")
        enable(running or nothing, ui.emptyFolderButton)

    def diagnostics(self) -> str:
        """What is known of this computer, for a report."""
        facts = {
            "dualtrack": __version__,
            "slicer": getattr(slicer.app, "applicationVersion", "unknown"),
            "missing": self.panel.logic.dependencies.missing(),
            "models_folder": str(self.panel.logic.modelsFolder() or models_folder()),
            "models": [choice.name for choice in self.panel.modelSection.choices if choice.installed],
            "device": self.panel.logic.device(),
            "check": self._report or "not made",
        }
        return json.dumps(facts, indent=2)

    def _on_check(self) -> None:
        self._sentence = _("Checking…")
        self._job = self.panel.logic.preflight()
        self.panel.ticker(self._follow)
        self.panel.update()

    def _follow(self) -> bool:
        self._job.wait(THREAD_TURN_S)
        if self._job.state == "running":
            return True
        job, self._job = self._job, None
        try:
            self._report = dict(job.result)
            self._sentence = " ".join([self._report["sentence"], *self._report.get("notes", ())])
        except DualTrackError as error:
            self._report, self._sentence = {"error": str(error)}, str(error)
        self.panel.update()
        return False

    def _on_copy(self) -> None:
        slicer.app.clipboard().setText(self.diagnostics())

    def _on_device(self, index: int) -> None:
        qt.QSettings().setValue(DEVICE_KEY, self._devices[index])
        self.panel.update()

    def _on_folder(self, path: str) -> None:
        usual = path in ("", str(models_folder()))
        qt.QSettings().setValue(MODELS_FOLDER_KEY, "" if usual else path)
        self.panel.modelSection.refresh()
        self.panel.update()

    def _on_empty(self) -> None:
        agreed = slicer.util.confirmOkCancelDisplay(
            _("Delete all downloaded models from this computer? They can be downloaded again."),
            windowTitle=_("Delete models"),
        )
        if not agreed:
            return
        freed = self.panel.logic.deleteModels()
        self._sentence = _("{size} of disk are free again.").format(size=sizeText(freed))
        self.panel.modelSection.refresh()
        self.panel.update()
