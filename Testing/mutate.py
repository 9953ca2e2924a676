"""Mutation testing: do the tests notice a small change of the code? A seeded sample of changes, a few in each folder.

    python Testing/mutate.py --count 24 --seed 0 --minutes 30

Every mutant changes one comparison, number, sign, truth value, pair of arguments or statement, in memory only: the
files stay as they are. A process of its own runs the tests that cover the changed line: those of TESTS, in this
process, the quickest first, up to SECONDS of them. A failure, an error or no end counts as killed. What tests of other
files or of other processes would notice is not seen. Needs pytest-cov. Prints survivors, and figures by folder.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: By folder of DualTrackCore, the files of Testing/Core that are to notice its mutants.
TESTS = {
    "tracking": "tracking windows tta preprocessing live precision",
    "network": "network fast_trunk checkpoint streaming lora direction",
    "reconstruction": "reconstruction grid hole_filling image_area volume_builder",
    "evaluation": "evaluation evaluation_metrics",
    "io": "io_metafile io_nrrd io_hdf5 io_image_stack io_image_kinds io_tiff_stacks io_array_files io_sequence_writer "
    "io_tus_rec io_dicom io_dicom_codecs io_dicom_elements io_dicom_series io_video io_video_display io_video_streams "
    "stack_axes calibration calibration_files trajectory_csv",
}
#: Test time for one mutant: that of the tests without it, and after how long it is ended.
SECONDS, PATIENCE = 20.0, 120.0
PYTEST = ["-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--no-header", "-W", "ignore"]

SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: `old` of a file at a place (line, first byte, last line, byte behind it) becomes `new`."""

    path: Path
    kind: str
    place: tuple[int, int, int, int]
    old: str
    new: str

    def source(self) -> bytes:
        """The text of the file with the change."""
        lines = self.path.read_bytes().splitlines(keepends=True)
        first, start, last, stop = self.place
        head, tail = b"".join(lines[: first - 1]) + lines[first - 1][:start], lines[last - 1][stop:]
        return head + self.new.encode() + tail + b"".join(lines[last:])

    def __str__(self) -> str:
        old, new = (" ".join(text.split())[:90] for text in (self.old, self.new))
        return f"{self.path.relative_to(ROOT)}:{self.place[0]} {self.kind}: {old} -> {new}"


