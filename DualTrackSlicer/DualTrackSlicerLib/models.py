"""The models that the panel offers, read without torch, and their download and import by a program of its own."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from DualTrackCore.errors import DualTrackError
from DualTrackCore.network import catalogue, installation
from DualTrackCore.network.catalogue import InstalledModel, ModelCard, ModelEntry
from DualTrackCore.progress import Progress, Stage
from DualTrackCore.worker.process import described_ending
from DualTrackSlicerLib.events import Clock, Signal
from DualTrackSlicerLib.process import Process, slicerPython

#: Time between two looks at what has arrived, s.
LOOK_S = 0.3


@dataclass(frozen=True)
class ModelChoice:
    """One line of the model chooser.

    Attributes:
        name: as a run takes it.
        title: one line for people.
        card: what it was trained on and what to expect of it; None where nothing is known.
        installed: its file, or None where it has to be downloaded first.
        entry: of the catalogue, or None for models that ship and for own ones.
        disk_bytes: of what can be deleted, an unfinished download too; 0 where nothing can.
        elsewhere: whether a server has it, or may have it.
    """

    name: str
    title: str
    card: ModelCard | None
    installed: InstalledModel | None
    entry: ModelEntry | None = None
    disk_bytes: int = 0
    elsewhere: bool = False


def modelChoices(folder: Path) -> list[ModelChoice]:
    """Models that ship first, then published ones, then those of the user."""
    entries, used = catalogue.published_models(), installation.removable(folder)
    installed = {model.name: model for model in catalogue.installed_models(folder)}
    names = sorted(
        {*installed, *entries},
        key=lambda name: (not (name in installed and installed[name].ships), name not in entries, name),
    )
    choices = []
    for name in names:
        model, entry = installed.get(name), entries.get(name)
        card = None if entry is None else entry.card
        if model is not None:
            try:
                card = catalogue.installed_card(model) or card
            except DualTrackError:
                card = None
        title = name if card is None or not card.title else card.title
        choices.append(ModelChoice(name, title, card, model, entry, used.get(name, 0)))
    return choices


def serverChoices(folder: Path, offered: Mapping[str, Mapping[str, Any]] | None) -> list[ModelChoice]:
    """The models of a server, with what is known of them here; all known ones while nobody has asked it."""
    known = {choice.name: choice for choice in modelChoices(folder)}
    offered = {name: {} for name in known} if offered is None else offered
    return [
        replace(known.get(name) or ModelChoice(name, str(facts.get("title") or name), None, None), elsewhere=True)
        for name, facts in offered.items()
    ]


def fileCard(path: Path) -> ModelCard | None:
    """The card inside or beside a weights file, or None where there is none that can be read."""
    try:
        return catalogue.read_card_inside(path) or catalogue.read_card_beside(path)
    except (DualTrackError, OSError):
        return None


def modelVariables(folder: Path) -> dict[str, str]:
    """Variables of a process that keeps models in a folder."""
    return {**os.environ, catalogue.FOLDER_VARIABLE: str(folder)}


class ModelTask:
    """One download or import.

    Args:
        arguments: of `dualtrack models`, such as ["fetch", name, "--yes"].
        name: of the model.
        folder: where models are kept.
        about_bytes: rough size, for progress until the server states the exact one.

    Attributes:
        state: "running", "done", "failed" or "cancelled".
        message: what went wrong.
        moved: emits the progress, now and then.
        ended: emits nothing, once, when its program has gone.
    """

    def __init__(self, arguments: Sequence[str], name: str, folder: Path, about_bytes: int | None = None) -> None:
        self.state, self.message = "running", ""
        self.moved, self.ended = Signal(), Signal()
        self._part = folder / f"{name}.part"
        self._about_bytes, self._cancelled = about_bytes, False
        self._lines: list[bytes] = []
        self._logs = tempfile.TemporaryDirectory(prefix="dualtrack-models-", ignore_cleanup_errors=True)
        command = [slicerPython(), "-m", "DualTrackCore.cli", "models", *arguments, "--json"]
        log = Path(self._logs.name) / "log.txt"
        self._clock = Clock(LOOK_S, self._look)
        self._process = Process(command, modelVariables(folder), log, self._lines.append, self._end)

    def cancel(self) -> None:
        """Stop; what has arrived is kept for the next time. The state changes when the program has gone."""
        self._cancelled = True
        self._process.end()

    def _look(self) -> None:
        total = self._about_bytes or 0
        try:
            done = self._part.stat().st_size
        except OSError:
            return
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            memory = json.loads(self._part.with_name(self._part.name + ".json").read_text(encoding="utf-8"))
            total = int(memory.get("total") or total)
        self.moved.emit(Progress(Stage.DOWNLOADING, min(done, total) if total else done, total))

    def _end(self) -> None:
        self._clock.stop()
        code, log = self._process.returncode, self._process.log_tail()
        self.state = "cancelled" if self._cancelled else "done" if code == 0 else "failed"
        if self.state == "failed":
            self.message = self._process.problem or self._last_words() or f"{described_ending(code, log)[1]}."
        self._logs.cleanup()
        self.ended.emit()

    def _last_words(self) -> str:
        text = b"\n".join(self._lines).decode("utf-8", errors="replace")
        try:
            return str(json.loads(text).get("error", ""))
        except (ValueError, AttributeError):
            return text.strip().splitlines()[-1] if text.strip() else ""
