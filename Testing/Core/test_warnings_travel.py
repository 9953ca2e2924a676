"""What is known of poses travels with all that is made from them: volumes, pictures, evaluations, cards of weights."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import SimpleITK as sitk
from evaluation_sets import Given, wobbling_sweep
from oracle import noise_sweep, tiny_model
from training_data import tiny_recipe, tracked_sweep

from DualTrackCore.evaluation import evaluate
from DualTrackCore.io.pose_marks import AXES_FIELD, FIELDS
from DualTrackCore.network.catalogue import read_card_inside, shipped_folder
from DualTrackCore.network.model import Model, save_model
from DualTrackCore.path_error import trust_line
from DualTrackCore.reconstruction import reconstruct_volume
from DualTrackCore.research.comparison import Identity, run_methods
from DualTrackCore.research.comparison.table_files import write_tables
from DualTrackCore.research.training.initial import recipe_card, trained_card
from DualTrackCore.research.training.sweeps import SweepSet
from DualTrackCore.sweep import Sweep
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.trajectory import Trajectory

FRAMES = 12
STEPS = np.tile([0.05, 0.0, 0.4, 0.1, 0.2, 0.0], (FRAMES - 1, 1))
MODEL = {
    "model": "mini",
    "weights_sha256": "ab" * 32,
    "model_expected_error": "GPE 3 mm on simulated sweeps.",
    "warnings": ["Its motion is a guess."],
}
TRUTH = Trajectory.from_parameters(STEPS * 1.1, origin="measured")
GUESS = Trajectory.from_parameters(STEPS, {**MODEL, "guess": True})
ESTIMATE = Trajectory.from_parameters(STEPS, {**MODEL, "guess": False})


@pytest.fixture(scope="module")
def sweep():
    pixels = np.random.default_rng(0).integers(1, 256, (FRAMES, 24, 32), dtype=np.uint8)
    return Sweep(pixels, 0.5, np.arange(FRAMES) / 20, tracked=TRUTH)


@pytest.mark.parametrize(
    ("simulated_only", "trained", "is_simulated", "is_guess"),
    [
        (True, True, False, True),
        (True, True, True, False),
        (False, True, False, False),
        (False, False, True, True),
    ],
)
def test_an_estimate_is_a_guess_where_the_model_never_saw_such_sweeps(simulated_only, trained, is_simulated, is_guess):
    tiny = tiny_model()
    model = Model(tiny.network, replace(tiny.card, simulated_only=simulated_only, trained=trained))
    sweep = noise_sweep(4, provenance={"simulated": True} if is_simulated else {})
    assert estimate_trajectory(sweep, model, device="cpu").is_guess == is_guess


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("what", ["volume", "coverage"])
def test_the_header_of_a_volume_says_model_trust_and_origin(sweep, tmp_path, suffix, what):
    path = reconstruct_volume(sweep, GUESS).write(tmp_path / f"it{suffix}", what)
    image = sitk.ReadImage(str(path))
    said = {name: image.GetMetaData(field) for name, field in FIELDS.items() if field in image.GetMetaDataKeys()}
    assert said == {
        "origin": "estimated",
        "estimated_by": "mini",
        "weights_sha256": "ab" * 32,
        "guess": "True",
        "expected_error": MODEL["model_expected_error"],
        "warnings": "Its motion is a guess.",
        "trust": trust_line(GUESS),
    }
    assert image.GetMetaData(AXES_FIELD) == "left, posterior and superior are those of frame 0, not of the patient"
    image = sitk.ReadImage(str(reconstruct_volume(sweep, TRUTH).write(tmp_path / f"true{suffix}", what)))
    assert image.GetMetaData(FIELDS["origin"]) == "measured"
    assert FIELDS["guess"] not in image.GetMetaDataKeys()


def lines_of(monkeypatch, sweep, trajectory):
    """What each picture says of the poses, and its colour."""
    pictures = pytest.importorskip("DualTrackCore.pictures")
    pytest.importorskip("matplotlib", reason="Pictures need matplotlib, which is not installed.")
    figures = []
    monkeypatch.setattr("DualTrackCore.pictures.drawing.save", lambda figure, path: figures.append(figure))
    estimated, true = (reconstruct_volume(sweep, poses) for poses in (trajectory, TRUTH))
    pictures.write_slices(estimated, "unused")
    pictures.write_trajectory(trajectory, sweep, "unused")
    pictures.write_motion(trajectory, "unused")
    pictures.write_comparison(estimated, true, trajectory, TRUTH, evaluate(trajectory, sweep).as_dict(), "unused")
    found = [[text for text in figure.texts if text.get_gid() == "origin"] for figure in figures]
    assert [len(texts) for texts in found] == [1, 1, 1, 1]
    return [(text.get_text(), text.get_color()) for (text,) in found]


def test_every_picture_of_a_guess_says_so_in_a_colour_of_its_own(sweep, monkeypatch):
    from DualTrackCore.pictures import drawing

    for text, colour in lines_of(monkeypatch, sweep, GUESS):
        assert "Poses: estimated by mini (a guess)" in text
        assert "do not use" in text
        assert colour == drawing.WARNING
    for text, colour in lines_of(monkeypatch, sweep, ESTIMATE):
        assert "Poses: estimated by mini" in text
        assert "guess" not in text
        assert colour != drawing.WARNING
    assert "True poses: measured by a tracker" in text
    assert lines_of(monkeypatch, sweep, TRUTH)[0][0].endswith("Poses: measured by a tracker")


class Guessing(Identity):
    """A method with a model that never saw such sweeps."""

    name, uses, fingerprint = "model:mini", "images", "guessing"

    def __init__(self):
        tiny = tiny_model()
        self.model = Model(tiny.network, replace(tiny.card, expected_error="GPE 3 mm on simulated sweeps."), "cd" * 32)

    def estimate(self, sweep, *, progress=None, cancelled=None):
        still = super().estimate(sweep)
        warned = [f"The clip has {len(np.unique(sweep.window(0, 1)))} grey values."]
        return replace(still, provenance={**self.model.provenance(), "guess": True, "warnings": warned})


def test_an_evaluation_says_model_trust_and_origin_in_every_file(tmp_path):
    simulated = replace(wobbling_sweep(2), tracked=replace(wobbling_sweep(2).tracked, origin="simulated"))
    sweeps = Given(a=wobbling_sweep(0), b=wobbling_sweep(1), c=simulated)
    result = run_methods([Identity(), Guessing()], sweeps, tmp_path / "items")
    about = {"data_set": "given"}
    write_tables(result, [], tmp_path, about)
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert values["true_poses"] == {"measured": 2, "simulated": 1}
    still, guessing = values["methods"]
    assert (still["model"], still["guesses"]) == (None, 0)
    assert guessing["guesses"] == 3
    assert guessing["model"]["model"] == "tiny"
    assert guessing["model"]["weights_sha256"] == "cd" * 32
    assert guessing["model"]["model_expected_error"] == "GPE 3 mm on simulated sweeps."
    rows = values["sweeps"]
    assert [(row["true_poses"], row["guess"]) for row in rows if row["method"] == "model:mini"][-1] == (
        "simulated",
        True,
    )
    sentence = "model:mini only guesses on 3 of 3 sweeps: its model never saw such ones."
    table = (tmp_path / "table.md").read_text()
    warned = [row["warnings"] for row in rows if row["method"] == "model:mini"]
    assert len(set(warned)) > 1
    assert guessing["warnings"] == {warned[0]: 3}
    assert still["warnings"] == {}
    warning = f"Warning of model:mini on 3 of 3 sweeps: {warned[0]}"
    assert warning in table
    assert sentence in table
    assert "true_poses: measured (2 sweeps), simulated (1 sweeps)" in table
    pytest.importorskip("jinja2", reason="reports need the extra report")
    from DualTrackCore.research.report import write_report

    write_report(result, [], sweeps, tmp_path, about)
    page = (tmp_path / "report.html").read_text()
    for words in (sentence, warning, "measured (2 sweeps)", "GPE 3 mm on simulated sweeps.", "cd" * 8):
        assert words in page


def shipped_claims():
    """The recipe card of the model that ships, as mini's recipes give it."""
    card = read_card_inside(shipped_folder() / "mini.safetensors")
    return {field.name: getattr(card, field.name) for field in fields(card) if field.name != "architecture"}


