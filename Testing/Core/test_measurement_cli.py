"""`dualtrack measure`: lengths in the folder of a run, between points and along those of Slicer's files."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from oracle import noise_sweep
from test_cli_json import printed  # noqa: F401 - fixture

from DualTrackCore.cli import main
from DualTrackCore.io import write_trajectory_csv
from DualTrackCore.path_error import OUTSIDE
from DualTrackCore.run import RunSettings, run
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory

SIGMA = np.tile([0.02, 0.02, 0.05, 0.05, 0.05, 0.05], (19, 1))
MOTIONS = np.tile([0.1, 0, 0.5, 0.2, 0.3, 0], (19, 1))


def folder_of(tmp, sigma=SIGMA, **source):
    source = {"model": "toy", "model_trained": True, "guess": False, OUTSIDE: [], **source}
    path = Trajectory.from_parameters(MOTIONS, source, sigma=sigma)
    write_trajectory_csv(path, tmp / "path.csv")
    settings = RunSettings(poses=str(tmp / "path.csv"), reconstruct=False, pictures=False, evaluate=False)
    run(noise_sweep(20), settings).write(tmp / "result")
    return path, tmp / "result"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("measured"), **{STEP_ERROR_CORRELATION: [0.5] * 6})


def centres(path, *frames):
    """Of frames, RAS: x and y of frame0 with the other sign."""
    return [",".join(f"{value:.3f}" for value in path.centres_mm[frame] * [-1, -1, 1]) for frame in frames]


def test_the_length_between_two_points_comes_with_bands_basis_and_trust(made, capsys):
    path, folder = made
    start, end = centres(path, 3, 15)
    assert start.startswith("-")
    assert main(["measure", str(folder), "--from", start, "--to", end]) == 0
    rows = dict(line.strip().split(maxsplit=1) for line in capsys.readouterr().out.replace(" %", "%").splitlines())
    length = np.linalg.norm(path.centres_mm[15] - path.centres_mm[3])
    assert rows["length"] == f"{length:.1f} mm"
    low, high = (float(word) for word in rows["95%"].removesuffix(" mm").split(" to "))
    assert low < float(rows["68%"].split()[0]) < length < high
    assert rows["basis"] == "as the model says"
    assert rows["trust"].startswith("measure: 95 of 100 true values differ by no more than")
    for name, frame in (("from", 3), ("to", 15)):  # the centre lies between pixels
        assert re.fullmatch(rf"frame {frame}, column 6[34], row 4[78]", rows[name])


def test_the_object_has_the_fields_of_the_document_and_the_figures_of_python(made, printed):  # noqa: F811
    from test_cli_json import DOCUMENT

    path, folder = made
    start, end = centres(path, 3, 15)
    code, values, _ = printed("measure", folder, "--from", start, "--to", end)
    assert code == 0
    assert values["schema"] == "dualtrack measure/1"
    row = next(line for line in DOCUMENT.splitlines() if "`dualtrack measure/1`" in line)
    assert all(f"`{name}`" in row for name in {*values, *values["trust"], *values["points"][0]} - {"schema"})
    assert values["trust"]["text"] == f"{values['trust']['level']}: {values['trust']['reason']}"
    assert values["band_95_mm"][0] < values["band_68_mm"][0] < values["length_mm"] < values["band_68_mm"][1]
    assert [point["frame"] for point in values["points"]] == [3, 15]
    np.testing.assert_allclose([point["pixel"] for point in values["points"]], [[63.5, 47.5]] * 2, atol=0.05)


def test_points_are_those_of_the_tracker_where_the_result_lies_in_its_world(tmp_path, printed):  # noqa: F811
    world = np.array([[0, -1, 0, 100.0], [1, 0, 0, -50], [0, 0, 1, 7], [0, 0, 0, 1]])
    poses = world @ Trajectory.from_parameters(MOTIONS).poses
    sweep = noise_sweep(20, tracked=Trajectory.from_reference(poses, origin="measured"))
    settings = RunSettings(poses="tracked", frame="reference", reconstruct=False, pictures=False, evaluate=False)
    run(sweep, settings).write(tmp_path / "result")
    ends = [",".join(map(str, poses[frame, :3, 3].tolist())) for frame in (2, 9)]
    code, values, _ = printed("measure", tmp_path / "result", "--from", ends[0], "--to", ends[1])
    assert (code, [point["frame"] for point in values["points"]]) == (0, [2, 9])
    assert (values["basis"], values["trust"]["level"]) == ("pixel spacing alone", "measure")


def test_a_result_without_stated_errors_goes_by_the_rule_of_thumb(tmp_path, printed):  # noqa: F811
    path, folder = folder_of(tmp_path, sigma=None, model_simulated_only=True, guess=True)
    start, end = centres(path, 3, 15)
    _, values, _ = printed("measure", folder, "--from", start, "--to", end)
    assert (values["basis"], values["trust"]["level"]) == ("by rule of thumb", "do not measure")


def markups(points, system="LPS", kind="Curve", **changes):
    controls = [{"position": list(point), "positionStatus": "defined"} for point in points]
    controls.insert(1, {"position": [0, 0, 0], "positionStatus": "preview"})
    node = {"type": kind, "coordinateSystem": system, "controlPoints": controls, **changes}
    return json.dumps({"markups": [node]})


def table(points, names):
    rows = [f"p,{','.join(map(str, point))},1,1" for point in points]
    rows.insert(1, "not placed,0,0,0,0,1")
    return "\n".join([f"label,{names},defined,selected", *rows]) + "\n"


CORNERS = [[-1.0, 2, 1], [2, 6, 1], [2, 6, 7]]


@pytest.mark.parametrize("system", ["RAS", "LPS", "0", "1"])
@pytest.mark.parametrize("kind", ["Line", "Curve", "ClosedCurve", "Fiducial"])
def test_markups_are_measured_in_the_system_that_they_name(made, tmp_path, printed, system, kind):  # noqa: F811
    corners = np.array(CORNERS) * ([1, 1, 1] if system in ("LPS", "1") else [-1, -1, 1])
    (tmp_path / "a.mrk.json").write_text(markups(corners.tolist(), system, kind))
    code, values, _ = printed("measure", made[1], "--points", tmp_path / "a.mrk.json")
    assert code == 0
    assert values["length_mm"] == pytest.approx(11 + (np.sqrt(9 + 16 + 36) if kind == "ClosedCurve" else 0))
    np.testing.assert_allclose([point["ras_mm"] for point in values["points"]], np.array(CORNERS) * [-1, -1, 1])


@pytest.mark.parametrize(("names", "signs"), [("r,a,s", [-1, -1, 1]), ("l,p,s", [1, 1, 1]), ("L,P,S", [1, 1, 1])])
def test_a_table_is_measured_in_the_system_that_its_columns_name(made, tmp_path, printed, names, signs):  # noqa: F811
    (tmp_path / "a.csv").write_text(table((np.array(CORNERS) * signs).tolist(), names), encoding="utf-8-sig")
    _, values, _ = printed("measure", made[1], "--points", tmp_path / "a.csv")
    (tmp_path / "a.tsv").write_text(
        (tmp_path / "a.csv").read_text(encoding="utf-8").replace(",", "\t"), encoding="utf-8"
    )
    assert printed("measure", made[1], "--points", tmp_path / "a.tsv")[1] == values
    assert values["length_mm"] == pytest.approx(11)
    np.testing.assert_allclose([point["ras_mm"] for point in values["points"]], np.array(CORNERS) * [-1, -1, 1])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.mrk.json", "{", "is not a markups file of Slicer; save"),
        ("a.mrk.json", "[]", "is not a markups file of Slicer"),
        ("a.mrk.json", '{"markups": []}', "is not a markups file of Slicer"),
        ("a.mrk.json", '{"markups": [1]}', "is not a markups file of Slicer"),
        ("a.mrk.json", "[" * 100000, "is not a markups file of Slicer"),
        ("a.mrk.json", markups(CORNERS, "XYZ"), "does not say whether its points are LPS or RAS"),
        ("a.mrk.json", markups(CORNERS, kind="Plane"), "a markup of the kind 'Plane'"),
        ("a.mrk.json", markups(CORNERS[:1]), "holds too few points that are placed (1); a length needs"),
        ("a.mrk.json", markups([[1, 2, 3], [1, 2, "x"]]), "a point that is not three finite numbers"),
        ("a.mrk.json", markups([[1, 2, 3], [1, 2]]), "a point that is not three finite numbers"),
        ("a.mrk.json", markups([[1, 2, 3], [1, 2, 1e999]]), "a point that is not three finite numbers"),
        ("a.mrk.json", json.dumps({"markups": json.loads(markups(CORNERS))["markups"] * 2}), "holds 2 markups"),
        ("a.csv", "x,y,z\n1,2,3\n", "its first line must name the columns r, a, s or l, p, s"),
        ("a.csv", "", "its first line must name the columns"),
        ("a.csv", "r,a,s\n1,2\n1,2,3\n", "a point that is not three finite numbers"),
        ("a.csv", "r,a,s\n1,2,b\n1,2,3\n", "a point that is not three finite numbers"),
        ("a.csv", b"\xff\xfe\x00", "it is not text"),
        ("a.csv", None, "Cannot read the points"),
    ],
)
def test_files_of_points_that_cannot_be_used_end_in_one_sentence(made, tmp_path, printed, name, text, said):  # noqa: F811
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    code, values, err = printed("measure", made[1], "--points", tmp_path / name)
    assert code == 2
    assert said in values["error"]
    assert err == f"dualtrack: {values['error']}\n"


def test_what_cannot_be_measured_ends_in_one_sentence(made, tmp_path, printed):  # noqa: F811
    folder, ends = made[1], ["--from", "0,0,0", "--to", "0,0,5"]
    (tmp_path / "empty").mkdir()
    cases = [
        ([tmp_path / "empty", *ends], "holds no sweep.igs.mha, so there is nothing to measure in; give the folder"),
        ([tmp_path / "nothing", *ends], "is no folder"),
        ([folder], "give --from R,A,S and --to R,A,S, or --points FILE"),
        ([folder, *ends[:2]], "give --from R,A,S and --to R,A,S, or --points FILE"),
        ([folder, *ends, "--points", "a.csv"], "give --from R,A,S and --to R,A,S, or --points FILE"),
        ([folder, "--from", "0,0", "--to", "0,0,5"], "'0,0' is not 3 numbers separated by commas"),
        ([folder, "--from", "0,0,0", "--to", "0,0,0"], "All points lie in one place"),
        ([folder, "--from", "nan,0,0", "--to", "0,0,5"], "not three finite numbers"),
        ([folder, "--from", "-0.5,.2,99", "--to", "0,0,5"], "The point R, A, S = -0.5, 0.2, 99.0 mm lies"),
    ]
    for arguments, said in cases:
        code, values, err = printed("measure", *arguments)
        assert code == 2, arguments
        assert said in values["error"], arguments
        assert err == f"dualtrack: {values['error']}\n"


def test_a_result_whose_path_has_a_gap_says_that_the_error_is_not_known(tmp_path, printed, capsys):  # noqa: F811
    sigma = SIGMA.copy()
    sigma[9] = np.nan
    path, folder = folder_of(tmp_path, sigma)
    start, end = centres(path, 3, 15)
    _, values, _ = printed("measure", folder, "--from", start, "--to", end)
    assert (values["band_68_mm"], values["band_95_mm"]) == (None, None)
    assert values["trust"]["text"] == "rough: How far the length is off is not known."
    main(["measure", str(folder), "--from", start, "--to", end])
    assert "95 %    not known" in capsys.readouterr().out
