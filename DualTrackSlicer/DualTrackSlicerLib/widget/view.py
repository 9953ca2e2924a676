"""What the panel shows: the settings of the scene, the chosen clip and its result, and what goes on at the moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError, InputError
from DualTrackCore.run.results import RunReport
from DualTrackCore.run.settings import RunSettings
from DualTrackSlicerLib.models import ModelChoice
from DualTrackSlicerLib.parameters import (
    OWN_FILE,
    DualTrackSlicerParameterNode,
    Poses,
    givenSpacing,
    preparing,
    runSettings,
)
from DualTrackSlicerLib.scene import (
    Clip,
    ResultNodes,
    baseOf,
    reportOf,
    resultsOf,
    shownResult,
)

#: Property of a widget that keeps the tool tip of the form.
_TIP = "DualTrackTip"


@dataclass(frozen=True, eq=False)
class View:
    """One look at the state of scene and computer; sections show it and keep none of their own.

    Attributes:
        parameters: the settings of the scene.
        clips: what can be chosen.
        models: what can be chosen or downloaded.
        device: what runs are run on.
        message: a sentence in place of the facts of the clip; empty for the facts.
        is_running: whether a run is under way.
        is_arriving: whether a model is being downloaded or imported.
    """

    parameters: DualTrackSlicerParameterNode
    clips: tuple[Clip, ...] = ()
    models: tuple[ModelChoice, ...] = ()
    device: str = "auto"
    message: str = ""
    is_running: bool = False
    is_arriving: bool = False

    @cached_property
    def clip(self) -> Clip | None:
        """The chosen clip."""
        browser, sequence = self.parameters.browser, self.parameters.sequence
        for clip in self.clips if sequence is not None else ():
            if sequence in (clip.sequence, clip.volume) and browser in (clip.browser, None):
                return clip
        return None

    @cached_property
    def model(self) -> ModelChoice | None:
        """The chosen model of the list; None for an own file or one that is not in the list."""
        return next((choice for choice in self.models if choice.name == self.parameters.model), None)

    @cached_property
    def results(self) -> list[ResultNodes]:
        """All results of the chosen clip, the oldest first."""
        return [] if self.clip is None or self.clip.sequence is None else resultsOf(self.clip.sequence)

    @cached_property
    def result(self) -> ResultNodes | None:
        """The result that is shown."""
        return shownResult(self.clip.browser, self.clip.sequence) if self.results else None

    @cached_property
    def base(self) -> ResultNodes | None:
        """The result that the shown one was corrected from, else the shown one itself."""
        return None if self.result is None else baseOf(self.result) or self.result

    @cached_property
    def report(self) -> RunReport | None:
        """What the shown result says; None where there is none that can be read."""
        try:
            return None if self.result is None else reportOf(self.result)
        except InputError:
            return None

    @property
    def waiting(self) -> str:
        """Why nothing can be changed now; empty where it can."""
        return _("Wait until the run has ended, or cancel it.") if self.is_running else ""

    def settings(self) -> RunSettings:
        """What a run would be asked for. Raises InputError: the settings contradict each other."""
        return runSettings(self.parameters, self.device)

    def preparing(self) -> RunSettings:
        """What a run would be asked to do to the pictures. Raises InputError: the settings make no sense."""
        return preparing(self.parameters)

    def spacing(self) -> tuple[float, float] | None:
        """The pixel size where it replaces the recorded one. Raises InputError: it is unknown."""
        return givenSpacing(self.parameters, None if self.clip is None else self.clip.spacing_mm)

    @property
    def pixel_mm(self) -> tuple[float, float] | None:
        """Pixel size of the clip as it is loaded, as far as it is known before a depth is taken into account."""
        typed = self.parameters.spacingX, self.parameters.spacingY
        return typed if min(typed) > 0 and not self.parameters.depth else self.clip.spacing_mm

    def picture(self) -> tuple[tuple[int, int], tuple[float, float] | None]:
        """(width, height) of the pictures as they are tracked, and about how large their pixels are, where it is known.

        Raises InputError: the settings make no sense.
        """
        settings, size, pixel = self.preparing(), self.clip.size, self.pixel_mm
        if settings.rotate % 180:
            size, pixel = size[::-1], pixel and pixel[::-1]
        size = settings.crop[2:] if settings.crop else size
        if settings.depth_mm:
            down = settings.depth_mm / size[1]
            pixel = (down * (pixel[0] / pixel[1] if pixel else 1.0), down)
        return size, pixel

    def problem(self) -> str:
        """Why Apply cannot be pressed, in one sentence; empty where it can."""
        if self.clip is None:
            return _("Load an ultrasound clip first, or press Sample.")
        if self.clip.problem:
            return self.clip.problem
        try:
            self.spacing()
            self.settings()
        except DualTrackError as error:
            return str(error)
        return self.modelProblem()

    def modelProblem(self) -> str:
        """Why the chosen model cannot be used; empty where it can."""
        if self.is_arriving:
            return _("Wait until the model has arrived.")
        own, elsewhere = self.parameters.model == OWN_FILE, "://" in self.device
        if self.parameters.poses is Poses.TRACKED or (own and not elsewhere):
            return ""
        if own:
            return _("A server has its own models; choose one of the list.")
        if self.model is None:
            name = self.parameters.model
            if elsewhere:
                return _("The server does not offer the model {name}; choose another one.").format(name=name)
            return _("The model {name} is not on this computer; choose another one.").format(name=name)
        if self.model.installed is None and not self.model.elsewhere:
            return _("Download the model {name} first, or choose another one.").format(name=self.model.title)
        return ""


class Section:
    """A part of the panel that shows a view; between updates it may act on the last one."""

    _view: View | None = None

    def stop(self) -> None:
        """The scene closes, or another module is shown: keep nothing of it, and act no more until the next update."""
        self._view = None


def enable(reason: str, *widgets: object) -> None:
    """Enable controls, with the tool tips of the form; a reason disables them and takes the place of their tips."""
    for widget in widgets:
        if widget.property(_TIP) is None:
            widget.setProperty(_TIP, widget.toolTip)
        widget.enabled = not reason
        widget.toolTip = reason or widget.property(_TIP)


def fill(combo: object, texts: list[str], index: int) -> None:
    """Show texts in a chooser, one of them chosen, without telling that anything was chosen."""
    was_blocked = combo.blockSignals(True)
    if [combo.itemText(i) for i in range(combo.count)] != texts:
        combo.clear()
        for text in texts:
            combo.addItem(text)
    combo.currentIndex = index
    combo.blockSignals(was_blocked)
