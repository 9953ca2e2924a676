"""The Python that does what Apply does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from DualTrackCore.errors import DualTrackError
from DualTrackSlicerLib.console_script import consoleScript
from DualTrackSlicerLib.widget.controls import copyText, enable

if TYPE_CHECKING:
    from DualTrackSlicerLib.scene import Clip
    from DualTrackSlicerLib.widget.panel import Panel


class ScriptTab:
    """The script for the current settings."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui
        self.ui.copyScriptButton.connect("clicked()", self._on_copy)

    def update(self) -> None:
        """Show the script, or why there is none."""
        clip, reason = self.panel.clip(), ""
        try:
            if clip is None:
                reason = _("Choose a clip first.")
                script = ""
            else:
                script = self._script(clip)
        except DualTrackError as error:
            script, reason = "", str(error)
        text = script or f"# {reason}\n"
        if self.ui.scriptEdit.plainText != text:
            self.ui.scriptEdit.setPlainText(text)
        enable(self.ui.copyScriptButton, reason, _("Copy the script."))

    def _script(self, clip: Clip) -> str:
        master = None if clip.browser is None else clip.browser.GetMasterSequenceNode()
        return consoleScript(
            (clip.browser or clip.volume).GetName(),
            self.panel.settings(),
            self.panel.spacing(),
            is_volume=clip.browser is None,
            sequence_name=None if clip.sequence is master else clip.sequence.GetName(),
        )

    def _on_copy(self) -> None:
        copyText(self.ui.scriptEdit.plainText)
