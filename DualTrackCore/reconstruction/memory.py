"""How much memory a volume may take on this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

#: What is assumed where the system does not tell.
UNKNOWN_MEMORY_BYTES = 4 * 1024**3
#: Part of the available memory that a volume may take.
DEFAULT_FRACTION = 0.5


def default_memory_limit() -> int:
    """Bytes that a reconstruction may take when the caller sets no limit: half of what is available now."""
    return int(DEFAULT_FRACTION * available_memory_bytes())


def available_memory_bytes() -> int:
    """Physical memory available now, bytes; all installed memory on systems that do not tell what is free."""
    if sys.platform == "win32":
        return _available_on_windows()
    with contextlib.suppress(OSError, ValueError, IndexError):  # only Linux has the file
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return UNKNOWN_MEMORY_BYTES


class _WindowsMemoryStatus(ctypes.Structure):
    """The MEMORYSTATUSEX structure of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load_percent", ctypes.c_ulong),
        *((name, ctypes.c_ulonglong) for name in ("total", "available", "page_total", "page_available")),
        *((name, ctypes.c_ulonglong) for name in ("virtual_total", "virtual_available", "extended_available")),
    )


def _available_on_windows() -> int:
    status = _WindowsMemoryStatus()
    status.length = ctypes.sizeof(status)
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return UNKNOWN_MEMORY_BYTES
    return int(status.available)


def format_bytes(count: float) -> str:
    """A number of bytes for people: '3.4 GB'."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB" if count < 1e6 else f"{count:.1e} TB"
