"""TUS-REC files: the published layouts, the pose chain, the calibration."""

import shutil

import h5py
import numpy as np
import pytest
from hdf5_files import SPACING, calibration_csv, load, tus_rec_file

from DualTrackCore.errors import InputError
from DualTrackCore.io.hdf5_frames import Hdf5Frames


def test_relative_poses_of_tus_rec_follow_the_published_chain(tmp_path):
    """inv(R) inv(T_j) T_i R in millimetres from the first pixel, then to the centre by (73.28984642, 52.92463589)."""
    rigid = calibration_csv(tmp_path / "calib_matrix.csv")
    tool = tus_rec_file(tmp_path / "frames_transfs" / "000" / "a.h5")
    sweep = load(tmp_path / "frames_transfs" / "000" / "a.h5")
    centre = np.eye(4)
    centre[:2, 3] = 73.28984642, 52.92463589
    inverse = np.linalg.inv
    for i in range(3):
        top_left = inverse(rigid) @ inverse(tool[i]) @ tool[i + 1] @ rigid
        np.testing.assert_allclose(sweep.tracked.relative[i], inverse(centre) @ top_left @ centre, atol=1e-6)
    np.testing.assert_allclose(sweep.spacing_mm, SPACING, rtol=1e-12)
    np.testing.assert_allclose(sweep.image_from_pixel[:2, 3], [-73.28984642, -52.92463589], atol=1e-6)
    assert isinstance(sweep.frames, Hdf5Frames)
    assert sweep.window(2, 3)[0, 0, 0] == 2
    assert sweep.provenance["spacing_source"] == "calibration"
    assert sweep.provenance["calibration"] == "calib_matrix.csv"


def test_the_poses_of_a_validation_scan_are_found_beside_its_frames(tmp_path):
    calibration_csv(tmp_path / "calib_matrix.csv")
    poses = tus_rec_file(tmp_path / "frames" / "050" / "a.h5", size=(8, 6), with_poses=False)
    untracked = load(tmp_path / "frames" / "050" / "a.h5")
    assert untracked.tracked is None
    assert untracked.spacing_mm == pytest.approx(SPACING)
    sibling = tmp_path / "transfs" / "050" / "a.h5"
    sibling.parent.mkdir(parents=True)
    with h5py.File(sibling, "w") as file:
        file["tforms"] = poses
    assert len(load(tmp_path / "frames" / "050" / "a.h5").tracked) == 4
    with pytest.raises(InputError, match="open the file under frames"):
        load(sibling)
    with h5py.File(sibling, "w") as file:
        file["tforms"] = poses[:3]
    with pytest.raises(InputError, match=r"4 frames and transfs/a\.h5 3 poses"):
        load(tmp_path / "frames" / "050" / "a.h5")


def test_without_a_calibration_tus_rec_is_untracked_and_says_why(tmp_path):
    path = tmp_path / "1" / "2" / "3" / "4" / "a.h5"
    tus_rec_file(path, size=(8, 6))
    calibration_csv(tmp_path / "calib_matrix.csv")  # four folders above: too far
    sweep = load(path)
    assert sweep.tracked is None
    assert sweep.spacing_mm is None
    assert "calib_matrix.csv" in sweep.provenance["conversions"][0]
    assert load(path, spacing_mm=(0.2, 0.2)).spacing_mm == (0.2, 0.2)
    shutil.copy(tmp_path / "calib_matrix.csv", tmp_path / "1" / "calib_matrix.csv")
    assert load(path).tracked is not None


def test_a_given_calibration_serves_as_file_or_matrix(tmp_path):
    rigid = calibration_csv(tmp_path / "mine.csv")
    tus_rec_file(tmp_path / "a.h5", size=(8, 6))
    by_file = load(tmp_path / "a.h5", calibration=tmp_path / "mine.csv")
    by_matrix = load(tmp_path / "a.h5", calibration=rigid @ np.diag([*SPACING, 1, 1]))
    np.testing.assert_allclose(by_file.tracked.poses, by_matrix.tracked.poses, atol=1e-12)
    with pytest.raises(InputError, match="contradicts the calibration"):
        load(tmp_path / "a.h5", calibration=tmp_path / "mine.csv", spacing_mm=(0.3, 0.3))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 rows"),
        ("head\n1,0,0,0\n", "1 rows"),
        ("1,2,3\n", "not 4 finite numbers"),
        ("\n".join(["1,1,1,1"] * 8), "scale factors"),
        ("\n".join(["0.2,0,0,0", "0,0.2,0,0", "0,0,1,0", "0,0,0,1"] + ["1,1,1,1"] * 4), "rigid motion"),
        ("x" * (16 << 20) + "x", "more than 16 MiB"),
    ],
)
def test_a_damaged_tus_rec_calibration_is_refused(tmp_path, text, message):
    tus_rec_file(tmp_path / "a.h5", size=(8, 6))
    (tmp_path / "calib_matrix.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "a.h5")
    assert "calib_matrix.csv" in str(caught.value)
