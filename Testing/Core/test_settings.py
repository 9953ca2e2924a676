"""Settings: one description of each field, and everything that is derived from it."""

from dataclasses import dataclass
from typing import Literal

import pytest

from DualTrackCore.errors import InputError
from DualTrackCore.settings import build, check_settings, known_keys, setting, short_list


@dataclass(frozen=True)
class Inner:
    rate: float = setting(0.1, above=0)


@dataclass(frozen=True)
class Outer:
    count: int = setting(3, at_least=1, at_most=9)
    size: float | tuple[float, float] | None = setting(None, unit="mm", above=0)
    mode: Literal["fast", "slow"] = "fast"
    chunk: int | Literal["auto"] = setting("auto", at_least=1)
    on: bool = False
    inner: Inner = Inner()

    def __post_init__(self) -> None:
        check_settings(self)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count.* is 0; expected a whole number from 1 to 9"),
        ({"count": 10}, "count.* is 10; expected a whole number from 1 to 9"),
        ({"count": True}, "count.* is True; expected a whole number"),
        ({"count": 2.5}, "count.* is 2.5"),
        ({"size": 0}, "size.* is 0; expected a number of mm above 0 or 2 numbers above 0 or none"),
        ({"size": (1, -1)}, "size"),
        ({"size": (1, 2, 3)}, "size"),
        ({"size": float("nan")}, "size"),
        ({"size": float("inf")}, "size"),
        ({"size": 10**400}, "size"),
        ({"mode": "medium"}, "mode.* is 'medium'; expected one of fast, slow"),
        ({"mode": None}, "mode"),
        ({"chunk": "many"}, "chunk.* is 'many'; expected a whole number of at least 1 or 'auto'"),
        ({"chunk": 0}, "chunk"),
        ({"on": 1}, "on.* is 1; expected true or false"),
        ({"colour": 1}, "colour in own.yaml is no known key; known are count, size"),
        ({"inner": {"rate": 0}}, r"inner.rate in own.yaml is 0; expected a number above 0"),
        ({"inner": {"speed": 0}}, r"inner.speed in own.yaml is no known key"),
        ({"inner": 3}, "inner"),
        (3, "own.yaml is 3; expected a mapping"),
    ],
)
def test_a_value_that_does_not_fit_is_one_sentence_with_place_value_and_what_is_expected(values, message):
    with pytest.raises(InputError, match=message):
        build(Outer, values, "own.yaml")


def test_values_that_fit_are_converted_to_the_type_of_the_field():
    built = build(Outer, {"size": [1, "2e0"], "chunk": 4, "inner": {"rate": 1}}, "own.yaml")
    assert built == Outer(size=(1.0, 2.0), chunk=4, inner=Inner(1.0))
    assert type(built.size[0]) is float
    assert Outer(size=2).size == 2.0


def test_the_constructor_checks_as_well():
    with pytest.raises(InputError, match="The setting count is 0; expected a whole number from 1 to 9"):
        Outer(count=0)


@pytest.mark.parametrize("values", [{"kind": "near" + "9" * 1000}, {"near" + "9" * 1000: 1}])
def test_a_message_cuts_a_long_value_or_key(values):
    @dataclass(frozen=True)
    class Chosen:
        kind: Literal["near", "far"] = "near"

    with pytest.raises(InputError) as caught:
        build(Chosen, values, "settings.yaml")
    assert "near99" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_long_list_in_a_message_is_cut_and_counted():
    assert short_list("abc") == "a, b, c"
    assert short_list(str(n) for n in range(9)) == "0, 1, 2, 3, 4, 5 and 3 more"
    assert short_list(["z" * 500]) == "z" * 60


def test_of_many_known_keys_the_nearest_are_named():
    known = ["spacing_mm", "voxel_mm", "depth_mm", "model", "card", "device", "frames", "mask", "crop"]
    assert known_keys("voxle", known).startswith("the nearest known are voxel_mm, ")
    assert known_keys("y" * 100_000, known).count(",") == 2
    assert known_keys("voxle", known[:3]) == "known are spacing_mm, voxel_mm, depth_mm"
