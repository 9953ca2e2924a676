"""Calibrations: every way to give one, and the split into pixel size, skew and pose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sequence_files import pose, text
from shared_files import shared_path

from DualTrackCore import Sweep
from DualTrackCore.errors import InputError
from DualTrackCore.io import read_calibration, split_affine

MATRIX = pose(10, -5, 3, 20, 30, 40) @ np.diag([0.08, 0.07, 0.075, 1.0])

NESTED = """<?xml version="1.0"?>
<PlusConfiguration version="2.1"><DataCollection><Deeper>
  <Transform From="Probe" To="Reference" Matrix="1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"/>
  <Transform From="Image" To="Probe" Matrix="
     {0}
  " Error="1.2" Date="x"/></Deeper></DataCollection></PlusConfiguration>"""


def written(tmp_path, content):
    path = tmp_path / "calibration.txt"
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "spacing_mm", "skew_deg"),
    [
        ("SpinePhantomFreehandReconstructionOnly", (0.0854, 0.0790), -2.74),
        ("NwirePhantomFreehand_vtkVolumeReconstructorTest2", (0.0781, 0.0744), 0.905),
        ("fCal_Sim_VolumeReconstruction", (0.0803, 0.0745), -0.335),
    ],
)
def test_plus_configurations_are_read(name, spacing_mm, skew_deg):
    matrix = read_calibration(shared_path(f"data/config/PlusDeviceSet_{name}.xml"))
    split = split_affine(matrix, (616, 820))
    assert split.spacing_mm == pytest.approx(spacing_mm, abs=1e-4)
    assert split.skew_deg == pytest.approx(skew_deg, abs=0.01)


@pytest.mark.parametrize(
    "content",
    [
        text(MATRIX),
        "# probe from pixel\n" + "\n".join(", ".join(f"{v:.17g}" for v in row) for row in MATRIX) + "  # end\n",
        "[" + ";\n ".join(" ".join(f"{v:.17g}" for v in row) for row in MATRIX) + "]",
        "\ufeff[[" + "],\n [".join(",".join(f"{v:.17e}" for v in row) for row in MATRIX) + "]]",
        NESTED.format(text(MATRIX)),
    ],
    ids=["blanks", "commas", "brackets", "numpy", "nested xml"],
)
def test_a_matrix_is_read_however_it_is_laid_out(tmp_path, content):
    np.testing.assert_array_equal(read_calibration(written(tmp_path, content)), MATRIX)


def test_an_array_is_taken_as_it_is_and_not_shared():
    given_matrix = MATRIX.copy()
    result = read_calibration(given_matrix)
    given_matrix[0, 0] = 99
    np.testing.assert_array_equal(result, MATRIX)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "0 numbers"),
        ("1 2 3", "3 numbers"),
        (text(MATRIX) + " 5", "17 numbers"),
        ("a " * 16, "not numbers"),
        ("nan " + text(MATRIX).split(" ", 1)[1], "not finite"),
        (text(MATRIX.T), "last row"),
        (text(np.diag([0.0, 0.1, 0.1, 1])), "image plane"),
        (text(MATRIX @ np.array([[1, 1, 0, 0], [0, 1e-3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])), "image plane"),
        (text(np.diag([50.0, 50, 50, 1])), "10 mm"),
        ("<PlusConfiguration>", "well-formed"),
        (NESTED.format(text(MATRIX)).replace('From="Image"', 'From="Stylus"'), "Stylus to Probe"),
        (NESTED.format("1 2 3"), "3 numbers"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a/>', "document type"),
        (
            "<a>"
            + "".join(f'<Transform From="Image" To="Probe" Matrix="{m}"/>' for m in ("1 " * 16, "2 " * 16))
            + "</a>",
            "different",
        ),
    ],
)
def test_a_file_that_holds_no_calibration_is_refused_with_its_name(tmp_path, content, said):
    with pytest.raises(InputError, match=said) as caught:
        read_calibration(written(tmp_path, content))
    assert "calibration.txt" in str(caught.value)


def test_binary_absent_and_odd_sources_are_refused(tmp_path):
    (tmp_path / "b").write_bytes(b"\x00\xff\xfe" * 9)
    for source in (tmp_path / "b", tmp_path / "absent", tmp_path, np.eye(3), [["a"]], np.full((4, 4), np.nan)):
        with pytest.raises(InputError):
            read_calibration(source)


@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    spacing_mm=st.tuples(*[st.floats(0.01, 5)] * 2),
    skew_deg=st.floats(-30, 30),
    size=st.tuples(st.integers(1, 900), st.integers(1, 900)),
)
def test_the_split_puts_every_pixel_where_the_affine_map_does(angles, origin, spacing_mm, skew_deg, size):
    skew = np.eye(4)
    skew[:2, 1] = np.sin(np.deg2rad(skew_deg)), np.cos(np.deg2rad(skew_deg))
    affine = pose(*origin, *angles) @ skew @ np.diag([*spacing_mm, 0.3, 1])
    split = split_affine(affine, size)
    assert split.spacing_mm == pytest.approx(spacing_mm, rel=1e-9)
    assert split.skew_deg == pytest.approx(skew_deg, abs=1e-6)
    sweep = Sweep(np.zeros((1, *size), np.uint8), split.spacing_mm, skew_deg=float(split.skew_deg))
    again = split.x_from_image @ sweep.image_from_pixel
    np.testing.assert_allclose(again[:, (0, 1, 3)], affine[:, (0, 1, 3)], atol=1e-9)
    rotation = split.x_from_image[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) > 0


def test_the_split_takes_many_maps_at_once():
    maps = np.stack([MATRIX, pose(1, 2, 3) @ MATRIX])
    split = split_affine(maps, (6, 8))
    for i in range(2):
        one = split_affine(maps[i], (6, 8))
        np.testing.assert_array_equal(split.x_from_image[i], one.x_from_image)
        np.testing.assert_array_equal(split.spacing_mm[i], one.spacing_mm)
