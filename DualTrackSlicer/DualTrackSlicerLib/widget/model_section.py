"""The model: which one, what is known of it, and how it gets onto this computer."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.network.catalogue import ModelCard
from DualTrackSlicerLib.models import ModelChoice, ModelTask, fileCard
from DualTrackSlicerLib.parameters import OWN_FILE, Poses
from DualTrackSlicerLib.widget.controls import enable
from DualTrackSlicerLib.widget.texts import sizeText

if TYPE_CHECKING:
    from DualTrackSlicerLib.widget.panel import Panel


class ModelSection:
    """Chooser of the model, download, import."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.choices: list[ModelChoice] = []
        self._choosing = False
        self._message = ""
        self._task: ModelTask | None = None
        ui = self.ui
        ui.modelComboBox.connect("currentIndexChanged(int)", self._on_chosen)
        ui.downloadButton.connect("clicked()", self._on_download)
        ui.importButton.connect("clicked()", self._on_import)
        ui.modelProgressBar.visible = False

    def refresh(self) -> None:
        """Look which models there are."""
        self.choices = self.panel.logic.models()
        combo = self.ui.modelComboBox
        self._choosing = True
        combo.clear()
        for choice in self.choices:
            absent = _("{title} (not downloaded)").format(title=choice.title)
            combo.addItem(choice.title if choice.installed else absent)
        combo.addItem(_("Own file…"))
        self._choosing = False

    def chosen(self) -> ModelChoice | None:
        """The chosen model of the list; None for an own file or one that is not in the list."""
        return next((choice for choice in self.choices if choice.name == self.panel.parameters.model), None)

    def problem(self) -> str:
        """Why the chosen model cannot be used; empty where it can."""
        if self._task is not None:
            return _("Wait until the model has arrived.")
        parameters = self.panel.parameters
        if parameters.model == OWN_FILE or parameters.poses is Poses.TRACKED:
            return ""
        choice = self.chosen()
        if choice is None:
            return _("The model {name} is not on this computer; choose another one.").format(name=parameters.model)
        if choice.installed is None:
            return _("Download the model {name} first, or choose another one.").format(name=choice.title)
        return ""

    def update(self) -> None:
        """Show the chosen model."""
        ui, parameters, choice = self.ui, self.panel.parameters, self.chosen()
        own = parameters.model == OWN_FILE
        self._choosing = True
        names = [*(listed.name for listed in self.choices), OWN_FILE]
        ui.modelComboBox.currentIndex = names.index(parameters.model) if parameters.model in names else -1
        self._choosing = False
        ui.modelFileLabel.visible = ui.modelFileEdit.visible = own
        ui.modelInfoLabel.text = self._info(choice, own)
        ui.modelMessageLabel.text = self._message
        ui.modelMessageLabel.visible = bool(self._message)
        self._update_controls(choice, own)

    def stop(self) -> None:
        """End a download; what has arrived is kept."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _update_controls(self, choice: ModelChoice | None, own: bool) -> None:
        ui, busy = self.ui, self._task is not None
        running = _("Wait until the run has ended, or cancel it.") if self.panel.isRunning() else ""
        waiting = running or (_("Wait until the model has arrived.") if busy else "")
        enable(waiting, ui.modelComboBox, ui.modelFileEdit)
        ui.downloadButton.text = _("Cancel download") if busy else _("Download…")
        missing = choice is not None and choice.entry is not None and choice.installed is None
        there = "" if missing or busy else _("This model is on this computer already.")
        if own:
            there = _("An own file needs no download.")
        elif choice is None:
            there = _("Choose a model of the list first.")
        enable(running or there, ui.downloadButton)
        enable(waiting or ("" if missing else there), ui.importButton)

    def _info(self, choice: ModelChoice | None, own: bool) -> str:
        if own:
            path = self.panel.parameters.modelFile
            if path == Path():
                return _("Choose a file of trained weights.")
            if (card := fileCard(path)) is not None:
                return cardText(card)
            return _("The file has no model card: what it was trained on and what to expect of it is unknown.")
        if choice is None:
            return html.escape(self.problem())
        if choice.card is None:
            return _("What this model was trained on and what to expect of it is unknown.")
        text = cardText(choice.card)
        if choice.entry is not None and choice.installed is None:
            text += "<br>" + html.escape(_("Download: {size}.").format(size=choice.entry.size_text))
        return text

    def _on_chosen(self, index: int) -> None:
        if self._choosing or index < 0:
            return
        self._message = ""
        self.panel.parameters.model = OWN_FILE if index == len(self.choices) else self.choices[index].name

    def _on_download(self) -> None:
        if self._task is not None:
            self._task.cancel()
            return
        choice = self.chosen()
        entry = choice.entry
        agreed = slicer.util.confirmOkCancelDisplay(
            _(
                "{title} is {size} from {url}.\n\nLicence of the model: {licence} ({licence_url}). "
                "Do you agree to it and want to download the model?"
            ).format(
                title=choice.title,
                size=entry.size_text,
                url=entry.url,
                licence=entry.card.licence,
                licence_url=entry.card.licence_url,
            ),
            windowTitle=_("Download a model"),
        )
        if agreed:
            self._begin(lambda: self.panel.logic.downloadModel(choice))

    def _on_import(self) -> None:
        choice = self.chosen()
        path = qt.QFileDialog.getOpenFileName(
            self.ui.importButton, _("File of {name}").format(name=choice.title), "", _("Models (*.pt *.safetensors)")
        )
        if path:
            self._begin(lambda: self.panel.logic.importModel(choice.name, Path(path)))

    def _begin(self, start: object) -> None:
        self._message = ""
        try:
            self._task = start()
        except DualTrackError as error:
            self._message = str(error)
        else:
            self.ui.modelProgressBar.setRange(0, 0)
            self.ui.modelProgressBar.visible = True
            self.panel.ticker(self._follow)
        self.panel.update()

    def _follow(self) -> bool:
        """Show how far it is; whether it goes on."""
        task = self._task
        if task is None:
            self.ui.modelProgressBar.visible = False
            return False
        progress = task.poll()
        if progress is not None and progress.total:
            self.ui.modelProgressBar.setRange(0, 1000)
            self.ui.modelProgressBar.value = round(1000 * progress.fraction)
            text = _("{done} of {total} have arrived.")
            self.ui.modelMessageLabel.text = text.format(done=sizeText(progress.done), total=sizeText(progress.total))
            self.ui.modelMessageLabel.visible = True
        if task.state == "running":
            return True
        self._task = None
        self.ui.modelProgressBar.visible = False
        ended = {
            "done": _("The model is on this computer now."),
            "cancelled": _("Cancelled; what has arrived is kept for the next time."),
        }
        self._message = ended.get(task.state) or task.message or _("The model could not be installed.")
        self.refresh()
        self.panel.update()
        return False


def cardText(card: ModelCard) -> str:
    """What a model was trained on and what to expect of it, as rich text."""
    rows = [(_("Trained on:"), card.training_data), (_("Expected error:"), card.expected_error)]
    text = "<br>".join(f"<b>{html.escape(name)}</b> {html.escape(value)}" for name, value in rows)
    if not card.trained:
        text = "<b>" + html.escape(_("These weights are not trained: the result means nothing.")) + "</b><br>" + text
    if card.licence not in ("", "unknown", "none"):
        licence = html.escape(card.licence)
        if card.licence_url:
            licence = f'<a href="{html.escape(card.licence_url)}">{licence}</a>'
        text += f"<br><b>{html.escape(_('Licence:'))}</b> {licence}"
    return text
