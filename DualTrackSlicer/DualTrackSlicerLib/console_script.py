"""The Python that does what the panel's Apply does."""

from __future__ import annotations

from dataclasses import fields

from DualTrackCore.reconstruction import Fan
from DualTrackCore.run.settings import RunSettings


def consoleScript(
    clip_name: str,
    settings: RunSettings,
    spacing_mm: tuple[float, float] | None = None,
    *,
    is_volume: bool = False,
    sequence_name: str | None = None,
) -> str:
    """A script for Slicer's Python console.

    Args:
        clip_name: name of the sequence browser, or of the volume whose slices are the frames.
        settings: of the run; only what differs from the defaults is written.
        spacing_mm: pixel size (x, y) where it replaces the recorded one.
        is_volume: whether `clip_name` is a volume.
        sequence_name: the image sequence, where the browser has several.
    """
    changed = [
        f"    {field.name}={getattr(settings, field.name)!r},"
        for field in fields(settings)
        if field.name != "model" and getattr(settings, field.name) != field.default
    ]
    lines = ["from DualTrackSlicer import DualTrackSlicerLogic"]
    lines += ["from DualTrackCore.run import RunSettings"] if changed else []
    lines += ["from DualTrackCore.reconstruction import Fan"] if isinstance(settings.fan, Fan) else []
    kind = "vtkMRMLScalarVolumeNode" if is_volume else "vtkMRMLSequenceBrowserNode"
    lines += ["", "logic = DualTrackSlicerLogic()", f"clip = {_node(kind, clip_name)}"]
    lines += ["clip = logic.sequenceFromVolume(clip)"] if is_volume else []
    arguments = ["clip"]
    if sequence_name is not None:
        lines += [f"images = {_node('vtkMRMLSequenceNode', sequence_name)}"]
        arguments += ["sequenceNode=images"]
    if changed:
        lines += ["settings = RunSettings(", f"    model={settings.model!r},", *changed, ")"]
        arguments += ["settings=settings"]
    else:
        arguments += [f"model={settings.model!r}"]
    if spacing_mm is not None:
        x, y = (round(value, 6) for value in spacing_mm)
        arguments += [f"spacing_mm=({x:g}, {y:g})"]
    lines += [f"nodes = logic.run({', '.join(arguments)})"]
    return "\n".join(lines) + "\n"


def _node(kind: str, name: str) -> str:
    return f"slicer.util.getFirstNodeByClassByName({kind!r}, {name!r})"
