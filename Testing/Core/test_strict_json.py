"""All JSON is strict (no NaN, no Infinity) and says its schema."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import tiny_model
from training_data import tracked_sweep, write_sweeps

from DualTrackCore.cli import main
from DualTrackCore.cli.console import Console
from DualTrackCore.errors import CheckpointError
from DualTrackCore.io import save_sweep
from DualTrackCore.network import save_model
from DualTrackCore.network.catalogue import ModelCard
from DualTrackCore.research.training import trainer


def strict(text: str) -> Any:
    """The values of a JSON text; fails on what only Python reads."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def require_versioned(values: dict, where: object) -> None:
    # What --json prints names its schema as "command/1"; single results of an evaluation call it "format".
    named = str(values.get("schema", "")).rpartition("/")[2].isdigit()
    assert named or isinstance(values.get("schema_version", values.get("format")), int), where


def test_every_command_prints_and_writes_strict_json_with_a_version(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DUALTRACK_MODELS", str(tmp_path / "models"))
    table = write_sweeps(tmp_path / "data", 2, 1, frames=10)
    save_sweep(tracked_sweep(0, 10, (40, 48)), tmp_path / "a.h5")
    save_model(tiny_model().network, tiny_model().card, tmp_path / "tiny.safetensors")
    commands = [
        f"info {tmp_path}/a.h5",
        f"convert {tmp_path}/a.h5 {tmp_path}/b.igs.mha",
        f"reconstruct {tmp_path}/a.h5 --voxel 3 --no-pictures -o {tmp_path}/one",
        f"track {tmp_path}/a.h5 --model {tmp_path}/tiny.safetensors -o {tmp_path}/t.csv",
        f"simulate --frames 3 --size 40,32 -o {tmp_path}/s.h5",
        f"models import own {tmp_path}/tiny.safetensors",
        "models list",
        "models verify own",
        f"dataset check {tmp_path}/data",
        f"dataset convert {tmp_path}/data -o {tmp_path}/converted",
        f"evaluate {table} -o {tmp_path}/table --calibrate {table} --method identity --method own-mean-motion",
        f"info {tmp_path}/none.h5",
    ]
    for command in commands:
        capsys.readouterr()
        assert main([*command.split(), "--json", "--quiet"]) == (2 if "none" in command else 0), capsys.readouterr().err
        require_versioned(strict(capsys.readouterr().out), command)
    written = sorted(tmp_path.rglob("*.json"))
    assert {"report.json", "evaluation.json"} <= {path.name for path in written}
    for path in written:
        require_versioned(strict(Path(path).read_text(encoding="utf-8")), path)


def test_numbers_that_are_not_finite_become_null(capsys):
    Console(json_output=True, quiet=True).result({"values": [math.nan, np.float32("inf"), 1e300]})
    assert strict(capsys.readouterr().out)["values"] == [None, None, 1e300]
    assert strict(trainer._versioned({"best": {"val_gpe_mm": math.nan}}))["best"] == {"val_gpe_mm": None}
    assert (
        strict(ModelCard(name="a", architecture={"positions": math.inf}).to_json())["architecture"]["positions"] is None
    )


def test_a_card_says_its_schema_and_one_of_another_is_refused():
    card = tiny_model().card
    assert ModelCard.from_json(card.to_json(), "card") == card
    older = {name: value for name, value in json.loads(card.to_json()).items() if name != "schema_version"}
    assert ModelCard.from_json(json.dumps(older), "card") == card
    with pytest.raises(CheckpointError, match="schema version 9"):
        ModelCard.from_json(json.dumps({**older, "schema_version": 9}), "card")
