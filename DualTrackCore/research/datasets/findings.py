"""What is wrong with a data set: one finding for each thing, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        path: the file or folder.
        sweep: name of the sweep that it is about; None for the data set as a whole.
        problem: what is wrong, a clause without a full stop.
        remedy: what to do, a clause without a full stop.
    """

    path: Path
    sweep: str | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.remedy}."

    def as_json(self) -> dict[str, str | None]:
        """Plain values."""
        return {"path": str(self.path), "sweep": self.sweep, "problem": self.problem, "remedy": self.remedy}
