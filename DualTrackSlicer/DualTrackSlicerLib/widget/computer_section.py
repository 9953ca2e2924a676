"""This computer: whether it is ready, what runs are run on, where models are kept."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.network.catalogue import models_folder
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.logic import DEVICE_KEY, MODELS_FOLDER_KEY, Logic
from DualTrackSlicerLib.widget.view import Section, View, enable


class ComputerSection(Section):
    """Preflight, device, models folder. The last two are settings of the computer, not of the scene.

    Attributes:
        changed: emits when another device, folder or state of the computer is to be shown.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.changed = Signal()
        self._is_checking, self._sentence = False, ""
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
        ui.modelsFolderEdit.currentPath = str(logic.modelsFolder())
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._on_device)
        ui.modelsFolderEdit.connect("currentPathChanged(QString)", self._on_folder)
        ui.preflightButton.connect("clicked()", self._on_check)
        ui.copyDiagnosticsButton.connect("clicked()", self._on_copy)

    def update(self, view: View) -> None:
        """Show whether this computer is ready, as far as is known."""
        ui, missing = self.ui, self.logic.dependencies.missing()
        if missing:
            sentence = _("The first Apply installs {packages}, after asking.").format(packages=", ".join(missing))
            reason = _("There is nothing to check before the packages are installed; press Apply.")
        else:
            sentence = self._sentence or _("The software is installed. Check tests graphics card, memory and disk.")
            reason = _("The check is under way.") if self._is_checking else view.waiting
        ui.preflightLabel.text = self.logic.dependencies.unfit() or sentence
        enable(reason, ui.preflightButton)
        enable(view.waiting, ui.deviceComboBox, ui.modelsFolderEdit)

    def _on_check(self) -> None:
        self._is_checking, self._sentence = True, _("Checking…")
        self.logic.preflight(self._on_checked)
        self.changed.emit()

    def _on_checked(self, job: object) -> None:
        self._is_checking = False
        try:
            report = dict(job.result)
            self._sentence = " ".join([report["sentence"], *report.get("notes", ())])
        except DualTrackError as error:
            self._sentence = str(error)
        self.changed.emit()

    def _on_copy(self) -> None:
        slicer.app.clipboard().setText(self.logic.diagnostics())

    def _on_device(self, index: int) -> None:
        qt.QSettings().setValue(DEVICE_KEY, self._devices[index])
        self.changed.emit()

    def _on_folder(self, path: str) -> None:
        usual = path in ("", str(models_folder()))
        qt.QSettings().setValue(MODELS_FOLDER_KEY, "" if usual else path)
        self.changed.emit()
