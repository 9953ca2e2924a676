"""Places that cannot take results as they are: closed, full, too long in name, links, of the wrong kind."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from commands import Command, Workshop
from figures import Figures
from results import TEMPORARY, References, replace_tree, snapshot

#: Bytes that are free on the tiny disk beyond the earlier result, as parts of what the new one needs.
_FREE = (0.0, 0.4, 0.9)
_TOO_LONG, _ALMOST_TOO_LONG = 300, 255
_OTHER_DISK = Path("/dev/shm")


def trials(
    workshop: Workshop,
    command: Command,
    references: References,
    figures: Figures,
    judge: Callable[..., None],
    judge_words: Callable[..., None],
) -> Iterator[None]:
    """Try all such places, one at each step of the iterator."""
    yield from _closed(workshop, command, references, figures, judge)
    yield from _full(workshop, command, references, figures, judge)
    if command.name.startswith("models import"):
        return  # the name of the file is given by the models folder
    yield from _names(workshop, command, figures, judge_words)
    yield from _wrong_kind(workshop, command, figures, judge_words)
    yield from _links(workshop, command, references, figures, judge_words)


def _closed(
    workshop: Workshop, command: Command, references: References, figures: Figures, judge: Callable[..., None]
) -> Iterator[None]:
    """The output, and the folder above it, cannot be changed."""
    output = workshop.place / command.output
    for path, said in ((output, "output is read-only"), (output.parent, "parent is read-only")):
        workshop.reset(workshop.kept(command))
        with read_only(path) as closed:
            if not closed:
                figures.note("not tried: read-only", "this user may write everywhere, and chattr +i does not work")
                continue
            ending = workshop.run(command.new)
        judge(ending, workshop, command, references, said, figures)
        yield
    if sys.platform != "win32":
        figures.note("not tried: output open elsewhere", "only Windows refuses to replace an open file")


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[bool]:
    """Close a file or folder to writing, for the superuser too; gives whether that worked."""
    if os.geteuid() != 0:
        mode = path.stat().st_mode
        path.chmod(mode & ~0o222)
        try:
            yield True
        finally:
            path.chmod(mode)
        return
    done = shutil.which("chattr") and subprocess.run(["chattr", "+i", path], capture_output=True, check=False)
    try:
        yield bool(done and done.returncode == 0)
    finally:
        if done and done.returncode == 0:
            subprocess.run(["chattr", "-i", path], capture_output=True, check=True)


def _full(
    workshop: Workshop, command: Command, references: References, figures: Figures, judge: Callable[..., None]
) -> Iterator[None]:
    """A disk of a few kilobytes, which holds the earlier result and a part of the new one."""
    kept = workshop.kept(command)
    old_size, new_size = _disk_size(kept), _disk_size(workshop.place)
    for part in _FREE:
        size = old_size + int(part * new_size) + 16384
        workshop.reset(None)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(workshop.place)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            figures.note("not tried: full disk", "no disk can be mounted here; limits of file sizes stand for it")
            return
        try:
            replace_tree(kept, workshop.place)
            (workshop.place / TEMPORARY).mkdir(exist_ok=True)
            ending = workshop.run(command.new)
            judge(ending, workshop, command, references, f"full disk, {part:.0%} of the new result free", figures)
        finally:
            subprocess.run(["umount", str(workshop.place)], capture_output=True, check=True)
        yield


def _disk_size(folder: Path) -> int:
    """Bytes of everything below a folder in whole pages, as a file system in memory counts."""
    paths = list(folder.rglob("*"))
    return sum(-(-path.lstat().st_size // 4096) * 4096 for path in paths if path.is_file())


def _other_output(command: Command, output: str) -> str:
    """The command line with another output."""
    return command.new.replace(f"{{place}}/{command.output}", output)


def _names(workshop: Workshop, command: Command, figures: Figures, judge_words: Callable[..., None]) -> Iterator[None]:
    """Names that no file system takes, and one that it just takes."""
    suffix = "" if command.is_folder else command.output[command.output.index(".") :]
    for length in (_TOO_LONG, _ALMOST_TOO_LONG):
        name = "n" * (length - len(suffix)) + suffix
        workshop.reset(None)
        before = snapshot(workshop.place)
        ending = workshop.run(_other_output(command, f"{{place}}/{name}"))
        said = f"a name of {length} characters"
        figures.count("places tried")
        judge_words(ending, said, figures)
        extra = set(snapshot(workshop.place)) - set(before)
        if ending.code != 0 and extra:
            figures.fault("leftovers", said, sorted(path[:60] for path in extra))
        if ending.code == 0 and (length > _ALMOST_TOO_LONG or any(Path(path).name[0] == "." for path in extra)):
            figures.fault("done without the result", said, sorted(path[:60] for path in extra))
        yield


def _wrong_kind(
    workshop: Workshop, command: Command, figures: Figures, judge_words: Callable[..., None]
) -> Iterator[None]:
    """A folder where a file is written, a file where a folder is, and a file above it."""
    suffix = "" if command.is_folder else command.output[command.output.index(".") :]
    for name, said in ((f"wrong{suffix}", "output is of the other kind"), (f"file/x{suffix}", "parent is a file")):
        workshop.reset(None)
        path = workshop.place / name.split("/")[0]
        if command.is_folder or "/" in name:
            path.write_text("mine\n")
        else:
            path.mkdir()
            (path / "mine.txt").write_text("mine\n")
        before = snapshot(workshop.place)
        ending = workshop.run(_other_output(command, f"{{place}}/{name}"))
        figures.count("places tried")
        judge_words(ending, said, figures)
        if snapshot(workshop.place) != before:
            extra = sorted(set(snapshot(workshop.place)) ^ set(before))
            figures.fault("leftovers" if extra else "files of the user lost", said, extra)
        if ending.code == 0:
            figures.fault("done without the result", said)
        yield


def _links(
    workshop: Workshop,
    command: Command,
    references: References,
    figures: Figures,
    judge_words: Callable[..., None],
) -> Iterator[None]:
    """An output that is a link: to the earlier result here, to it on another disk, to nothing, to itself."""
    other = _OTHER_DISK / f"campaign-{os.getpid()}"
    targets = {"here": workshop.place / "elsewhere", "on another disk": other, "to nothing": None, "to itself": None}
    for where, target in targets.items():
        if where == "on another disk" and not os.access(_OTHER_DISK, os.W_OK):
            figures.note("not tried: another disk", f"there is no {_OTHER_DISK}")
            continue
        workshop.reset(workshop.kept(command))
        link = workshop.place / command.output
        _make_link(link, target, where)
        before = snapshot(workshop.place), _content(target)
        ending = workshop.run(command.new)
        said = f"output is a link {where}"
        figures.count("places tried")
        judge_words(ending, said, figures)
        after = snapshot(workshop.place), _content(target)
        if ending.hung or ending.code < 0:
            figures.fault("hung" if ending.hung else "crash", said)
        elif ending.code != 0 and after != before:
            figures.fault("leftovers", said, sorted({*after[0].items()} ^ {*before[0].items()}, key=str)[:6])
        elif ending.code == 0:
            _judge_link(link, target, references, said, figures)
        if hidden := [path for path in [*after[0], *after[1]] if os.path.basename(path).startswith(".")]:
            figures.fault("leftovers", said, hidden)
        if target is not None and target == other:
            _remove(other)
        yield


def _make_link(link: Path, target: Path | None, where: str) -> None:
    if target is None:
        _remove(link)
        link.symlink_to(link if where == "to itself" else link.parent / "nothing")
        return
    _remove(target)
    shutil.move(link, target)
    link.symlink_to(target)


def _judge_link(link: Path, target: Path | None, references: References, said: str, figures: Figures) -> None:
    """A link may be kept, with the result behind it, or be replaced by the result; both whole."""
    figures.count("link kept" if link.is_symlink() else "link replaced")
    if not link.exists():
        figures.fault("done without the result", said)
    elif link.is_dir():
        names = {path.split("/", 1)[1] for path in references.new if path.startswith(f"{link.name}/")}
        missing = sorted(name for name in names if not (link / name).exists())
        if missing:
            figures.fault("mixed", said, missing)
    if target is not None and not target.exists():
        figures.fault("files of the user lost", said, [str(target.name)])


def _content(target: Path | None) -> dict[str, str]:
    if target is None or not target.exists():
        return {}
    return snapshot(target) if target.is_dir() else {"": target.read_bytes().hex()[:4000]}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
