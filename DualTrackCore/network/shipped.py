"""The models that come with the package, so that a fresh installation can track without a download."""

from __future__ import annotations

from pathlib import Path

#: What `load_model()` loads and `dualtrack run` uses where no other model is named.
DEFAULT_MODEL = "mini"
#: Names of the models that ship; no other model can have one of them.
SHIPPED_MODELS = (DEFAULT_MODEL,)


def shipped_folder() -> Path:
    """Where the shipped weights lie: each a `NAME.safetensors` with its checksum in `NAME.safetensors.sha256`."""
    return Path(__file__).resolve().parent / "weights"
