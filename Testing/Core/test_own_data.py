"""The page on own data: every command and the snippet run as they stand, on small made-up recordings."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from sequence_files import metafile, text
from test_io_dicom import make

from DualTrackCore.cli import main
from DualTrackCore.cli.parser import build_parser
from DualTrackCore.errors import CheckpointError, InputError
from DualTrackCore.network import load_model
from DualTrackCore.network.catalogue import installed_models, published_models
from DualTrackCore.research.datasets import open_dataset
from DualTrackCore.research.training import load_recipe
from DualTrackCore.research.training.initial import _weights_path
from DualTrackCore.trajectory import matrices_from_parameters

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
PAGE = (Path(__file__).parents[2] / "Docs" / "own-data.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"```console\n(.*?)```", PAGE, re.S)).splitlines()
FRAMES, SIZE = 14, (64, 80)
CONFIGURATION = """<PlusConfiguration version="2.1"><CoordinateDefinitions>
<Transform From="Image" To="Probe" Matrix="0.5 0 0 5  0 0.5 0 7  0 0 0.5 9  0 0 0 1"/>
</CoordinateDefinitions></PlusConfiguration>"""


def path_of(seed):
    """[N, 4, 4] a smooth way through the tracker's world."""
    motions = np.random.default_rng(seed).normal(size=(FRAMES, 6)) * 0.05 + [0, 0, 0.5, 0, 0, 0]
    return matrices_from_parameters(np.cumsum(motions, axis=0))


def pictures(seed):
    base = np.random.default_rng(seed).gamma(2.0, 25.0, (FRAMES, *SIZE))
    return base.clip(0, 255).astype(np.uint8)


