"""Values of any kind as JSON knows them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from typing import Any

import numpy as np


def plain_values(value: Any) -> Any:
    """The same values with nothing but what JSON knows.

    Mappings and dataclasses become dicts with text as keys, arrays, tuples and sets lists, enums their values, numbers
    that are not finite None, and everything else, paths included, its text.
    """
    if isinstance(value, Enum):
        return plain_values(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return plain_values(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain_values(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def json_text(values: Any) -> str:
    """Values as indented JSON for a file, with a line end; see :func:`plain_values`."""
    return json.dumps(plain_values(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
