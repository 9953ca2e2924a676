"""The JSON Schema files: up to date, valid themselves, and true of what runs, evaluations and `info --json` give."""

import json

import jsonschema
import numpy as np
import pytest
from evaluation_sets import Failing, Given, Shortened, Wobbling, straight_sweep
from json_schemas import FOLDER, schemas
from oracle import tiny_model
from training_data import tracked_sweep

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.files import json_text
from DualTrackCore.io import save_sweep
from DualTrackCore.network import save_model
from DualTrackCore.reconstruction import Fan
from DualTrackCore.research.comparison import Identity, run_methods
from DualTrackCore.research.comparison.table_files import write_tables
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep

pytestmark = pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")


def closed(schema):
    """The schema, but refusing fields that it does not name, so that a new field without a schema is noticed."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    shut = {"additionalProperties": False} if "properties" in schema and "type" in schema else {}
    return {**shut, **{name: closed(part) for name, part in schema.items()}}


def validator(name):
    return jsonschema.Draft202012Validator(closed(schemas()[f"{name}.schema.json"]))


def reports():
    """Reports of runs with everything and with as little as can be."""
    sweep, model = tracked_sweep(0, 12), tiny_model()
    fan = Fan((20.0, -10.0), (-30.0, 30.0), (10.0, 60.0))
    for source, settings in (
        (sweep, RunSettings(fan=fan, voxel_mm=(2, 2, 3), clip=(1, 2, 30, 20), test_time_augmentation=2)),
        (sweep, RunSettings(poses="tracked", voxel_mm=3, axes="principal", memory_gb=100)),
        (Sweep(sweep.frames, 0.25), RunSettings(reconstruct=False, evaluate=False, chunk_frames=5)),
    ):
        yield json.loads(run(source, settings, models=lambda _: model).report.to_json())


def infos(folder, capsys):
    """What `info --json` prints of sweeps of which more or less is known."""
    sweep = tracked_sweep(0, 12)
    bare = Sweep(sweep.frames, None)
    for number, one in enumerate((sweep, bare, Sweep(sweep.frames, (0.3, 0.2), np.arange(12) / 20))):
        save_sweep(one, folder / f"{number}.igs.mha")
        capsys.readouterr()
        assert main(["info", str(folder / f"{number}.igs.mha"), "--json"]) == 0
        yield json.loads(capsys.readouterr().out)


def evaluations(folder, capsys, monkeypatch):
    """What the command writes, and a table with failures, sweeps that are left out, and no figures at all."""
    monkeypatch.setattr("DualTrackCore.research.report.write_report", lambda *_, **__: [])
    model = tiny_model()
    save_sweep(tracked_sweep(0, 12), folder / "a.h5")
    save_model(model.network, model.card, folder / "tiny.safetensors")
    options = ["--method", "identity", "--method", f"model:{folder / 'tiny.safetensors'}", "--poses-are", "measured"]
    assert main(["evaluate", str(folder / "a.h5"), "-o", str(folder / "out"), *options]) == 0
    yield json.loads((folder / "out" / "evaluation.json").read_text())
    sweeps = Given(a=straight_sweep(0.5), b=straight_sweep(0.5, frames=4), bad=InputError("It is cut short."))
    failing = Failing(4, InputError("No."))
    for methods in ([Identity(), Shortened("half", 0.5), failing], [failing]):
        result = run_methods(methods, sweeps, folder / "items", on_bad="skip")
        write_tables(result, result.pairs(), folder, {"data_set": "given", "sweeps_compared": "3 sweeps"})
        yield json.loads((folder / "evaluation.json").read_text())


@pytest.mark.parametrize("name", schemas())
def test_the_file_is_what_is_made_from_the_code_and_a_schema_itself(name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert text == json_text(schemas()[name]), "run python Testing/Core/json_schemas.py"
    jsonschema.Draft202012Validator.check_schema(json.loads(text))


@pytest.mark.parametrize("name", ["report", "info", "evaluation"])
def test_what_is_written_follows_its_schema_with_no_field_left_unsaid(name, tmp_path, capsys, monkeypatch):
    values = {
        "report": reports,
        "info": lambda: infos(tmp_path, capsys),
        "evaluation": lambda: evaluations(tmp_path, capsys, monkeypatch),
    }[name]()
    check, first = validator(name), None
    for number, one in enumerate(values):
        errors = [f"{error.json_path}: {error.message[:200]}" for error in check.iter_errors(one)]
        assert errors == [], number
        first = first or one
    # A field that goes, comes or changes its type is another version of the schema, and the file says so.
    for field, value in first.items():
        assert not check.is_valid({**first, field: {"other": 1} if not isinstance(value, dict) else 1}), field
        optional = field in ("poses_are", "split", "pixels", "about_simulation", "held_out")
        assert check.is_valid({k: v for k, v in first.items() if k != field}) is optional, field
    assert not check.is_valid({**first, "new": 1})


def test_the_schema_of_settings_has_the_limits_of_the_settings():
    check = jsonschema.Draft202012Validator(schemas()["report.schema.json"]["properties"]["settings"])
    values = RunSettings().as_dict()
    assert check.is_valid(values)
    for field, wrong in (
        ("spacing_mm", 0),
        ("spacing_mm", [1, 2, 3]),
        ("chunk_frames", "some"),
        ("chunk_frames", 0),
        ("test_time_augmentation", 3),
        ("evaluate", "yes"),
        ("reject_below", 256),
        ("fan", {"origin": 1}),
    ):
        assert not check.is_valid({**values, field: wrong}), field


def test_a_number_that_is_not_finite_is_not_in_any_schema(tmp_path):
    result = run_methods([Identity()], Wobbling(1), tmp_path / "items")
    write_tables(result, [], tmp_path, {"data_set": "one", "sweeps_compared": "1 sweep"})
    text = (tmp_path / "evaluation.json").read_text()
    assert "NaN" not in text
    validator("evaluation").validate(json.loads(text))
