"""What the panel calls the settings of a run, for the sentences of the core that say which one to change."""

from __future__ import annotations

from slicer.i18n import tr as _


def settingLabels() -> dict[str, str]:
    """Texts of the panel beside the widgets, by the name of the setting in Python."""
    frames, length = _("Frames"), _("Length")
    return {
        "spacing_mm": _("Pixel size"),
        "depth_mm": _("Depth"),
        "first_frame": frames,
        "last_frame": frames,
        "voxel_mm": _("Voxel size"),
        "device": _("Run on"),
        "direction": _("Direction"),
        "known_length_mm": length,
        "known_length_frames": length,
        "places": _("Landmarks"),
        "tracker": _("Places of a tracker"),
        "certificate": _("Certificate"),
    }
