"""Where tests find the reference files that are kept beside the project and are not part of it."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def shared_path(relative: str) -> Path:
    """The reference file, or a skipped test where the folder is missing."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"The reference file {relative} is not beside this checkout.")
    return path
