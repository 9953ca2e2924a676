"""Small things that every section does with its controls."""

from __future__ import annotations

import slicer


def enable(widget: object, reason: str, tip: str) -> None:
    """Enable a control, or disable it where there is a reason, which becomes its tooltip."""
    widget.enabled = not reason
    widget.toolTip = reason or tip


def copyText(text: str) -> None:
    """To the clipboard."""
    slicer.app.clipboard().setText(text)