def record(path, seed):
    """A PLUS recording without ImageToProbe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = []
    for i, pose in enumerate(path_of(seed)):
        name = f"Seq_Frame{i:04d}_"
        fields += [(f"{name}ProbeToTrackerTransform", text(pose)), (f"{name}ProbeToTrackerTransformStatus", "OK")]
        fields.append((f"{name}Timestamp", str(i / 20)))
    metafile(path, pictures(seed), fields, DimSize=f"{SIZE[1]} {SIZE[0]} {FRAMES}")


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory):
    """A folder with recordings as the page lays them out, in which the snippet has run; commands run there."""
    place = tmp_path_factory.mktemp("lab")
    record(place / "recordings" / "ann" / "left.igs.mha", 1)
    record(place / "recordings" / "bob" / "left.igs.mha", 2)
    (place / "recordings" / "PlusDeviceSet_fCal.xml").write_text(CONFIGURATION)
    make(place / "clip.dcm", pictures(3), FrameTime="50")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("DUALTRACK_MODELS", str(place / "models"))
        (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
        exec(snippet, {"reference_from_image": path_of(3)})
        (place / "recordings" / "cleo").mkdir()
        yield place


def ran(lines):
    """Exit codes of commands by their lines."""
    codes = {}
    for line in lines:
        words = shlex.split(line)
        assert words.pop(0) == "dualtrack"
        codes[line] = main([*words, "--quiet"])
    return codes


#: Recordings to a checked data set; the rest trains, compares and uses.
DATA = [line for line in COMMANDS if line.split()[1] in ("convert", "dataset")]


@pytest.fixture(scope="module")
def data(laboratory):
    return ran(DATA)


@pytest.fixture(scope="module")
def went_through(laboratory, data):
    """The folder in which all commands of the page ran, and their exit codes."""
    return laboratory, {**data, **ran([line for line in COMMANDS if line not in DATA])}


def test_the_commands_from_recordings_to_a_checked_data_set_run_as_they_stand(laboratory, data):
    assert COMMANDS[: len(DATA)] == DATA
    assert list(data.values()) == [0, 0, 0, 0]
    assert {entry.subject: entry.split for entry in open_dataset(laboratory / "data")}.keys() == {"ann", "bob", "cleo"}
    poses = open_dataset(laboratory / "data").load("cleo/left").tracked.poses
    true = np.linalg.inv(path_of(3)[0]) @ path_of(3)
    np.testing.assert_allclose(poses, true, atol=1e-6)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_is_understood(line):
    assert callable(build_parser().parse_args(shlex.split(line)[1:]).command)


@pytest.mark.slow
def test_every_command_of_the_page_runs_as_it_stands(went_through):
    place, said = went_through
    assert list(said) == COMMANDS
    assert set(said.values()) == {0}, said
    for name in ("data/fold-2.csv", "try/own/model.safetensors", "compared/report.html", "result/volume.nrrd"):
        assert (place / name).stat().st_size > 0


@pytest.mark.slow
def test_the_fine_tuned_weights_say_what_they_saw_and_claim_no_error(went_through):
    place, _ = went_through
    card = load_model(place / "try" / "own").card
    assert card.training_data == (
        "2 sweeps of 2 subjects (28 frames) for training, 1 sweep of 1 subject (14 frames) for validation (recorded, "
        "of data), starting from own."
    )
    first = load_model(place / "try" / "own" / "finetune").card
    assert first.training_data.endswith("(recorded, of data), starting from mini.")
    assert (card.expected_error, card.simulated_only, card.trained_ranges) == ("unknown", False, None)
    assert card.frame_size == (128, 160)  # 64 x 80 pixels of 0.5 mm, at the 0.25 mm of the network
    assert card.frame_rate_hz == pytest.approx(20)
    assert tuple(card.input_limits) == tuple(load_model("mini").card.input_limits)


@pytest.mark.slow
def test_fine_tuning_changes_the_motions_and_the_stated_errors_and_nothing_of_the_direction(went_through):
    place, _ = went_through
    before = load_model("mini").network.state_dict()
    after = load_model(place / "try" / "own").network.state_dict()
    changed = {name for name in before if not np.allclose(before[name].numpy(), after[name].numpy(), 0, 1e-6)}
    assert any(name.startswith("head.") for name in changed)
    assert any(name.startswith("uncertainty.") for name in changed)
    assert not [name for name in changed if name.startswith("direction.")]


@pytest.mark.slow
def test_a_trained_model_joins_the_list_from_which_the_panel_takes_its_models(went_through, monkeypatch):
    place, _ = went_through
    monkeypatch.setenv("DUALTRACK_MODELS", str(place / "models"))
    assert {"ours", "mini"} <= {model.name for model in installed_models()}
    assert load_model("ours").card.training_data == load_model(place / "try" / "own").card.training_data


def test_the_folder_of_a_run_is_a_model_and_one_without_weights_is_none(tmp_path, model_file):
    (tmp_path / "run").mkdir()
    shutil.copy(model_file, tmp_path / "run" / "model.safetensors")
    for name in (tmp_path / "run", str(tmp_path / "run")):
        assert load_model(name).sha256 == load_model(model_file).sha256
    assert _weights_path("run", tmp_path) == tmp_path / "run" / "model.safetensors"
    assert _weights_path("mini", tmp_path).name == "mini.safetensors"
    with pytest.raises(InputError, match="nor is it a model that ships or is installed; train that stage first"):
        _weights_path("nowhere", tmp_path)
    with pytest.raises(CheckpointError, match="There is no file and no model"):
        load_model(tmp_path)
    assert "own" not in published_models()


@pytest.mark.parametrize("name", ["mini/local1", "paper/fusion", "paper/local1", "own/finetune"])
def test_fewer_epochs_shorten_what_is_counted_in_them(name):
    recipe = load_recipe(name, ["epochs=1"])
    assert (recipe.epochs, recipe.warmup_epochs, recipe.validation.every) == (1, 0, 1)
    assert recipe.end_epoch in (None, 1)
    usual = load_recipe(name)
    assert load_recipe(name, [f"epochs={usual.epochs + 1}"]).warmup_epochs == usual.warmup_epochs


def test_what_a_change_names_itself_is_not_shortened_but_checked():
    with pytest.raises(InputError, match="end_epoch is 16; it must lie between 1 and epochs"):
        load_recipe("mini/local1", ["epochs=2", "end_epoch=16"])
    assert load_recipe("paper/local1", ["epochs=2", "validation.every=50"]).validation.every == 50
