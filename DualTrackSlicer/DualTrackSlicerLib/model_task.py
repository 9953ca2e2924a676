"""Downloading and importing models in a process of their own, watched without threads.

Slicer lets Python threads run only while its main thread runs Python, so a download in a thread would crawl. The
command line of the core does the work; what has arrived is seen from the size of the partial file.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from DualTrackCore.network.catalogue import FOLDER_VARIABLE, models_folder
from DualTrackCore.progress import Progress, Stage


class ModelTask:
    """One download or import.

    Args:
        arguments: of `dualtrack models`, such as ["fetch", name, "--yes"].
        name: of the model.
        python: the interpreter with the core's packages.
        folder: where models are kept; the core's own choice where None.
        about_bytes: rough size, for progress until the server has told the exact one.
        environment: of the process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        name: str,
        *,
        python: str,
        folder: Path | None = None,
        about_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.state, self.message = "running", ""
        self._part = (folder or models_folder()) / f"{name}.part"
        self._about_bytes = about_bytes
        self._output = tempfile.TemporaryFile(mode="w+", encoding="utf-8")  # noqa: SIM115 - closed with the process
        variables = dict(os.environ if environment is None else environment)
        if folder is not None:
            variables[FOLDER_VARIABLE] = str(folder)
        command = [python, "-m", "DualTrackCore.cli", "models", *arguments, "--json"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.DEVNULL, env=variables
        )

    def poll(self) -> Progress | None:
        """Where it stands; call it from a timer until `state` is "done", "failed" or "cancelled"."""
        if self.state != "running":
            return None
        code = self._process.poll()
        if code is None:
            return self._progress()
        self.state = "done" if code == 0 else "failed"
        self.message = self._last_words()
        return None

    def cancel(self) -> None:
        """Stop; what has arrived is kept for the next time."""
        if self.state != "running":
            return
        self.state = "cancelled"
        self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()

    def _progress(self) -> Progress | None:
        total = self._about_bytes or 0
        try:
            done = self._part.stat().st_size
        except OSError:
            return None
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            memory = json.loads(self._part.with_name(self._part.name + ".json").read_text(encoding="utf-8"))
            total = int(memory.get("total") or total)
        return Progress(Stage.DOWNLOADING, min(done, total) if total else done, total)

    def _last_words(self) -> str:
        with self._output as output:
            output.seek(0)
            text = output.read()
        try:
            return str(json.loads(text).get("error", ""))
        except (ValueError, AttributeError):
            return text.strip().splitlines()[-1] if text.strip() else ""
