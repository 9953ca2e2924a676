"""The line on trust goes with whatever is written of an estimate, and is there again when that is read."""

import json
import zipfile
from dataclasses import replace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from evaluation_sets import Given, wobbling_sweep
from oracle import noise_sweep, tiny_model

from DualTrackCore.cli import main
from DualTrackCore.evaluation import evaluate
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep, write_trajectory_csv
from DualTrackCore.io.pose_marks import FIELDS
from DualTrackCore.path_error import DRIFT_BY_RULE, TRUST, Trust, trust_in, trust_line
from DualTrackCore.reconstruction import reconstruct_volume
from DualTrackCore.reconstruction.volume_files import VOLUME_SUFFIXES
from DualTrackCore.research.comparison import Identity, run_methods
from DualTrackCore.research.comparison.table_files import text_table, write_tables
from DualTrackCore.run import RunSettings, run
from DualTrackCore.trajectory import Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")

FRAMES = 12
MOTIONS = np.tile([0.05, 0.0, 0.4, 0.1, 0.2, 0.0], (FRAMES - 1, 1))
FOUND = {"model": "toy", "model_trained": False, "outside_training": ["long steps"], "direction": "unsure"}
ESTIMATE = Trajectory.from_parameters(MOTIONS, {**FOUND, DRIFT_BY_RULE: 30.0})
LINE = (
    "do not measure: The weights are untrained. The probe moved faster than in the training of the model. "
    "It is unsure which way the sweep runs. The length may be off by 59% (by rule of thumb)."
)
SEQUENCES = (".igs.mha", ".seq.mha", ".igs.nrrd", ".seq.nrrd", ".h5")


@pytest.fixture(scope="module")
def sweep():
    return noise_sweep(FRAMES)


def info(capsys, path):
    """The line in the text and in the JSON of `dualtrack info`."""
    assert main(["info", str(path)]) == 0
    said = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("  trust")]
    assert main(["info", "--json", str(path)]) == 0
    return said, json.loads(capsys.readouterr().out)["trust"]


@pytest.mark.parametrize("suffix", SEQUENCES)
def test_a_sequence_says_what_its_poses_are_good_for(tmp_path, capsys, sweep, suffix):
    save_sweep(sweep, tmp_path / f"it{suffix}", trajectory=ESTIMATE)
    assert info(capsys, tmp_path / f"it{suffix}") == ([LINE], LINE)
    poses = load_sweep(tmp_path / f"it{suffix}").tracked
    assert trust_line(poses) == LINE
    assert trust_in(poses).text == LINE  # also where a run finds it anew
    save_sweep(sweep, tmp_path / f"true{suffix}", trajectory=Trajectory.from_parameters(MOTIONS, origin="measured"))
    assert info(capsys, tmp_path / f"true{suffix}") == ([], "")


@pytest.mark.parametrize("suffix", VOLUME_SUFFIXES)
def test_a_volume_says_what_its_poses_are_good_for(tmp_path, capsys, sweep, suffix):
    path = reconstruct_volume(sweep, ESTIMATE).write(tmp_path / f"it{suffix}")
    line = LINE[:79] if ".nii" in suffix else LINE  # the header of NIfTI has no more room
    assert info(capsys, path) == ([line], line)
    measured = Trajectory.from_parameters(MOTIONS, origin="measured")
    assert info(capsys, reconstruct_volume(sweep, measured).write(tmp_path / f"true{suffix}")) == ([], "")


def test_a_table_of_poses_says_what_they_are_good_for(tmp_path):
    write_trajectory_csv(ESTIMATE, tmp_path / "it.csv")
    assert trust_line(read_trajectory_csv(tmp_path / "it.csv")) == LINE


def test_every_node_of_a_bundle_that_the_poses_place_says_it(tmp_path, sweep):
    save_sweep(sweep, tmp_path / "it.mrb", trajectory=ESTIMATE)
    with zipfile.ZipFile(tmp_path / "it.mrb") as bundle:
        nodes = ElementTree.fromstring(bundle.read("it/it.mrml"))
    for tag in ("Sequence", "LinearTransform", "Volume"):
        for node in nodes.iter(tag):
            texts = dict(map(unquote, text.split(":", 1)) for text in node.get("attributes").split(";"))
            assert texts[FIELDS[TRUST]] == LINE
            assert texts[FIELDS["origin"]] == "estimated"


def test_all_files_of_a_run_say_what_its_report_says(tmp_path, capsys):
    """True poses are known, which the report alone could use: the line goes from there into path and volume."""
    moving = replace(noise_sweep(FRAMES), tracked=Trajectory.from_parameters(MOTIONS, origin="measured"))
    still = tiny_model()
    still.network.load_state_dict({name: value * 0 for name, value in still.network.state_dict().items()})
    result = run(moving, RunSettings(device="cpu", slicer=True), models=lambda settings: still)
    result.write(tmp_path)
    line = result.report.trajectory["trust"]["text"]
    assert "no better than no motion" in line
    assert TRUST not in result.report.trajectory["source"]
    for name in ("sweep.igs.mha", "volume.nrrd", "coverage.nrrd"):
        assert info(capsys, tmp_path / name) == ([line], line)
    assert trust_line(read_trajectory_csv(tmp_path / "trajectory.csv")) == line
    with zipfile.ZipFile(tmp_path / "scene.mrb") as bundle:
        scene = unquote(bundle.read("scene/scene.mrml").decode())
    assert scene.count(line) == 5  # two sequences, what they move, and the volume
    for picture in ("slices", "trajectory", "motion"):
        assert picture_text(tmp_path / f"{picture}.png") == f"Trust: {line}"


