"""This computer, or the server that computes for it: which, whether it is ready, where models are kept."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.network.catalogue import models_folder
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.logic import (
    DEVICE_KEY,
    MODELS_FOLDER_KEY,
    SERVER,
    SERVER_CERTIFICATE_KEY,
    SERVER_KEY,
    SERVER_SECRET_KEY,
    Logic,
)
from DualTrackSlicerLib.widget.view import Section, View, enable


class ComputerSection(Section):
    """Preflight, device or server, models folder. All but the first are settings of the computer, not of the scene.

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
            SERVER: _("server"),
        }
        chosen = SERVER if logic.server() else logic.device()
        labels.setdefault(chosen, chosen)
        for label in labels.values():
            ui.deviceComboBox.addItem(label)
        self._devices = list(labels)
        ui.deviceComboBox.currentIndex = self._devices.index(chosen)
        ui.modelsFolderEdit.filters = qt.QDir.Dirs
        ui.modelsFolderEdit.currentPath = str(logic.modelsFolder())
        ui.serverEdit.text = slicer.util.settingsValue(SERVER_KEY, "")
        ui.serverKeyEdit.text = slicer.util.settingsValue(SERVER_SECRET_KEY, "")
        ui.serverCertificateEdit.currentPath = slicer.util.settingsValue(SERVER_CERTIFICATE_KEY, "")
        ui.serverEdit.connect("textChanged(QString)", self._on_server)
        ui.serverKeyEdit.connect("textChanged(QString)", self._on_server_key)
        ui.serverCertificateEdit.connect("currentPathChanged(QString)", self._on_server_certificate)
        ui.deviceComboBox.connect("currentIndexChanged(int)", self._on_device)
        ui.modelsFolderEdit.connect("currentPathChanged(QString)", self._on_folder)
        ui.preflightButton.connect("clicked()", self._on_check)
        ui.copyDiagnosticsButton.connect("clicked()", self._on_copy)

    def update(self, view: View) -> None:
        """Show whether this computer is ready, as far as is known."""
        ui, missing, server = self.ui, self.logic.dependencies.missing(), self.logic.server()
        ui.serverFrame.visible = bool(server)
        ui.preflightButton.text = _("Test connection") if server else _("Check")
        if missing:
            sentence = _("The first Apply installs {packages}, after asking.").format(packages=", ".join(missing))
            reason = _("There is nothing to check before the packages are installed; press Apply.")
        else:
            known = _("The software is installed. Check tests graphics card, memory and disk.")
            if server:
                known = _("The software is installed. Test connection asks the server what it offers.")
            sentence = self._sentence or known
            reason = _("The check is under way.") if self._is_checking else view.waiting
        ui.preflightLabel.text = self.logic.dependencies.unfit() or sentence
        enable(reason, ui.preflightButton)
        enable(view.waiting, ui.deviceComboBox, ui.modelsFolderEdit)
        enable(view.waiting, ui.serverEdit, ui.serverKeyEdit, ui.serverCertificateEdit)

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
        self._keep(DEVICE_KEY, self._devices[index])

    def _on_server(self, address: str) -> None:
        self._keep(SERVER_KEY, address)

    def _on_server_key(self, text: str) -> None:
        self._keep(SERVER_SECRET_KEY, text)

    def _on_server_certificate(self, path: str) -> None:
        self._keep(SERVER_CERTIFICATE_KEY, path)

    def _keep(self, key: str, value: str) -> None:
        """Keep a setting of this computer; what was found with another one says nothing more."""
        self._sentence = ""
        qt.QSettings().setValue(key, value)
        self.changed.emit()

    def _on_folder(self, path: str) -> None:
        usual = path in ("", str(models_folder()))
        qt.QSettings().setValue(MODELS_FOLDER_KEY, "" if usual else path)
        self.changed.emit()
