"""The model: which one, what is known of it, and how it gets onto this computer."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackCore.memory import format_bytes
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.progress import Progress
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.models import ModelChoice, ModelTask, fileCard
from DualTrackSlicerLib.parameters import OWN_FILE
from DualTrackSlicerLib.widget.view import Section, View, enable, fill


class ModelSection(Section):
    """Chooser of the model, download, import, delete.

    Attributes:
        changed: emits when a download begins or ends, or another model may be there.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.changed = Signal()
        self._message = ""
        self._task: ModelTask | None = None
        ui.modelComboBox.connect("currentIndexChanged(int)", self._on_chosen)
        ui.downloadButton.connect("clicked()", self._on_download)
        ui.importButton.connect("clicked()", self._on_import)
        ui.deleteModelButton.connect("clicked()", self._on_delete)
        ui.modelProgressBar.visible = False

    @property
    def isBusy(self) -> bool:
        """Whether a model is being downloaded or imported."""
        return self._task is not None

    def update(self, view: View) -> None:
        """Show the chosen model."""
        self._view = view
        ui, parameters = self.ui, view.parameters
        own = parameters.model == OWN_FILE
        names = [*(choice.name for choice in view.models), OWN_FILE]
        absent = _("{title} (not downloaded)")
        titles = [c.title if c.installed or c.elsewhere else absent.format(title=c.title) for c in view.models]
        chosen = names.index(parameters.model) if parameters.model in names else -1
        fill(ui.modelComboBox, [*titles, _("Own file…")], chosen)
        ui.modelFileLabel.visible = ui.modelFileEdit.visible = own
        ui.modelInfoLabel.text = self._info(view, own)
        if self._message or not self.isBusy:
            ui.modelMessageLabel.text = self._message
            ui.modelMessageLabel.visible = bool(self._message)
        self._update_controls(view, own)

    def cancel(self) -> None:
        """End a download; what has arrived is kept."""
        if self._task is not None:
            self._task.cancel()

    def _update_controls(self, view: View, own: bool) -> None:
        ui, busy, choice, running = self.ui, self.isBusy, view.model, view.waiting
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
        enable(waiting or self._stays(choice, own), ui.deleteModelButton)

    def _stays(self, choice: ModelChoice | None, own: bool) -> str:
        """Why there is nothing to delete; empty where there is."""
        if own:
            return _("An own file stays where it is.")
        if choice is None:
            return _("Choose a model of the list first.")
        if choice.installed is not None and choice.installed.ships:
            return _("This model ships with DualTrack and stays.")
        return "" if choice.disk_bytes else _("Nothing of this model is on this computer.")

    def _info(self, view: View, own: bool) -> str:
        """The card of the model, and what models take of the disk."""
        texts, used = [self._card(view, own)], sum(choice.disk_bytes for choice in view.models)
        if view.model is not None and view.model.disk_bytes:
            text = _("On the disk: {size}, {path}.")
            texts.append(text.format(size=format_bytes(view.model.disk_bytes), path=self._path(view.model)))
        if used:
            text = _("All models in {folder}: {size}.")
            texts.append(text.format(folder=self.logic.modelsFolder(), size=format_bytes(used)))
        # Paths may be broken after each folder.
        return "<br>".join([texts[0], *(html.escape(text).replace(os.sep, os.sep + "&#8203;") for text in texts[1:])])

    def _path(self, choice: ModelChoice) -> Path:
        """The weights of a model, or what has arrived of them."""
        part = self.logic.modelsFolder() / f"{choice.name}.part"
        return part if choice.installed is None else choice.installed.path

    def _card(self, view: View, own: bool) -> str:
        choice = view.model
        if own:
            path = view.parameters.modelFile
            if path == Path():
                return _("Choose a file of trained weights.")
            if (card := fileCard(path)) is not None:
                return cardText(card)
            return _("The file has no model card: what it was trained on and what to expect of it is unknown.")
        if choice is None:
            return html.escape(view.modelProblem())
        if choice.card is None:
            return _("What this model was trained on and what to expect of it is unknown.")
        text = cardText(choice.card)
        if choice.entry is not None and choice.installed is None:
            text += "<br>" + html.escape(_("Download: {size}.").format(size=choice.entry.size_text))
        return text

    def _on_chosen(self, index: int) -> None:
        if self._view is None or index < 0:
            return
        self._message, models = "", self._view.models
        self._view.parameters.model = OWN_FILE if index == len(models) else models[index].name

    def _on_download(self) -> None:
        if self._task is not None:
            self._task.cancel()
            return
        choice = self._view.model
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
            self._begin(lambda: self.logic.downloadModel(choice))

    def _on_import(self) -> None:
        choice = self._view.model
        path = qt.QFileDialog.getOpenFileName(
            self.ui.importButton, _("File of {name}").format(name=choice.title), "", _("Models (*.pt *.safetensors)")
        )
        if path:
            self._begin(lambda: self.logic.importModel(choice.name, Path(path)))

    def _on_delete(self) -> None:
        choice = self._view.model
        path, size = self._path(choice), format_bytes(choice.disk_bytes)
        again = _("It can be downloaded again.") if choice.entry else _("Keep its file elsewhere if you want it back.")
        agreed = slicer.util.confirmOkCancelDisplay(
            _("Delete {title} from this computer?\n\n{file}, {size}, in {folder}.\n\n{again}").format(
                title=choice.title, file=path.name, size=size, folder=path.parent, again=again
            ),
            windowTitle=_("Delete a model"),
        )
        if agreed:
            try:
                freed = self.logic.deleteModel(choice)
                self._message = _("{size} of disk are free again.").format(size=format_bytes(freed))
            except DualTrackError as error:
                self._message = str(error)
            self.changed.emit()

    def _begin(self, start: Callable[[], ModelTask]) -> None:
        self._message = ""
        try:
            self._task = start()
        except DualTrackError as error:
            self._message = str(error)
        else:
            self._task.moved.then(self._on_moved)
            self._task.ended.then(self._on_ended)
            self.ui.modelProgressBar.setRange(0, 0)
            self.ui.modelProgressBar.visible = True
        self.changed.emit()

    def _on_moved(self, progress: Progress) -> None:
        if progress.total:
            self.ui.modelProgressBar.setRange(0, 1000)
            self.ui.modelProgressBar.value = round(1000 * progress.fraction)
            text = _("{done} of {total} have arrived.")
            self.ui.modelMessageLabel.text = text.format(
                done=format_bytes(progress.done), total=format_bytes(progress.total)
            )
            self.ui.modelMessageLabel.visible = True

    def _on_ended(self) -> None:
        task, self._task = self._task, None
        self.ui.modelProgressBar.visible = False
        ended = {
            "done": _("The model is on this computer now."),
            "cancelled": _("Cancelled; what has arrived is kept for the next time."),
        }
        self._message = ended.get(task.state) or task.message
        self.changed.emit()


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
