"""What `--json` prints: one strict object, named and versioned as Docs/json.md says, whatever a file holds."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from sequence_files import metafile, nrrd, pixels, text
from shared_files import shared_path

from DualTrackCore import Sweep, Trajectory, load_sweep, save_sweep
from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.errors import InputError

DOCUMENT = (Path(__file__).resolve().parents[2] / "Docs/json.md").read_text(encoding="utf-8")


def fields_of(schema):
    """The fields that the document names for an object."""
    row = next(line.split("|") for line in DOCUMENT.splitlines() if line.startswith("|") and f"`{schema}`" in line)
    return set(re.findall(r"`(\w+)`", re.sub(r": a list of [^;]*|: the fields.*", "", row[2])))


def strict(output):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(output, parse_constant=refuse)


@pytest.fixture
def printed(capsys):
    """Run a command with --json: (exit code, its object, stderr)."""

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, strict(out), err

    return run


@pytest.fixture
def sweep_file(tmp_path):
    poses = np.array([np.eye(4)] * 3)
    poses[:, 2, 3] = 0, 1, 2
    sweep = Sweep(pixels(3, 40, 50), 0.2, np.arange(3) / 20, tracked=Trajectory(poses, origin="measured"))
    save_sweep(sweep, tmp_path / "a.igs.mha")
    return tmp_path / "a.igs.mha"


@pytest.mark.parametrize(
    ("command", "schema"),
    [
        ("info {a}", "dualtrack info/1"),
        ("convert {a} {out}.h5", "dualtrack convert/1"),
        ("completion bash", "dualtrack completion/1"),
        ("reconstruct {a} -o {out} --no-pictures --no-evaluate", "dualtrack reconstruct/1"),
        ("run nothing {folder}/nothing -o {out}", "dualtrack run/1"),
        ("models list", "dualtrack models list/1"),
        ("dataset check {folder}", "dualtrack dataset check/1"),
        ("dataset convert {folder} -o {out}", "dualtrack dataset convert/1"),
        ("simulate -o {out}.h5 --frames 3 --size 40,30", "dualtrack simulate/1"),
    ],
)
def test_objects_have_the_name_the_version_and_the_fields_of_the_document(
    printed, sweep_file, tmp_path, command, schema
):
    places = {"a": sweep_file, "out": tmp_path / "out", "folder": tmp_path}
    code, values, err = printed(*command.format(**places).split())
    assert code == (2 if command.startswith("run") else 0), err
    assert values["schema"] == schema
    wanted = {"output", "failed", "sweeps"} if command.startswith("run") else fields_of(schema)
    assert wanted
    assert wanted <= set(values)


def test_an_error_is_an_object_of_its_own(printed, tmp_path):
    for arguments in (["info", tmp_path / "nothing"], ["info", "x", "--spacing", "wide"], ["nonsense"]):
        code, values, _ = printed(*arguments)
        assert code == 2
        assert values["schema"] == "dualtrack error/1"
        assert set(values) == {"schema", *fields_of("dualtrack error/1")}


def test_every_command_is_in_the_document():
    def commands(parser):
        for action in parser._subparsers._group_actions if parser._subparsers else ():
            for child in action.choices.values():
                yield from commands(child)
        if not parser._subparsers:
            yield parser.prog

    for command in commands(build_parser()):
        assert f"`{command}/1`" in DOCUMENT


def test_the_file_of_huge_numbers_is_refused_with_one_sentence(printed):
    code, values, err = printed("info", shared_path("field_cases/hostile/info-json-inf.igs.mha"))
    assert code == 2
    assert err == f"dualtrack: {values['error']}\n"
    assert "frame 1 lies 1e+155 mm away" in err


def with_pose(folder, matrix, time):
    fields = []
    for index, (pose, seconds) in enumerate([(np.diag([0.2, 0.2, 1, 1]), "0"), (matrix, time), (matrix, "2")]):
        fields.append((f"Seq_Frame{index:04d}_ImageToReferenceTransform", text(pose)))
        fields.append((f"Seq_Frame{index:04d}_Timestamp", seconds))
    return metafile(folder / "a.mha", pixels(3, 4, 5), fields)


@pytest.mark.parametrize("place", [(0, 0), (1, 0), (2, 2), (0, 3), (2, 3)])
@pytest.mark.parametrize("number", [1e8, 1e100, 1e155, 1e300, -1.7e308])
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_huge_numbers_in_poses_never_end_in_a_traceback(printed, tmp_path, place, number):
    matrix = np.diag([0.2, 0.2, 1, 1])
    matrix[place] = number
    code, values, err = printed("info", with_pose(tmp_path, matrix, "1"))
    assert code in (0, 2)
    assert "Traceback" not in err
    if place[1] == 3:
        assert code == 2
        assert "mm away" in values["error"]


@pytest.mark.parametrize("time", ["1e155", "-1e308", "1e308", "1e-320"])
def test_huge_and_tiny_times_never_end_in_a_traceback(printed, tmp_path, time):
    code, values, err = printed("info", with_pose(tmp_path, np.diag([0.2, 0.2, 1, 1]), time))
    assert "Traceback" not in err
    if time == "1e-320":
        assert code == 0
    else:
        assert code == 2
        assert "The timestamps of frame 1 are not finite, or beyond" in values["error"]


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own on Windows")
@pytest.mark.parametrize("maker", [metafile, nrrd])
@pytest.mark.parametrize("through", ["file", "folder"])
def test_a_link_beside_the_header_that_leads_out_of_its_folder_is_refused(tmp_path, maker, through):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "b.raw").write_bytes(pixels(3, 4, 5).tobytes())
    folder = tmp_path / "sweep"
    folder.mkdir()
    if through == "file":
        (folder / "b.raw").symlink_to(tmp_path / "secret" / "b.raw")
    else:
        (folder / "inner").symlink_to(tmp_path / "secret")
    name = "b.raw" if through == "file" else "inner/b.raw"
    key = "ElementDataFile" if maker is metafile else "data_file"
    path = maker(folder / "a.mhd", pixels(3, 4, 5), **{key: name})
    with pytest.raises(InputError, match="a link that leads out of its folder; copy"):
        load_sweep(path)


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own on Windows")
def test_a_link_that_stays_in_the_folder_and_a_linked_folder_are_read(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "real.raw").write_bytes(pixels(3, 4, 5).tobytes())
    (folder / "b.raw").symlink_to(folder / "real.raw")
    (tmp_path / "link").symlink_to(folder)
    metafile(folder / "a.mhd", pixels(3, 4, 5), ElementDataFile="b.raw")
    assert len(load_sweep(tmp_path / "link" / "a.mhd")) == 3
    (folder / "b.raw").unlink()
    (folder / "b.raw").symlink_to(folder / "b.raw")
    with pytest.raises(InputError, match="does not exist beside it"):
        load_sweep(folder / "a.mhd")
