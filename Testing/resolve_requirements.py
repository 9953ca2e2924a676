"""Whether pip finds wheels of what the Slicer module installs, beside the numpy that Slicer brings and must keep.

For every system and every numpy the requirements of the module are resolved for Python 3.12 from wheels alone; nothing
is installed. The table says which numba, and which llvmlite with it, fits which numpy. torch and torchvision, and timm
that needs them, come through Slicer's extension PyTorch and are checked without their own requirements.

    python Testing/resolve_requirements.py

Exit code 1 where a combination that has to work cannot be resolved.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "DualTrackSlicer" / "Resources" / "requirements.txt"
#: Tags of the wheels that a system takes, the oldest system first.
SYSTEMS = {
    "Linux": [f"manylinux_2_{minor}_x86_64" for minor in (17, 27, 28)] + ["manylinux2014_x86_64"],
    "Windows": ["win_amd64"],
    "macOS, Apple": [f"macosx_{major}_0_arm64" for major in (11, 12, 13, 14)],
    "macOS, Intel": [f"macosx_{version}_x86_64" for version in ("10_9", "10_12", "10_13", "10_14", "11_0", "12_0")],
}
#: The minor versions that Slicer 5.12 and 5.13 can bring.
NUMPY = ("2.3.5", "2.4.6")
#: numba has no wheels for Intel processors under macOS from 0.63 on, and older ones do not take numpy 2.4.
KNOWN_GAPS = {("macOS, Intel", "2.4.6")}
SHOWN = ("numba", "llvmlite", "h5py")


def resolved(system: str, numpy: str) -> dict[str, str] | str:
    """Versions by package that pip would install, or its error."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "timm"))]
    platforms = [word for tag in SYSTEMS[system] for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
                *("--target", folder, "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"),
                *(*platforms, "--report", str(report), f"numpy=={numpy}", *wanted),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            return (errors or [done.stderr])[-1].strip()
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {item["metadata"]["name"].lower(): item["metadata"]["version"] for item in found}


def main() -> int:
    """Print the table; return the exit code."""
    failed = False
    print(f"{'system':<14}{'numpy':<8}" + "".join(f"{name:<10}" for name in SHOWN))
    for system in SYSTEMS:
        for numpy in NUMPY:
            result, gap = resolved(system, numpy), (system, numpy) in KNOWN_GAPS
            kept = isinstance(result, dict) and result.get("numpy") == numpy
            failed |= kept == gap
            cells = "".join(f"{result[name]:<10}" for name in SHOWN) if kept else f"cannot be resolved: {result}"
            note = " (known; if it can be resolved now, take it out of KNOWN_GAPS)" if gap else ""
            print(f"{system:<14}{numpy:<8}{cells}{note}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