def picture_text(path):
    image = pytest.importorskip("PIL.Image", reason="Pictures are read with Pillow, which is not installed.")
    with image.open(path) as picture:
        return picture.text.get("Description")


def test_every_picture_is_stamped_with_the_level_and_holds_the_line(tmp_path, monkeypatch, sweep):
    pytest.importorskip("matplotlib", reason="Pictures need matplotlib, which is not installed.")
    from DualTrackCore import pictures
    from DualTrackCore.pictures import drawing

    truth = Trajectory.from_parameters(MOTIONS * 1.1, origin="measured")
    figures, save = [], drawing.save
    monkeypatch.setattr(drawing, "save", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    made, true = (reconstruct_volume(sweep, poses) for poses in (ESTIMATE, truth))
    errors = evaluate(ESTIMATE, replace(sweep, tracked=truth)).as_dict()
    arguments = {
        "write_slices": (made,),
        "write_trajectory": (ESTIMATE, sweep),
        "write_motion": (ESTIMATE,),
        "write_comparison": (made, true, ESTIMATE, truth, errors),
    }
    assert set(arguments) == {*pictures.__all__} - {"write_previews"}  # which calls three of them
    for name, values in arguments.items():
        path = getattr(pictures, name)(*values, tmp_path / "it.png")
        (stamp,) = [text for text in figures[-1].texts if text.get_gid() == "trust"]
        assert (stamp.get_text(), stamp.get_color()) == ("do not measure", drawing.WARNING)
        assert picture_text(path) == f"Trust: {LINE}"
    pictures.write_motion(truth, tmp_path / "true.png")
    assert [text for text in figures[-1].texts if text.get_gid() == "trust"] == []
    assert picture_text(tmp_path / "true.png") is None


class Modelled(Identity):
    """No motion, said to be by an untrained model."""

    name, uses, fingerprint = "model:toy", "images", "modelled"

    def estimate(self, sweep, *, progress=None, cancelled=None):
        return replace(super().estimate(sweep), provenance={**FOUND, "outside_training": []})


@pytest.fixture
def comparison(tmp_path):
    sweeps = Given(a=wobbling_sweep(0), b=wobbling_sweep(1))
    return sweeps, run_methods([Identity(), Modelled()], sweeps, tmp_path / "items")


def test_an_evaluation_says_it_of_each_model_in_all_tables(tmp_path, comparison):
    _, result = comparison
    write_tables(result, [], tmp_path, {"data_set": "given"})
    values = json.loads((tmp_path / "evaluation.json").read_text())
    rows = {(row["method"], row["sweep"]): row["trust"] for row in values["sweeps"]}
    assert rows["identity", "a"] == ""
    line = rows["model:toy", "a"]
    assert line.startswith("do not measure: The weights are untrained. The path is no better than no motion at all.")
    assert [method["trust"].get("do not measure") for method in values["methods"]] == [None, 2]
    assert values["methods"][1]["trust"]["The weights are untrained."] == 2
    assert line in (tmp_path / "sweeps.csv").read_text()
    sentence = "Trust in model:toy: do not measure (2 of 2), The weights are untrained (2 of 2)"
    assert sentence in text_table(result)
    assert sentence in (tmp_path / "table.md").read_text()


def test_the_page_of_an_evaluation_and_its_pictures_say_it(tmp_path, monkeypatch, comparison):
    pytest.importorskip("jinja2", reason="Reports need jinja2, which is not installed.")
    pytest.importorskip("matplotlib", reason="Pictures need matplotlib, which is not installed.")
    from DualTrackCore.pictures import drawing
    from DualTrackCore.research.report import write_report

    sweeps, result = comparison
    figures, save = [], drawing.save
    monkeypatch.setattr(drawing, "save", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    write_report(result, [], sweeps, tmp_path, {"data set": "given"})
    page = (tmp_path / "report.html").read_text()
    assert "Trust in model:toy: do not measure (2 of 2)" in page
    assert f"Trust: {result.of('model:toy')['a'].trust}" in page
    errors, growth, *cases = figures
    label = "model:toy\ndo not measure (2 of 2)"
    assert label in [text.get_text() for text in errors.axes[0].get_yticklabels()]
    assert label in [text.get_text() for text in growth.axes[0].get_legend().get_texts()]
    assert cases
    stamps = [text.get_text() for figure in cases for text in figure.texts if text.get_gid() == "trust"]
    assert stamps == ["do not measure"] * len(cases)


def carried(line, **source):
    return Trajectory.from_parameters(MOTIONS, {"model": "toy", DRIFT_BY_RULE: 1.0, TRUST: line, **source})


def test_what_is_known_now_goes_before_the_line_of_a_file():
    unsure = "rough guide: It is unsure which way the sweep runs."
    assert trust_in(carried(unsure)).text == unsure
    assert trust_in(carried(unsure, direction="told by the user")) == Trust("usable")
    turned = "rough guide: The pictures run back."
    assert trust_in(carried(turned)).text == turned
    assert trust_in(carried(turned, guess=True)).text == turned  # by the line: an untrained model is no simulated one
    measured = {"metrics": {"gpe_mm": 1.0}, "baselines": {"identity": {"gpe_mm": 2.0}}}
    bad = "do not measure: The path is no better than no motion at all."
    assert trust_in(carried(bad)).text == bad
    assert trust_in(carried(bad), evaluation=measured) == Trust("usable")


def test_a_reason_of_a_later_version_is_kept_with_its_level():
    for line in ("do not measure: The tissue was torn.", "rough guide: The gel was thin."):
        assert trust_in(carried(line)).text == line
    assert trust_in(carried("usable")) == Trust("usable")
    assert Trust.from_text("as you like") is None
