"""The structure stays what it is: few files on the way from a clip to a volume, no circle of imports."""

import re
import subprocess
import sys
from pathlib import Path

MEASURE = Path(__file__).resolve().parents[1] / "measure_structure.py"


def test_one_run_imports_few_files_of_the_core_and_no_imports_run_in_a_circle():
    done = subprocess.run([sys.executable, str(MEASURE), "-v"], capture_output=True, text=True, check=False)
    files = re.search(r"one run imports: (\d+) \(at most (\d+)\)", done.stdout)
    assert files is not None, done.stderr
    assert int(files[1]) <= int(files[2]), done.stdout
    assert "circle of imports: none" in done.stdout
    assert "DualTrackCore.research" not in done.stdout
    assert "is not writable" not in done.stderr  # frames of a mapped file reach torch without its warning
