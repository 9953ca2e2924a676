"""Figures of the structure: files that one run imports, lines of the product, circles of imports.

    python Testing/measure_structure.py [-v]

A run reads a .mha without tracking on the CPU and gives trajectory and volume in memory, in this process. Not counted:
what the command line, the writing of results, pictures and the error of a tracked sweep import on top.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MOST_FILES, MOST_LINES = 48, 27_500


def imported_by_one_run() -> list[str]:
    """The modules of the core that a run has imported; nothing of the core may be imported before."""
    from DualTrackCore.run import RunSettings, run

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mha"
        _write_clip(path)
        result = run(path, RunSettings(device="cpu", voxel_mm=1.0, pictures=False))
        assert result.volume is not None
    return sorted(name for name in sys.modules if name.split(".")[0] == "DualTrackCore")


def _write_clip(path: Path) -> None:
    import numpy as np
    import SimpleITK as sitk

    frames = np.random.default_rng(0).integers(0, 255, (12, 96, 128), dtype=np.uint8)
    image = sitk.GetImageFromArray(frames)
    image.SetSpacing((0.25, 0.25, 1.0))
    sitk.WriteImage(image, str(path))


def product_sources() -> list[Path]:
    """The Python files of the core and of the Slicer module."""
    return sorted(path for name in ("DualTrackCore", "DualTrackSlicer") for path in (ROOT / name).rglob("*.py"))


def product_lines() -> int:
    """Lines of all of them."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in product_sources())


def circle() -> list[str] | None:
    """Modules that import each other in a circle when they are loaded, or None."""
    names = {_module(path): path for path in product_sources()}
    graph = {name: {other for other in _imports(path, names) if other != name} for name, path in names.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def _module(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "DualTrackSlicer":
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, names: dict[str, Path]) -> Iterator[str]:
    """The modules of the product that a file imports at its top level."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [module for module in modules if module in names]
            yield from found or ([node.module] if node.module in names else [])


def main() -> int:
    """Print the figures; exit code 1 where one is over its limit."""
    sys.path.insert(0, str(ROOT))
    modules, lines, found = imported_by_one_run(), product_lines(), circle()
    if "-v" in sys.argv:
        print("\n".join(modules))
    print(f"files of the core that one run imports: {len(modules)} (at most {MOST_FILES})")
    print(f"lines of the product: {lines} (at most {MOST_LINES})")
    print(f"circle of imports: {'none' if found is None else ' -> '.join(found)}")
    return int(len(modules) > MOST_FILES or lines > MOST_LINES or found is not None)


if __name__ == "__main__":
    sys.exit(main())
