"""The commands that write results, each over an earlier result of other settings, and a process warm for them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from results import OWN_FILE, TEMPORARY, References, replace_tree, snapshot
from steps import Ending, in_child

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Command:
    """A command line, and one that makes an earlier result at the same place.

    Attributes:
        name: for figures.
        old: makes the earlier result; words with {place} and {inputs}.
        new: the command that is disturbed.
        output: file or folder that it writes, from the place.
        is_folder: whether that is a folder.
        units: patterns of paths that belong together.
        kept: patterns of what may stay of a stopped command.
        measured: patterns of files that state measured times.
        single: whether it is refused as a whole, with one sentence.
    """

    name: str
    old: str
    new: str
    output: str
    is_folder: bool = False
    units: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    single: bool = True

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of the paths that belong together; by default the output as a whole."""
        return self.units or ((f"{self.output}/*",) if self.is_folder else (self.output,))


_RUN = "run {inputs}/a.igs.mha --model {inputs}/tiny.safetensors --device cpu --quiet -o {place}/out"
_SEVERAL = _RUN.replace("run ", "run {inputs}/b.igs.mha ", 1) + " --no-pictures"
_TRACK = "track {inputs}/a.igs.mha --model {inputs}/tiny.safetensors --device cpu --quiet -o {place}/"
_RECONSTRUCT = "reconstruct {inputs}/a.igs.mha --quiet -o {place}/out"
_SIMULATE = "simulate --frames 4 --size 48,40 --quiet -o {place}/sweep.igs.mha --seed"
_EVALUATE = "evaluate {inputs}/a.h5 {inputs}/b.h5 --calibrate {inputs}/a.h5 --quiet -o {place}/out --method identity"
_CORRECT = "correct {inputs}/result --no-pictures --quiet -o {place}/out"
_MODELS = ("models/own.*",)

COMMANDS = (
    Command("reconstruct", f"{_RECONSTRUCT} --voxel 3", f"{_RECONSTRUCT} --voxel 2 --no-pictures", "out", True),
    Command("models import", "models import own {inputs}/other.safetensors",
            "models import own {inputs}/tiny.safetensors", "models/own.safetensors", units=_MODELS),
    Command("models import, other suffix", "models import own {inputs}/carded.pt",
            "models import own {inputs}/tiny.safetensors", "models/own.safetensors", units=_MODELS),
    Command("models import, new card", "models import own {inputs}/other.safetensors",
            "models import own {inputs}/carded.pt", "models/own.pt", units=_MODELS),
    Command("convert to .igs.mha", "convert {inputs}/b.igs.mha {place}/c.igs.mha",
            "convert {inputs}/a.igs.mha {place}/c.igs.mha", "c.igs.mha"),
    Command("convert to .h5", "convert {inputs}/b.igs.mha {place}/c.h5",
            "convert {inputs}/a.igs.mha {place}/c.h5", "c.h5"),
    Command("convert to .seq.nrrd", "convert {inputs}/b.igs.mha {place}/c.seq.nrrd",
            "convert {inputs}/a.igs.mha {place}/c.seq.nrrd", "c.seq.nrrd"),
    Command("volume.write", "volume.write 3 {place}/v.nrrd", "volume.write 2 {place}/v.nrrd", "v.nrrd"),
    Command("volume.write .nii.gz", "volume.write 3 {place}/v.nii.gz", "volume.write 2 {place}/v.nii.gz", "v.nii.gz"),
    Command("simulate", f"{_SIMULATE} 1", f"{_SIMULATE} 2", "sweep.igs.mha"),
    Command("run, pictures before", f"{_RUN} --voxel 3", f"{_RUN} --voxel 2 --no-pictures", "out", True),
    Command("run, pictures now", f"{_RUN} --voxel 3 --no-pictures", f"{_RUN} --voxel 2", "out", True),
    Command("correct", f"{_CORRECT} --loops 0,9 --voxel 3", f"{_CORRECT} --loops 1,8 --voxel 2", "out", True),
    Command("track to .csv", f"{_TRACK}t.csv", f"{_TRACK}t.csv --last-frame 7", "t.csv"),
    Command("track to .igs.mha", f"{_TRACK}t.igs.mha", f"{_TRACK}t.igs.mha --last-frame 7", "t.igs.mha"),
    Command("evaluate", f"{_EVALUATE}", f"{_EVALUATE} --method own-mean-motion", "out", True,
            kept=("out/items", "out/items/*"), units=("out/*",),
            measured=("out/evaluation.json", "out/s*.csv", "out/table.md", "out/report.html")),
    Command("run of several", f"{_SEVERAL} --voxel 3", f"{_SEVERAL} --voxel 2", "out", True,
            units=("out/a/*", "out/b/*"), kept=("out/summary.csv",), single=False),
    Command("demo", f"{_RECONSTRUCT} --voxel 3", "demo --quiet -o {place}/out", "out", True),
)  # fmt: skip

#: Those that take too long for a short pass.
SLOW = ("demo",)


