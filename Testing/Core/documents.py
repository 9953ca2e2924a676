"""The fenced blocks of README and the pages: what a reader copies, found by a test before a reader finds it wrong."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("Docs/**/*.md"), *ROOT.glob("DualTrack*/**/*.md")]
}
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```", re.S | re.M)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: what stands behind its fence.
        text: its lines, without the indentation of a list.
    """

    language: str
    text: str

    def commands(self) -> list[list[str]]:
        """The words of each command of a console; where lines begin with "$ ", the others are its answers."""
        text = self.text.replace("\\\n", " ")
        lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")] or text.splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    found = _FENCE.finditer(PAGES[page].read_text(encoding="utf-8"))
    return [Block(match["language"], dedent(match["text"])) for match in found]


def run_server_page(address: str, model: str, clip: Path, frames: np.ndarray) -> dict:
    """Run the Python of Docs/server.md with that server, model, clip and array; returns the names that it leaves."""
    used = {"https://gpu.lab:8765": address, '"mini"': repr(model), "dualtrack-tusrec2024": model, '"lab.key"': "None"}
    used |= dict.fromkeys(('"clip.h5"', '"clip.mp4"'), repr(str(clip)))
    names = {"frames": frames}
    for block in blocks("Docs/server.md"):
        if block.language == "python":
            text = block.text
            for shown, word in used.items():
                text = text.replace(shown, word)
            exec(text, names)
    return names
