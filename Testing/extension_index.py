"""Whether the extension can be handed to Slicer's Extensions Index, and what of it is still a placeholder.

The Index reads two files as plain text: its entry, DualTrack.json, and the addresses in CMakeLists.txt, which stand
there in full. The public address of this repository is written once, as `scm_url` of the entry; the others follow from
it. Until there is one it is an address under example.org, which nobody can own.

    python Testing/extension_index.py                  # a rule that is broken is exit code 1; placeholders are told
    python Testing/extension_index.py --release        # placeholders are exit code 1 too
    python Testing/extension_index.py --address URL    # write the public address into both files
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema

ROOT = Path(__file__).resolve().parents[1]
ENTRY, BUILD = "DualTrack.json", "CMakeLists.txt"
#: Host of the placeholder: RFC 2606 keeps it for examples.
PLACEHOLDER = "example.org"
ICON, SCREENSHOTS = "DualTrack.png", ("Docs/pictures/scene-3d.png", "Docs/pictures/panel-after.png")
_TEXT = {"type": "string", "minLength": 1}
#: What version 1.0.1 of the Index's schema allows of an entry, and what this project asks of its own beyond that.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["$schema", "category", "scm_url", "scm_revision", "build_dependencies"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "pattern": r"^https://.*/slicer-extension-catalog-entry-schema-v1\.0\.1\.json#$"},
        "category": {"const": "Ultrasound"},
        "scm_url": {"type": "string", "pattern": "^https://"},
        "scm_revision": _TEXT,
        "scm_type": {"const": "git"},
        # PyTorch is needed at run time alone: CMakeLists.txt names it, so that Slicer installs it along.
        "build_dependencies": {"type": "array", "maxItems": 0},
        "build_subdirectory": _TEXT,
        "enabled": {"type": "boolean"},
        "tier": {"enum": [1, 3, 5]},
    },
}


def address(root: Path) -> str:
    """The public address of the repository, as the entry has it, without `.git`."""
    return str(json.loads((root / ENTRY).read_text(encoding="utf-8")).get("scm_url", "")).removesuffix(".git")


def problems(root: Path) -> list[str]:
    """The rules that are broken, a sentence each."""
    entry = json.loads((root / ENTRY).read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(SCHEMA)
    found = [
        f"{ENTRY}, {'/'.join(map(str, e.path)) or 'as a whole'}: {e.message}." for e in validator.iter_errors(entry)
    ]
    place = address(root)
    name = urlsplit(place).path.rpartition("/")[2]
    if not name.startswith("Slicer"):
        found.append(
            f"{ENTRY}: the repository is called {name!r}; names of extensions' repositories begin with Slicer."
        )
    build = (root / BUILD).read_text(encoding="utf-8")
    if re.search(r"project\s*\(\s*(\w+)", build)[1] != Path(ENTRY).stem:
        found.append(f"{BUILD}: the project must be called {Path(ENTRY).stem}, as the entry.")
    for key, wanted in (
        ("HOMEPAGE", place),
        ("ICONURL", f"{place}/raw/main/{ICON}"),
        ("SCREENSHOTURLS", " ".join(f"{place}/raw/main/{picture}" for picture in SCREENSHOTS)),
        ("CATEGORY", entry.get("category")),
        ("DEPENDS", "PyTorch"),
    ):
        literal = re.findall(rf'set\s*\(EXTENSION_{key}\s*"([^"]+)"\s*\)', build)
        if literal != [wanted]:
            found.append(f'{BUILD}: EXTENSION_{key} is {literal}; it must stand there once, in full: "{wanted}".')
    found += [
        f"{BUILD} shows {name}, which does not exist." for name in (ICON, *SCREENSHOTS) if not (root / name).is_file()
    ]
    found += [f"{name} is missing." for name in ("LICENSE", "README.md") if not (root / name).is_file()]
    return found


def placeholders(root: Path) -> list[str]:
    """What is not known yet, a sentence each."""
    if urlsplit(address(root)).hostname != PLACEHOLDER:
        return []
    lines = [
        f"{name}, line {number}"
        for name in (ENTRY, BUILD)
        for number, line in enumerate((root / name).read_text(encoding="utf-8").splitlines(), 1)
        if PLACEHOLDER in line
    ]
    return [f"The public address of the repository is still {address(root)} ({'; '.join(lines)})."]


def set_address(root: Path, new: str) -> None:
    """Write the public address into both files."""
    old, new = address(root), new.removesuffix("/").removesuffix(".git")
    for name in (ENTRY, BUILD):
        path = root / name
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def main(words: list[str] | None = None, root: Path = ROOT) -> int:
    """Say what is wrong and what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description="Checks of Slicer's Extensions Index.")
    parser.add_argument("--release", action="store_true", help="placeholders count as wrong")
    parser.add_argument("--address", help="public address of the repository, to be written into both files")
    options = parser.parse_args(words)
    if options.address:
        set_address(root, options.address)
    wrong, missing = problems(root), placeholders(root)
    for sentence in (*wrong, *(f"Placeholder: {text}" for text in missing)):
        print(sentence)
    return int(bool(wrong) or (options.release and bool(missing)))


if __name__ == "__main__":
    sys.exit(main())