class Workshop:
    """A scratch folder with inputs, in a process that has imported and compiled what the commands need.

    Every trial is a forked child. One thread a library, because threads do not live on in a child.
    """

    def __init__(self, scratch: Path, commands: Sequence[Command], place: Path | None = None) -> None:
        self.scratch, self.commands = scratch.resolve(), tuple(commands)
        self.place = (place or self.scratch / "place").resolve()
        self.inputs = self.scratch / "inputs"
        for folder in (self.inputs, self.place):
            folder.mkdir(parents=True, exist_ok=True)
        os.environ["DUALTRACK_MODELS"] = str(self.place / "models")
        os.environ["TMPDIR"] = str(self.place / TEMPORARY)
        _make_inputs(self.inputs)
        self._warm()

    def _warm(self) -> None:
        """Run every kind of command once in this process, so that its children need not import or compile."""
        seen = set()
        for command in self.commands:
            kind = command.new.split()[0]
            if kind not in seen and kind != "demo":
                seen.add(kind)
                self.reset(None)
                _silently(lambda line=command.new: self.perform(line))
        self.reset(None)
        if len(threading.enumerate()) > 1:
            raise RuntimeError(f"Threads do not live on in a child: {threading.enumerate()}")

    def perform(self, line: str, **names: str) -> int:
        """Do a command line in this process and return its exit code."""
        words = [word.format(place=self.place, inputs=self.inputs, **names) for word in line.split()]
        if words[0] == "volume.write":
            return _write_volume(self.inputs / "a.igs.mha", float(words[1]), Path(words[2]))
        from DualTrackCore.cli import main

        return main(words)

    def run(self, line: str, **options: object) -> Ending:
        """Do a command line in a child; see :func:`steps.in_child`."""
        return in_child(lambda: self.perform(line), self.place, **options)

    def reset(self, source: Path | None) -> None:
        """Put the place back to a state that was kept, or make it empty."""
        replace_tree(source, self.place)
        (self.place / TEMPORARY).mkdir(exist_ok=True)

    def references(self, command: Command) -> References:
        """Make the earlier and the newer result of a command, undisturbed.

        Raises:
            RuntimeError: an undisturbed run fails, so that nothing can be measured.
        """
        kept = self.kept(command)
        self.reset(None)
        self._must(command.new)
        new = snapshot(self.place)
        self.reset(None)
        self._must(command.old)
        if command.is_folder:
            (self.place / command.output / OWN_FILE).write_text("mine\n")
        replace_tree(self.place, kept)
        old = snapshot(self.place)
        ending = self._must(command.new)
        after = snapshot(self.place)
        return References(
            old, new, after, command.patterns, command.measured, command.kept, ending.events, ending.seconds
        )

    def kept(self, command: Command) -> Path:
        """Where the earlier result of a command is kept."""
        return self.scratch / "old" / command.name.replace(" ", "_").replace(",", "")

    def _must(self, line: str) -> Ending:
        ending = self.run(line, limit_s=300)
        if ending.code != 0:
            raise RuntimeError(f"The undisturbed command failed with {ending.code}: {line}\n{ending.err}")
        return ending


def chosen_commands(names: Sequence[str] | None) -> tuple[Command, ...]:
    """The commands of these names, or all but the slow ones.

    Raises:
        SystemExit: an unknown name.
    """
    if not names:
        return tuple(command for command in COMMANDS if command.name not in SLOW)
    known = {command.name: command for command in COMMANDS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"There is no command {', '.join(unknown)}; there are: {'; '.join(known)}.")
    return tuple(known[name] for name in names)


def one_thread() -> None:
    """Set libraries to one thread; call it before they are imported."""
    for name in (
        "OMP_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
        "OPENBLAS_NUM_THREADS",
    ):
        os.environ[name] = "1"
    os.environ |= {"OMP_WAIT_POLICY": "passive", "MPLBACKEND": "Agg"}
    for folder in (ROOT, ROOT / "Testing" / "Core"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def _make_inputs(folder: Path) -> None:
    """Two tracked sweeps of a few small frames, weights of a small random network in three kinds of file, a result."""
    import torch
    from oracle import tiny_model
    from training_data import tracked_sweep

    from DualTrackCore.io import save_sweep
    from DualTrackCore.network import save_model
    from DualTrackCore.network.catalogue import card_path
    from DualTrackCore.run import RunSettings, run

    torch.set_num_threads(1)
    for seed, name in enumerate("ab"):
        for suffix in (".igs.mha", ".h5"):
            save_sweep(tracked_sweep(seed, 10 + 2 * seed, (40, 48)), folder / (name + suffix))
    model = tiny_model()
    save_model(model.network, model.card, folder / "tiny.safetensors")
    settings = RunSettings(model=str(folder / "tiny.safetensors"), device="cpu", pictures=False)
    _silently(lambda: run(folder / "a.igs.mha", settings).write(folder / "result"))
    torch.save(model.network.state_dict(), folder / "carded.pt")
    card_path(folder / "carded.pt").write_text(model.card.to_json() + "\n", encoding="utf-8")
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(1.01)
    save_model(model.network, model.card, folder / "other.safetensors")


def _write_volume(sweep_file: Path, voxel_mm: float, target: Path) -> int:
    """`Reconstruction.write` with the exit codes of the command line."""
    from DualTrackCore.errors import DualTrackError
    from DualTrackCore.io import load_sweep
    from DualTrackCore.run import RunSettings, run

    try:
        result = run(load_sweep(sweep_file), RunSettings(poses="tracked", voxel_mm=voxel_mm, pictures=False))
        result.reconstruction.write(target)
    except DualTrackError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _silently(work: Callable[[], int]) -> None:
    """Do something without its output."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        work()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
