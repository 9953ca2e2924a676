"""A lab's way from the challenge's folders to a submission, on made-up scans: convert, train, evaluate, submit, check.

    python Testing/Campaign/lab_journey.py --place FOLDER

Eight subjects in both published layouts, frames of noise, a small network and one epoch a stage: it shows that the
commands fit together, and nothing of what they are worth. Training takes two processes, evaluation two workers.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "Testing" / "Core")]

from dataset_folders import tus_rec_train, tus_rec_validation  # noqa: E402
from oracle import TINY  # noqa: E402

from DualTrackCore.cli import main as dualtrack  # noqa: E402

#: Frames of a scan, and (rows, columns) of a frame.
FRAMES, SIZE = 24, (60, 72)
SUBJECTS = {"train": ("000", "001", "002", "003", "004"), "val": ("050", "051", "052")}
SCANS = ("LH_rotation", "RH_Par_C_PtD")


class Journey:
    """Its steps, each a command that must succeed.

    Args:
        place: empty folder for everything.
        processes: of training and of the evaluation.
    """

    def __init__(self, place: Path, processes: int) -> None:
        self.place, self.processes, self.seconds = place, processes, {}

    def do(self, name: str, line: str) -> None:
        """Give a command; `{}` stands for the place.

        Raises:
            SystemExit: it failed.
        """
        print(f"\n$ dualtrack {line.replace('{}', '.')}", flush=True)
        start = time.monotonic()
        code = dualtrack(shlex.split(line.replace("{}", shlex.quote(str(self.place)))))
        self.seconds[name] = time.monotonic() - start
        if code:
            raise SystemExit(f"The step {name} ended with {code}: dualtrack {line}")

    def require(self, condition: bool, what: str) -> None:
        """Stop where a step did not leave what it should."""
        if not condition:
            raise SystemExit(f"The way ends here: {what}.")

    def go(self) -> None:
        """The whole way."""
        given = {"scans": SCANS, "count": FRAMES, "size": SIZE}
        tus_rec_train(self.place / "train", SUBJECTS["train"], **given)
        tus_rec_validation(self.place / "validation", SUBJECTS["val"], **given, landmarks=100)
        self.convert()
        self.train()
        self.evaluate()
        self.submit()

    def convert(self) -> None:
        """Both layouts into one table, whose splits the user says."""
        self.do("convert", "dataset convert {}/train -o {}/data")
        self.do("convert, validation", "dataset convert {}/validation -o {}/data --default-split val")
        self.do("check", "dataset check {}/data --deep")
        with (self.place / "data" / "metadata.csv").open(encoding="utf-8", newline="") as file:
            splits = [row["split"] for row in csv.DictReader(file)]
        expected = [split for split, subjects in SUBJECTS.items() for _ in range(len(SCANS) * len(subjects))]
        self.require(sorted(splits) == sorted(expected), f"the table has the splits {splits}")

    def train(self) -> None:
        """The seven stages of the published network, as small as it gets."""
        model = [f"model.{name}={json.dumps(value)}" for name, value in TINY.items()]
        small = ["sampling.window=8", "sampling.random_frames=6", "batch_size=2", "workers=0", "precision=fp32"]
        changes = shlex.join(word for change in [*model, *small] for word in ("--set", change))
        line = f"train paper --data {{}}/data --epochs 1 --devices {self.processes} --runs {{}}/runs {changes}"
        self.do("train", f"{line} --set accelerator=cpu --set warmup_epochs=0")
        self.require((self.place / "runs" / "paper" / "model.safetensors").exists(), "training left no weights")

    def evaluate(self) -> None:
        """The new weights beside no motion at all, by Dask's workers."""
        methods = "--method identity --method model:{}/runs/paper/model.safetensors"
        workers = f"--workers {self.processes} --threads 1 --device cpu"
        self.do("evaluate", f"evaluate {{}}/data --split val {methods} {workers} --tus-rec-pixels -o {{}}/results")
        values = json.loads((self.place / "results" / "evaluation.json").read_text(encoding="utf-8"))
        measured = [row for row in values["sweeps"] if row["gpe_mm"] is not None]
        self.require(len(measured) == 2 * len(SCANS) * len(SUBJECTS["val"]), "the evaluation lacks results")
        self.require((self.place / "results" / "report.html").exists(), "the evaluation wrote no report")

    def submit(self) -> None:
        """The fields of the challenge, written, then read back and measured."""
        model = "--model {}/runs/paper/model.safetensors --device cpu"
        self.do("submit", f"submit {{}}/validation -o {{}}/fields {model}")
        self.do("submit --check", "submit {}/validation -o {}/fields --check")
        self.require(len(list((self.place / "fields").rglob("*.h5"))) == 6, "the submission lacks files")


def main() -> None:
    """Go the way, and say how long each step took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--place", type=Path, help="empty folder, kept (default: a temporary one)")
    parser.add_argument("--processes", type=int, default=2, help="of training and evaluation (default: 2)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        journey = Journey((options.place or Path(folder)).resolve(), options.processes)
        journey.go()
    print(*(f"{name:24} {seconds:6.1f} s" for name, seconds in journey.seconds.items()), sep="\n")
    print(f"{'the whole way':24} {sum(journey.seconds.values()):6.1f} s")


if __name__ == "__main__":
    main()
