"""How sure the motions are goes into every file that holds poses, and comes back as it was."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import h5py
import numpy as np
import pytest
from oracle import noise_sweep

from DualTrackCore.cli import main
from DualTrackCore.errors import InputError
from DualTrackCore.io import load_sweep, read_trajectory_csv, save_sweep, write_trajectory_csv
from DualTrackCore.path_error import path_error
from DualTrackCore.trajectory import STEP_ERROR_CORRELATION, Trajectory
from DualTrackCore.uncertainty import STEP_ERROR_FREEDOM, freedom_in

CORRELATION = [0.1, 0.0, 1 / 3, 1.0, 0.5, 0.25]
SUFFIXES = [".igs.mha", ".igs.nrrd", ".seq.nrrd", ".nrrd", ".h5"]


def estimate(frames=6, **changes):
    rng = np.random.default_rng(3)
    motions, sigma = rng.normal(0, 0.3, (frames - 1, 6)), rng.uniform(0, 0.1, (frames - 1, 6))
    sigma[2] = np.nan
    source = {"model": "toy", "model_simulated_only": False, STEP_ERROR_CORRELATION: CORRELATION}
    return replace(Trajectory.from_parameters(motions, source, sigma=sigma), **changes)


def written(tmp_path, trajectory, suffix):
    if suffix == ".csv":
        write_trajectory_csv(trajectory, tmp_path / "a.csv")
        return read_trajectory_csv(tmp_path / "a.csv")
    save_sweep(noise_sweep(len(trajectory)), tmp_path / f"a{suffix}", trajectory=trajectory)
    return load_sweep(tmp_path / f"a{suffix}").tracked


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_errors_of_motions_and_what_they_have_in_common_come_back_to_the_last_bit(tmp_path, suffix):
    again = written(tmp_path, estimate(), suffix)
    np.testing.assert_array_equal(again.sigma, estimate().sigma)
    assert again.step_error_correlation.tolist() == CORRELATION
    assert freedom_in(again.provenance) is None
    assert path_error(again).rule_percent is None
    np.testing.assert_allclose(path_error(again).length_mm, path_error(estimate()).length_mm)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_how_far_errors_scatter_comes_back_and_with_it_the_bands(tmp_path, suffix):
    said = replace(estimate(), provenance={**estimate().provenance, STEP_ERROR_FREEDOM: 10 / 3})
    again = written(tmp_path, said, suffix)
    assert freedom_in(again.provenance) == 10 / 3
    assert path_error(again).times_95 == path_error(said).times_95 != path_error(estimate()).times_95


@pytest.mark.parametrize("damaged", ["2", "-1", "nan", "three", ""])
def test_freedom_that_means_nothing_is_left_out(tmp_path, damaged):
    write_trajectory_csv(
        replace(estimate(), provenance={**estimate().provenance, STEP_ERROR_FREEDOM: 12345.0}), tmp_path / "a.csv"
    )
    text = (tmp_path / "a.csv").read_text()
    assert "12345" in text
    (tmp_path / "b.csv").write_text(text.replace("12345", damaged))
    assert freedom_in(read_trajectory_csv(tmp_path / "b.csv").provenance) is None


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_the_rule_of_thumb_comes_back_as_a_rule_with_its_percentage(tmp_path, suffix):
    again = written(tmp_path, estimate(sigma=None), suffix)
    assert again.sigma is None
    assert path_error(again).rule_percent == 20
    assert "rule of thumb" in path_error(again).text


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".csv"])
def test_measured_poses_and_older_files_come_back_without_any_error(tmp_path, suffix):
    measured = Trajectory(estimate().poses, origin="measured")
    again = written(tmp_path, measured, suffix)
    assert again.sigma is None
    assert path_error(again) is None
    (file,) = tmp_path.glob("a.*")
    content = file.read_bytes()
    assert not any(word in content for word in (b"igma", b"RuleOfThumb", b"by_rule", b"orrelation"))


def test_a_part_of_a_file_has_the_errors_of_its_own_motions(tmp_path):
    save_sweep(noise_sweep(6), tmp_path / "a.igs.mha", trajectory=estimate())
    part = load_sweep(tmp_path / "a.igs.mha").slice(3, 6)
    np.testing.assert_array_equal(part.tracked.sigma, estimate().sigma[3:])


def test_the_poses_in_a_scene_bundle_say_how_sure_they_are(tmp_path):
    save_sweep(noise_sweep(6), tmp_path / "a.mrb", trajectory=estimate())
    with zipfile.ZipFile(tmp_path / "a.mrb") as bundle:
        (name,) = [name for name in bundle.namelist() if name.endswith("poses.seq.mha")]
        text = bundle.read(name).decode("latin1")
    last = [line for line in text.splitlines() if line.startswith("Seq_Frame0005_DualTrackMotionSigma")]
    assert [float(word) for word in last[0].split("=")[1].split()] == estimate().sigma[-1].tolist()


@pytest.mark.parametrize("damage", [b"-1 ", b"inf ", b"nan "])
def test_numbers_in_a_file_that_are_no_errors_are_left_out_and_said(tmp_path, damage):
    save_sweep(noise_sweep(6), tmp_path / "a.igs.mha", trajectory=estimate())
    content = (tmp_path / "a.igs.mha").read_bytes()
    key = b"Seq_Frame0001_DualTrackMotionSigma = "
    start = content.index(key) + len(key)
    (tmp_path / "a.igs.mha").write_bytes(content[:start] + damage + content[content.index(b" ", start) + 1 :])
    sweep = load_sweep(tmp_path / "a.igs.mha")
    assert sweep.tracked.sigma is None
    assert any("errors of the motions in the file are left out" in note for note in sweep.provenance["conversions"])


def test_a_shorter_list_of_errors_is_left_out_and_said(tmp_path):
    save_sweep(noise_sweep(6), tmp_path / "a.h5", trajectory=estimate())
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["tracking_sigma"]
        file["tracking_sigma"] = np.ones((3, 6))
    sweep = load_sweep(tmp_path / "a.h5")
    assert sweep.tracked.sigma is None
    assert any("left out" in note for note in sweep.provenance["conversions"])


def test_shares_that_are_none_count_as_not_measured(tmp_path):
    save_sweep(noise_sweep(6), tmp_path / "a.igs.mha", trajectory=estimate())
    content = (tmp_path / "a.igs.mha").read_bytes()
    key = b"DualTrackPosesStepErrorCorrelation = 0.1"
    for words in (b"-0.5", b"1.5", b"many", b"0.1 0.1"):
        wrong = key.replace(b"0.1", words)
        (tmp_path / "b.igs.mha").write_bytes(
            content.replace(key, wrong, 1).replace(key[:-3] + b"0.10000000000000001", wrong)
        )
        np.testing.assert_array_equal(load_sweep(tmp_path / "b.igs.mha").tracked.step_error_correlation, np.ones(6))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("sigma_tx_mm", "sigma_tx", "first line"), (",0.029999999999999999", ",-0.03", "not negative")],
)
def test_a_table_with_errors_that_are_none_is_refused_with_its_name(tmp_path, old, new, said):
    write_trajectory_csv(estimate(sigma=np.full((5, 6), 0.03)), tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text()
    assert old in text
    (tmp_path / "a.csv").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=said) as caught:
        read_trajectory_csv(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value)


def test_info_tells_how_sure_the_poses_of_a_file_are(tmp_path, capsys):
    save_sweep(noise_sweep(6), tmp_path / "a.igs.mha", trajectory=estimate(sigma=None))
    assert main(["info", str(tmp_path / "a.igs.mha")]) == 0
    error = path_error(estimate(sigma=None))
    assert f"{error.text}, estimated by toy" in capsys.readouterr().out