def changed(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each change of a node, with its kind."""
    new = copy.deepcopy(node)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        new.ops = [SWAPS[type(node.ops[0])]()]
        yield "comparison", new
    elif isinstance(node, ast.BoolOp):
        new.op = SWAPS[type(node.op)]()
        yield "boolean", new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "boolean" if isinstance(node.op, ast.Not) else "arithmetic", node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
        new.op = SWAPS[type(node.op)]()
        yield "arithmetic", new
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        new.left, new.right = node.right, node.left
        yield "swapped arguments", new
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "boolean", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "off by one", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield "constant", ast.Constant(node.value * 2 or 1.0)
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args):
        new.args[:2] = node.args[1], node.args[0]
        yield "swapped arguments", new
    elif isinstance(node, ast.AugAssign) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield "deleted statement", ast.Pass()


def nodes(node: ast.AST) -> Iterator[ast.AST]:
    """What is computed: no annotations, decorators, texts, messages of errors, or code for type checkers."""
    if isinstance(node, ast.JoinedStr | ast.Raise) or "TYPE_CHECKING" in ast.dump(getattr(node, "test", node))[:60]:
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from nodes(child)


def mutants(path: Path) -> list[Mutant]:
    """All changes of a file."""
    text, found = path.read_text(encoding="utf-8"), []
    for node in nodes(ast.parse(text)):
        for kind, new in changed(node):
            place = node.lineno, node.col_offset, node.end_lineno, node.end_col_offset
            code = ast.unparse(new)
            code = code if isinstance(new, ast.Pass | ast.Constant) else f"({code})"
            found.append(Mutant(path, kind, place, ast.get_source_segment(text, node), code))
    return found


class Durations:
    """Seconds of every test, as a plugin of pytest."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration


def in_child(work: object, patience: float) -> int | None:
    """The exit code of what a child process does, which prints nothing; None where it did not end."""
    child = os.fork()
    if child == 0:
        os.setpgrp()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            os._exit(int(work()))
        finally:
            os._exit(99)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def covering(folder: str, scratch: Path) -> tuple[dict[str, dict[int, set[str]]], dict[str, float]]:
    """The tests that reach each line of each file, and their seconds, from one run of the folder's tests."""
    from coverage import CoverageData

    files = [f"Testing/Core/test_{name}.py" for name in TESTS[folder].split()]
    os.environ["COVERAGE_FILE"] = str(scratch / f"{folder}.coverage")
    options = [f"--cov=DualTrackCore/{folder}", "--cov-context=test", "--cov-report=", "-m", "not slow"]

    def work() -> int:
        timed = Durations()
        code = pytest.main([*PYTEST, *options, *files], plugins=[timed])
        lines = [f"{seconds} {test}\n" for test, seconds in timed.seconds.items()]
        (scratch / f"{folder}.seconds").write_text("".join(lines), encoding="utf-8")
        return code

    code = in_child(work, 3600)
    if code != 0:
        sys.exit(f"The tests of {folder} fail without any change (exit code {code}); run them first.")
    rows = (scratch / f"{folder}.seconds").read_text(encoding="utf-8").splitlines()
    seconds = {test: float(number) for number, test in (row.split(" ", 1) for row in rows)}
    data = CoverageData(os.environ["COVERAGE_FILE"])
    data.read()
    names = {}
    for file in data.measured_files():
        by_line = data.contexts_by_lineno(file)
        names[file] = {line: {c.rpartition("|")[0] for c in contexts if c} for line, contexts in by_line.items()}
    return names, seconds


def survives(mutant: Mutant, tests: list[str], scratch: Path) -> bool:
    """Whether all tests pass with the change."""
    own = SourceFileLoader.get_code

    def get_code(loader: SourceFileLoader, name: str) -> object:
        same = Path(loader.path) == mutant.path
        return compile(mutant.source(), loader.path, "exec") if same else own(loader, name)

    def work() -> int:
        SourceFileLoader.get_code = get_code
        if b"numba" in mutant.path.read_bytes() or b"compilation" in mutant.path.read_bytes():
            os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(dir=scratch)  # never keep compiled code of a mutant
        return pytest.main([*PYTEST, "-x", *tests])

    return in_child(work, PATIENCE) == 0


def main() -> None:
    """Sample, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=24, help="mutants in each folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no further mutant after so many")
    parser.add_argument("--folder", action="append", choices=[*TESTS], help="several times; all by default")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch  # noqa: F401  loaded once, before processes part

    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder_name:
        for folder in options.folder or TESTS:
            scratch = Path(folder_name)
            names, seconds = covering(folder, scratch)
            chosen = [m for path in sorted((ROOT / "DualTrackCore" / folder).rglob("*.py")) for m in mutants(path)]
            covered = [(m, names.get(str(m.path), {}).get(m.place[0], set())) for m in chosen]
            sample = random.Random(options.seed).sample(covered, min(options.count, len(covered)))
            figures = {"killed": 0, "survived": 0, "not covered": 0}
            for mutant, tests in sample:
                if time.monotonic() > end:
                    break
                # A line that is run at import is noticed by whoever uses the file.
                tests = tests or set().union(*names.get(str(mutant.path), {}).values())
                if b"compilation" in mutant.path.read_bytes():
                    tests = set(seconds)  # nobody sees which tests run compiled lines
                ordered, spent = [], 0.0
                for test in sorted(tests, key=lambda test: seconds.get(test, 0.0)):
                    spent += seconds.get(test, 0.0)
                    if spent < SECONDS or not ordered:
                        ordered.append(test)
                outcome = "not covered"
                if ordered:
                    outcome = "survived" if survives(mutant, ordered, scratch) else "killed"
                figures[outcome] += 1
                if outcome != "killed":
                    print(f"  {outcome} ({len(ordered)} of {len(tests)} tests): {mutant}", flush=True)
            print(f"{folder}: {figures} of {len(chosen)} mutants there are", flush=True)


if __name__ == "__main__":
    main()
