"""Scanner profiles: which one is used, and four steps with a ruler that make one."""

from __future__ import annotations

import html
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from DualTrackCore.corrections import AUTO, NO_PROFILE
from DualTrackCore.corrections.profile import (
    Profile,
    find_profile,
    remove_profile,
    save_profile,
    stored_path,
)
from DualTrackCore.errors import DualTrackError
from DualTrackCore.network.catalogue import profile_paths
from DualTrackCore.run.profiling import SweepScale, profile_of, scale_of
from DualTrackSlicerLib.events import Signal
from DualTrackSlicerLib.logic import Logic
from DualTrackSlicerLib.run import Pace
from DualTrackSlicerLib.widget.texts import listText, paceText, rowsText
from DualTrackSlicerLib.widget.view import Section, View, enable, fill
from DualTrackSlicerLib.worker import Job

_PICTURE = Path(__file__).resolve().parents[2] / "Resources" / "Pictures" / "profile-slide.png"


class ProfileSection(Section):
    """Chooser of the scanner profile, what it says, and the page that makes one.

    Attributes:
        chosen: emits the clip that the user chose in step 2.
        changed: emits when something else is to be shown.
    """

    def __init__(self, ui: object, logic: Logic) -> None:
        self.ui, self.logic = ui, logic
        self.chosen, self.changed = Signal(), Signal()
        self._job: Job | None = None
        self._pace, self._message = Pace(), ""
        # What was measured, by the name of the sweep, until it is saved.
        self._found: dict[str, SweepScale] = {}
        ui.profilePictureLabel.setPixmap(qt.QPixmap(str(_PICTURE)))
        ui.profileComboBox.connect("currentIndexChanged(int)", self._on_profile)
        ui.profileRemoveButton.connect("clicked()", self._on_remove)
        ui.profileClipComboBox.connect("currentIndexChanged(int)", self._on_clip)
        ui.profileMeasureButton.connect("clicked()", self._on_measure)
        ui.profileNameEdit.connect("textChanged(QString)", self._on_name)
        ui.profileSaveButton.connect("clicked()", self._on_save)
        ui.profileResetButton.connect("clicked()", self._on_reset)

    def update(self, view: View) -> None:
        """Show the chosen profile, and how far the next one is."""
        self._view = view
        ui, clip, names = self.ui, view.clip, self._names()
        labels = {AUTO: _("automatic: the one that fits the clip"), NO_PROFILE: _("none")}
        fill(ui.profileComboBox, [labels.get(name, name) for name in names], names.index(view.parameters.profile))
        ui.profileInfoLabel.text = self._info(view.parameters.profile)
        stored = view.parameters.profile in profile_paths(self.logic.modelsFolder())
        enable("" if stored else _("Choose a profile of the list first."), ui.profileRemoveButton)
        enable(view.waiting, ui.profileComboBox)
        at = -1 if clip is None else view.clips.index(clip)
        fill(ui.profileClipComboBox, [listed.name for listed in view.clips], at)
        waiting = _("Wait until the sweep is measured, or cancel it.") if self._job is not None else view.waiting
        enable(waiting, ui.profileClipComboBox)
        ui.profileMeasureButton.text = _("Measure this sweep") if self._job is None else _("Cancel")
        enable("" if self._job is not None else view.waiting or self._problem(view), ui.profileMeasureButton)
        self._show_found(waiting)

    def forget(self) -> None:
        """The scene closes: so does what is measured in it."""
        if self._job is not None:
            self._job.cancel()
        self._found, self._message, self._job = {}, "", None

    def _names(self) -> list[str]:
        """What can be chosen; a profile that is wanted and not there is listed, too."""
        found = [AUTO, NO_PROFILE, *profile_paths(self.logic.modelsFolder())]
        return found if self._view.parameters.profile in found else [*found, self._view.parameters.profile]

    def _info(self, name: str) -> str:
        if name == NO_PROFILE:
            return _("Lengths along the sweep are as the model finds them.")
        folder = self.logic.modelsFolder()
        if name == AUTO:
            text = _(
                "Used by itself: the profile of the scanner or probe that the file of the clip names. On this "
                "computer: {count}."
            )
            return html.escape(text.format(count=len(profile_paths(folder))))
        try:
            return profileText(find_profile(name if Path(name).is_file() else str(stored_path(name, folder))))
        except (DualTrackError, ImportError) as error:
            return html.escape(str(error))

    def _problem(self, view: View) -> str:
        """Why the chosen clip cannot be measured; empty where it can."""
        if view.clip is None:
            return _("Load the recording of the slide first.")
        return view.problem()

    def _show_found(self, waiting: str) -> None:
        ui = self.ui
        text = paceText(self._pace) if self._job is not None else html.escape(self._message)
        if self._found:
            profile = self._profile("new")
            rows = [(name, sweepText(one)) for name, one in self._found.items()]
            rows.append((_("Factor"), profile.scale_text))
            text = rowsText([*rows, (_("Made for"), str(profile.preset))]) + listText(profile.advice) + text
        ui.profileFoundLabel.text, ui.profileFoundLabel.visible = text, bool(text)
        nothing = waiting or ("" if self._found else _("Measure a sweep first."))
        enable(nothing, ui.profileResetButton, ui.profileNameEdit)
        unnamed = "" if ui.profileNameEdit.text.strip() else _("Type a name first, such as clinic-l12.")
        enable(nothing or unnamed, ui.profileSaveButton)

    def _profile(self, name: str) -> Profile:
        return profile_of(name, list(self._found.values()))

    def _on_profile(self, index: int) -> None:
        if self._view is not None and index >= 0:
            self._view.parameters.profile = self._names()[index]

    def _on_clip(self, index: int) -> None:
        if self._view is not None and 0 <= index < len(self._view.clips):
            self.chosen.emit(self._view.clips[index])

    def _on_name(self, text: str) -> None:
        if self._view is not None:
            self.update(self._view)

    def _on_measure(self) -> None:
        if self._job is not None:
            self._job.cancel()
            return
        view, length = self._view, self.ui.profileLengthSpinBox.value
        self._message = ""
        try:
            self._job = self.logic.measureScale(view.clip, view.settings(), view.spacing())
        except DualTrackError as error:
            self._message = str(error)
        else:
            self._pace, name = Pace(), view.clip.name
            self._job.onProgress = self._on_progress
            self._job.onEnd = lambda job: self._on_measured(job, name, length)
        self.changed.emit()

    def _on_progress(self, report: object) -> None:
        self._pace.note(report)
        if self._view is not None:
            self._show_found(_("Wait until the sweep is measured, or cancel it."))

    def _on_measured(self, job: Job, name: str, length_mm: float) -> None:
        if job is not self._job:
            return  # of a scene that has been closed
        self._job, before = None, dict(self._found)
        try:
            result = job.result
            if not length_mm and result.sweep.truth is None:
                sentence = _("No tracker tells how long {name} is; type its length in step 3.")
                raise DualTrackError(sentence.format(name=name))
            self._found[name] = scale_of(result, length_mm or None)
            self._profile("new")
        except DualTrackError as error:
            self._found, self._message = before, str(error)
        self.changed.emit()

    def _on_save(self) -> None:
        name = self.ui.profileNameEdit.text.strip()
        try:
            save_profile(self._profile(name), self.logic.modelsFolder())
        except DualTrackError as error:
            self._message = str(error)
        else:
            self._found, self._message = {}, _("The profile {name} is saved, and chosen above.").format(name=name)
            self.ui.profileNameEdit.text = ""
            self._view.parameters.profile = name
        self.changed.emit()

    def _on_reset(self) -> None:
        self._found, self._message = {}, ""
        self.changed.emit()

    def _on_remove(self) -> None:
        name = self._view.parameters.profile
        question = _("Remove the scanner profile {name} from this computer?").format(name=name)
        if slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Remove a scanner profile")):
            try:
                remove_profile(name, self.logic.modelsFolder())
                self._message, self._view.parameters.profile = "", AUTO
            except DualTrackError as error:
                self._message = str(error)
            self.changed.emit()


def sweepText(one: SweepScale) -> str:
    """What was measured on a sweep: its length, that of the model, and the factor between them."""
    sweep, text = one.sweep, _("{length:.1f} mm, found as {found:.1f} mm: x {factor:.3g}")
    return text.format(length=sweep.length_mm, found=sweep.found_mm, factor=sweep.factor)


def profileText(profile: Profile) -> str:
    """What a profile says, as rich text."""
    model = _("{model}, {count} sweeps").format(model=profile.model, count=len(profile.sweeps))
    rows = [(_("Factor"), profile.scale_text), (_("Made for"), str(profile.preset)), (_("Made with"), model)]
    return rowsText([*rows, (_("Made on"), profile.made)])
