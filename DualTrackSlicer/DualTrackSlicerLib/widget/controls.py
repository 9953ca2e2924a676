"""Controls that say why they are disabled."""

from __future__ import annotations

#: Property of a widget that keeps the tool tip of the form.
_TIP = "DualTrackTip"


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
