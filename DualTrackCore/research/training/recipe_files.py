"""Recipes and plans in short YAML files, and the changes that a command makes to them.

A recipe may name another one under `base` and replaces its values key by key. Recipes that ship are named without
folder and suffix (`mini/local1`, `paper/fusion`). A plan names the recipes of a whole model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from DualTrackCore.errors import InputError, reason_of
from DualTrackCore.research.training.recipe import Recipe
from DualTrackCore.settings import build, short_text

#: Folder of the recipes and plans that ship.
RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class Plan:
    """The stages that make a model, in their order.

    Attributes:
        name: of the plan: "mini".
        stages: recipes of the stages.
        calibration: simulated clips on which the errors and the direction of the result are calibrated; 0 for none.
        evaluation: what the result is measured on at the end: the sweeps of "validation", or simulated "acquisitions".
    """

    name: str
    stages: tuple[Recipe, ...]
    calibration: int = 0
    evaluation: Literal["validation", "acquisitions"] = "validation"


def plan_names() -> list[str]:
    """Names of the plans that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_plan(name: str, changes: Sequence[str] = ()) -> Plan:
    """Read a plan and its recipes.

    Args:
        name: one of :func:`plan_names`.
        changes: put over every recipe, see :func:`load_recipe`.

    Raises InputError: no such plan, or a recipe that does not fit.
    """
    if name not in plan_names():
        raise InputError(f"There is no plan {name}; choose one of {', '.join(plan_names())}.")
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return Plan(**{"name": name, **values, "stages": tuple(load_recipe(stage, changes) for stage in values["stages"])})


def load_recipe(name_or_path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        name_or_path: a YAML file, or the name of a recipe that ships, such as "mini/local1".
        changes: "key=value" pairs that replace values of the file; keys dotted, values in YAML: "optimiser.lr=0.001".
            Fewer `epochs` also shorten end_epoch, warmup_epochs and validation.every, unless a change names them.

    Raises:
        InputError: no such recipe, not YAML, an unknown key, a value of the wrong type or out of range; one sentence
            with key and file.
    """
    path = Path(name_or_path)
    if not path.is_file():
        path = RECIPES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise InputError(f"There is no recipe {name_or_path}: neither a file nor one of {', '.join(recipe_names())}.")
    values, files = _read(path, ())
    for change in changes:
        _apply(values, change)
    _fit_to_epochs(values, {change.partition("=")[0].strip() for change in changes})
    recipe = build(Recipe, values, path.name)
    object.__setattr__(recipe, "files", files)
    return recipe


def recipe_names() -> list[str]:
    """Names of the recipes that ship."""
    names = (path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*/*.yaml"))
    return sorted(name for name in names if not name.endswith("common"))


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The values of a recipe merged with those of its base, and the files that were read."""
    if path in above:
        raise InputError(f"base in {path.name} leads back to the file itself.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The recipe {path} cannot be read: {error}.") from None
    except yaml.YAMLError as error:
        raise InputError(f"The recipe {path.name} is not YAML: {reason_of(error)}.") from None
    if not isinstance(values, dict):
        raise InputError(f"The recipe {path.name} holds no keys; expected stage, output, data and others.")
    base = values.pop("base", None)
    if base is None:
        return values, (*above, path)
    below = path.parent / str(base)
    if not below.is_file():
        raise InputError(f"base in {path.name} names {base}, and there is no such file beside it.")
    inherited, files = _read(below, (*above, path))
    return _merged(inherited, values), files


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _fit_to_epochs(values: dict[str, Any], changed: set[str]) -> None:
    """Where a change asks for fewer epochs, shorten what the file counts in them and no change names."""
    epochs = values.get("epochs")
    if "epochs" not in changed or not isinstance(epochs, int):
        return
    for key, most in {"end_epoch": epochs, "warmup_epochs": epochs - 1, "validation.every": epochs}.items():
        outer, _, last = key.rpartition(".")
        place = values.get(outer) if outer else values
        stated = place.get(last) if isinstance(place, Mapping) else None
        if key not in changed and isinstance(stated, int) and stated > most:
            _apply(values, f"{key}={most}")


def _apply(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise InputError(f"The change {short_text(change)} is not of the form KEY=VALUE.")
    *outer, last = key.strip().split(".")
    place = values
    for name in outer:
        inner = place.get(name)
        place[name] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[name]
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"The value in {short_text(change)} is not YAML.") from None
