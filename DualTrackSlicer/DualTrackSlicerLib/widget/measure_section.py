"""Lines, curves and segments, measured in the shown result with how far each measure may be off."""

from __future__ import annotations

import html

import slicer
from slicer.i18n import tr as _

from DualTrackSlicerLib import region
from DualTrackSlicerLib.measuring import Measuring
from DualTrackSlicerLib.scene import Target, measureRows
from DualTrackSlicerLib.widget.texts import measuredText, quantityText
from DualTrackSlicerLib.widget.view import Section, View, enable, fill


class MeasureSection(Section):
    """Chooser of what is measured, and what comes of it.

    Attributes:
        measuring: does the work; it goes on while another module is shown.
    """

    def __init__(self, ui: object) -> None:
        self.ui, self.measuring = ui, Measuring()
        self._wanted: Target | None = None
        self.measuring.changed.then(self._show)
        self.measuring.touched.then(self._on_touched)
        ui.measureComboBox.connect("currentIndexChanged(int)", self._on_chosen)
        ui.measureLineButton.connect("clicked()", self._on_line)
        ui.measureCurveButton.connect("clicked()", self._on_curve)
        ui.measureOutlineButton.connect("clicked()", self._on_outline)
        ui.measureAgainButton.connect("clicked()", self._on_again)
        ui.copyMeasuresButton.connect("clicked()", self._on_copy)

    def update(self, view: View) -> None:
        """Measure in the result that is shown."""
        self._view = view
        self.ui.measureSection.visible = view.result is not None
        self.measuring.follow(view.result, (view.parameters.ruler, view.parameters.fanOutline))
        self._show()

    def stop(self) -> None:
        """Show nothing until the next update."""
        super().stop()
        self._wanted = None

    def _chosen(self) -> Target | None:
        """What is shown; the last one that was drawn where the chosen one has gone."""
        targets = self.measuring.targets
        return self._wanted if self._wanted in targets else targets[-1] if targets else None

    def _show(self) -> None:
        if self._view is None or self._view.result is None:
            return
        ui, targets, chosen = self.ui, self.measuring.targets, self._chosen()
        fill(ui.measureComboBox, [target.name for target in targets], -1 if chosen is None else targets.index(chosen))
        ui.measureLabel.text = self._text(chosen)
        nothing = "" if targets else _("There is nothing to measure yet.")
        enable(nothing, ui.copyMeasuresButton)
        ui.measureComboBox.visible = ui.copyMeasuresButton.visible = bool(targets)
        ui.measureAgainButton.visible = chosen is not None and bool(chosen.segment)

    def _text(self, chosen: Target | None) -> str:
        if chosen is None:
            return _("Draw a line, a curve or an outline on the volume, in any view; segments can be measured, too.")
        said = self.measuring.of(chosen)
        if self.measuring.isDue(chosen):
            return _("Measuring…")
        if said is None:
            return _("The segment was not measured yet, or has changed since; press “Measure the segment”.")
        return html.escape(said) if isinstance(said, str) else measuredText(said)

    def _on_chosen(self, index: int) -> None:
        if self._view is not None and 0 <= index < len(self.measuring.targets):
            self._wanted = target = self.measuring.targets[index]
            self._show()
            if target.segment and self.measuring.of(target) is None:
                self.measuring.again(target)

    def _on_touched(self, target: Target) -> None:
        self._wanted = target

    def _on_line(self) -> None:
        self._draw("vtkMRMLMarkupsLineNode", _("Length"))

    def _on_curve(self) -> None:
        self._draw("vtkMRMLMarkupsCurveNode", _("Curve"))

    def _on_outline(self) -> None:
        self._draw("vtkMRMLMarkupsClosedCurveNode", _("Outline"))

    def _draw(self, kind: str, name: str) -> None:
        self._wanted = Target(region.drawNext(slicer.mrmlScene, slicer.app.applicationLogic(), kind, name))

    def _on_again(self) -> None:
        self.measuring.again(self._chosen())

    def _on_copy(self) -> None:
        self.measuring.finish()
        lines = []
        for name, what, value, unit, *bands, basis, trust, _result in measureRows(
            self._view.result, self.measuring.targets
        ):
            low, high = bands[2:]
            band = _("not known") if low == "" else f"{quantityText(low, unit)} – {quantityText(high, unit)}"
            figures = quantityText(value, unit), _("in 95 of 100 cases {band}").format(band=band)
            lines.append("\t".join((name, what, *figures, basis, trust)))
        slicer.app.clipboard().setText("\n".join(lines))