def sides(*sweeps):
    """The last sweep for validation, the others for training."""
    named = SweepSet(tuple(map(str, range(len(sweeps)))), sweeps)
    return (
        (named, named)
        if len(sweeps) == 1
        else (
            SweepSet(named.names[:-1], sweeps[:-1]),
            SweepSet(named.names[-1:], sweeps[-1:]),
        )
    )


@pytest.fixture
def simulated():
    return replace(tracked_sweep(0), provenance={"simulated": True})


def test_a_new_training_claims_nothing_that_it_did_not_measure(tmp_path, simulated):
    recipe = tiny_recipe("local1", card=shipped_claims())
    card = trained_card(recipe, tmp_path, *sides(tracked_sweep(0), tracked_sweep(1)))
    assert (card.name, card.expected_error, card.bf16_error, card.licence) == ("local1", "unknown", None, "unknown")
    assert card.version == "unknown"
    assert "simulated" not in card.title
    assert not card.simulated_only
    assert card.training_data.startswith(
        "1 sweep (24 frames) for training, 1 sweep (24 frames) for validation (recorded"
    )
    assert card.spacing_mm == recipe_card(recipe).spacing_mm
    assert trained_card(recipe, tmp_path, *sides(simulated)).simulated_only
    assert not trained_card(recipe, tmp_path, *sides(simulated, tracked_sweep(1))).simulated_only


def test_a_recipe_of_ones_own_keeps_its_name_but_no_error(tmp_path, simulated):
    own = {
        "name": "ours",
        "title": "Our network",
        "licence": "ours",
        "expected_error": "none at all",
        "bf16_error": 1e-9,
        "fp16_error": 1e-9,
    }
    card = trained_card(tiny_recipe("local1", card=own), tmp_path, *sides(simulated))
    assert (card.name, card.title, card.licence) == ("ours", "Our network", "ours")
    assert (card.expected_error, card.bf16_error, card.fp16_error) == ("unknown", None, None)


@pytest.mark.parametrize("earlier", [True, False])
def test_weights_that_began_with_recorded_sweeps_do_not_count_as_simulated(tmp_path, simulated, earlier):
    tiny = tiny_model()
    save_model(tiny.network, replace(tiny.card, simulated_only=earlier), tmp_path / "start.safetensors")
    recipe = tiny_recipe("fusion", initial={"all": "start.safetensors"})
    assert trained_card(recipe, tmp_path, *sides(simulated)).simulated_only == earlier
