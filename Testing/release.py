"""Build what a release hands out, and use it as somebody does who has nothing but the file.

The wheel and the source archive are built in environments of their own and checked by twine; the wheel is installed
into a bare environment, outside of the source tree, where `dualtrack run` makes a volume of the sample.

    python Testing/release.py dist
    python Testing/release.py dist --tag v0.1.0        # the tag must name the version of the package

Exit code 1 where a step fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: What `python -m` of the environment that builds must know.
TOOLS = ("build", "twine")


def main(arguments: list[str] | None = None) -> int:
    """Build, check and try; return the exit code."""
    parser = argparse.ArgumentParser(description="Build the files of a release and try them.")
    parser.add_argument("folder", type=Path, help="takes the wheel and the source archive")
    parser.add_argument("--tag", help="name of the release in git: v and the version of the package")
    parser.add_argument("--constraint", action="append", default=[], help="file of versions for the trial")
    options = parser.parse_args(arguments)
    try:
        wheel = build(options.folder, options.tag)
        try_wheel(wheel, options.constraint)
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(map(str, error.cmd))} ended with {error.returncode}.", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(f"{path.name}  {path.stat().st_size / 2**20:.1f} MB" for path in sorted(options.folder.iterdir())))
    return 0


def build(folder: Path, tag: str | None = None) -> Path:
    """The wheel, built from the source archive beside it; both pass twine's checks.

    Raises ValueError: the folder has files already, or the tag names another version; CalledProcessError: a tool
    found something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"The folder {folder} is not empty; name a new one, so that no old file is handed out.")
    with tempfile.TemporaryDirectory() as tools:
        python = environment(Path(tools))
        subprocess.run([python, "-m", "pip", "install", "--quiet", *TOOLS], check=True)
        subprocess.run([python, "-m", "build", "--outdir", folder, ROOT], check=True, stdout=subprocess.DEVNULL)
        (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
        subprocess.run([python, "-m", "twine", "check", "--strict", wheel, source], check=True)
    version = wheel.name.split("-")[1]
    if tag is not None and tag != f"v{version}":
        raise ValueError(f"The tag is {tag}, but the package is version {version}: tag the release v{version}.")
    return wheel


def try_wheel(wheel: Path, constraints: list[str]) -> None:
    """Install a wheel into a bare environment and run the sample with it, outside of the source tree.

    Raises CalledProcessError: it could not be installed or run; ValueError: something else was run than the wheel.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        python = environment(place / "bare")
        limits = [word for file in constraints for word in ("-c", str(Path(file).resolve()))]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *limits, wheel.resolve()], check=True)
        command = [python.parent / "dualtrack", "demo", "-o", "out", "--quiet"]
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        subprocess.run(command, check=True, cwd=place, env=outside)
        where = subprocess.run(
            [python, "-c", "import DualTrackCore; print(DualTrackCore.__file__)"],
            **{"check": True, "cwd": place, "env": outside, "capture_output": True, "text": True},
        ).stdout.strip()
        if not Path(where).is_relative_to(place.resolve()):
            raise ValueError(f"The package was taken from {where}, not from the wheel.")
        report = json.loads((place / "out" / "report.json").read_text(encoding="utf-8"))
        print(f"{wheel.name}: the sample was run by version {report['dualtrack_version']} of the package.")


def environment(folder: Path) -> Path:
    """The Python of a new, empty environment."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


if __name__ == "__main__":
    sys.exit(main())
