"""Files that are written lie on each other in Slicer, and files of others lie for us where they lie in Slicer."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clip_nodes import random_rigid, simulated
from DualTrackSlicerLib.scene.input import sweepFromBrowser
from slicer_files import (
    agreement,
    image_node_of_metafile,
    matrix_of,
    pixels_of,
    put_below,
    ras_from_pixel,
    read_image_sequence,
    read_transforms,
    read_volume,
)

from DualTrackCore import Trajectory, load_sweep, save_sweep
from DualTrackCore.cli import main
from DualTrackCore.io import read_calibration
from DualTrackCore.path_error import trust_line
from DualTrackCore.run import RunSettings, run
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import RAS_FROM_LPS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "Core"))

from sequence_files import config, metafile, text
from shared_files import shared_path

#: Frames that are compared: the first, one in between, the last.
FRAMES = (0, 11, 23)


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    """A simulated sweep with poses in frame0 alone."""
    made = simulated()
    return replace(made, frames=made.window(0, len(made)), tracked=replace(made.tracked, reference_from_frame0=None))


@pytest.fixture(scope="module")
def results(sweep, tmp_path_factory) -> Path:
    """What a run of the sweep with its own poses writes, and the sweep in the other formats."""
    folder = tmp_path_factory.mktemp("results")
    settings = RunSettings(poses="tracked", voxel_mm=0.4, pictures=False, slicer=True)
    run(sweep, settings).write(folder)
    for name in ("sweep.igs.nrrd", "sweep.seq.nrrd", "sweep.mrb"):
        save_sweep(sweep, folder / name)
    return folder


@pytest.fixture
def volumes(scene, results):
    return read_volume(scene, results / "volume.nrrd"), read_volume(scene, results / "coverage.nrrd")


def nrrd_transform(sequence, name: str, frame: int) -> np.ndarray:
    """Slicer keeps the fields of an .nrrd as attributes; SlicerIGSIO makes transforms of them."""
    return np.array(sequence.GetAttribute(f"Seq_Frame{frame:04d}_{name}Transform").split(), float).reshape(4, 4)


@pytest.mark.parametrize("frame", FRAMES)
def test_frames_of_igs_mha_lie_on_the_volume_in_slicerigsio(scene, results, volumes, tmp_path, frame):
    image = image_node_of_metafile(scene, results / "sweep.igs.mha", frame)
    (transforms,) = read_transforms(scene, results / "sweep.igs.mha", tmp_path).values()
    put_below(image, transforms[frame])
    assert agreement(*volumes, image) > 0.95


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize(
    ("name", "transform"), [("sweep.igs.nrrd", "ImageToReference"), ("sweep.seq.nrrd", "PlacedImageToReference")]
)
def test_frames_of_nrrd_lie_on_the_volume_in_slicerigsio(scene, results, volumes, name, transform, frame):
    sequence = read_image_sequence(scene, results / name)
    image = scene.AddNode(sequence.GetNthDataNode(frame))
    put_below(image, nrrd_transform(sequence, transform, frame))
    assert agreement(*volumes, image) > 0.95


def test_the_first_frame_of_seq_nrrd_lies_on_the_volume_in_slicer_alone(scene, results, volumes):
    image = scene.AddNode(read_image_sequence(scene, results / "sweep.seq.nrrd").GetNthDataNode(0))
    assert agreement(*volumes, image) > 0.95


def opened(scene, path: Path):
    """(browser, image node, transform node) of a bundle."""
    assert scene.ReadFromMRB(str(path), False)
    browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    image = browser.GetProxyNode(browser.GetMasterSequenceNode())
    return browser, image, image.GetParentTransformNode()


def test_slicer_opens_the_bundle_with_moving_image_and_volume_together(scene, results, volumes, sweep):
    browser, image, transform = opened(scene, results / "scene.mrb")
    np.testing.assert_array_equal(pixels_of(image.GetImageData()), sweep.frames[0])  # before anything is played
    assert agreement(*volumes, image) > 0.95
    volume = scene.GetFirstNodeByName("scene volume")
    assert browser.GetNumberOfItems() == len(sweep)
    assert browser.GetPlaybackRateFps() == pytest.approx(sweep.frame_rate_hz)
    assert scene.GetNodeByID("vtkMRMLSliceCompositeNodeRed").GetBackgroundVolumeID() == volume.GetID()
    for frame in FRAMES:
        browser.SetSelectedItemNumber(frame)
        np.testing.assert_array_equal(pixels_of(image.GetImageData()), sweep.frames[frame])
        moved = matrix_of(transform)
        np.testing.assert_allclose(moved, RAS_FROM_LPS @ sweep.tracked.poses[frame] @ RAS_FROM_LPS, atol=1e-14)
        assert agreement(volume, volumes[1], image) > 0.95


def test_a_bundle_of_a_sweep_alone_moves_its_image_and_survives_saving_in_slicer(scene, results, sweep, tmp_path):
    browser, _, _ = opened(scene, results / "sweep.mrb")
    assert scene.WriteToMRB(str(tmp_path / "again.mrb"), None)
    scene.Clear(False)
    browser, image, _ = opened(scene, tmp_path / "again.mrb")
    browser.SetSelectedItemNumber(11)
    there = RAS_FROM_LPS @ sweep.tracked.poses[11] @ sweep.image_from_pixel
    np.testing.assert_allclose(ras_from_pixel(image), there, atol=1e-3)


def test_bundles_of_two_sweeps_open_one_after_the_other_in_a_scene_with_sequences(scene, sweep, results, tmp_path):
    """Slicer gives new IDs to nodes whose IDs are taken; until then a browser takes what has the IDs that it names."""
    read_transforms(scene, results / "sweep.igs.mha", tmp_path)
    browsers = []
    for shift, name in enumerate(("one", "two")):
        poses, frames = (np.roll(array, shift, axis=0) for array in (sweep.tracked.poses, sweep.frames))
        save_sweep(replace(sweep, frames=frames), tmp_path / f"{name}.mrb", trajectory=Trajectory(poses))
        assert scene.ReadFromMRB(str(tmp_path / f"{name}.mrb"), False)
        browsers.append(scene.GetFirstNodeByName(f"{name} browser"))
    for shift, browser in enumerate(browsers):
        browser.SetSelectedItemNumber(11 + shift)
        image = browser.GetProxyNode(browser.GetMasterSequenceNode())
        np.testing.assert_array_equal(pixels_of(image.GetImageData()), sweep.frames[11])
        there = RAS_FROM_LPS @ sweep.tracked.poses[11] @ sweep.image_from_pixel
        np.testing.assert_allclose(ras_from_pixel(image), there, atol=1e-12)


def test_the_panel_takes_the_frames_of_a_bundle_with_the_origin_of_their_poses(scene, sweep, tmp_path):
    estimated = Trajectory(sweep.tracked.poses, provenance={"model": "mini", "warnings": ["One: 5 %; two %3B & %25."]})
    save_sweep(sweep, tmp_path / "a.mrb", trajectory=estimated)
    browser, image, transform = opened(scene, tmp_path / "a.mrb")
    for node in (browser.GetMasterSequenceNode(), image, transform):
        assert node.GetAttribute("DualTrackPosesTrust") == trust_line(estimated)
        assert node.GetAttribute("DualTrackPosesWarnings") == "One: 5 %; two %3B & %25."
    taken = sweepFromBrowser(browser).sweep
    assert taken.spacing_mm == pytest.approx(sweep.spacing_mm)
    assert taken.tracked.origin == "estimated"
    assert taken.truth is None
    np.testing.assert_allclose(taken.tracked.poses, sweep.tracked.poses, atol=1e-9)


def test_an_image_in_slicer_stands_upright_with_its_right_on_the_patients_left(scene, results):
    image = scene.AddNode(read_image_sequence(scene, results / "sweep.seq.nrrd").GetNthDataNode(0))
    across, down = ras_from_pixel(image)[:3, :2].T
    assert (across / np.linalg.norm(across)).tolist() == [-1, 0, 0]
    assert (down / np.linalg.norm(down)).tolist() == [0, -1, 0]


@pytest.fixture(scope="module")
def plus(sweep, tmp_path_factory):
    """(file, calibration) as PLUS records: poses of probe and reference in the tracker, pixels on the probe apart."""
    random, fields = np.random.default_rng(8), []
    probe_from_image, reference_from_frame0 = random_rigid(random), random_rigid(random)
    tracker_from_reference = random_rigid(random, len(sweep))
    for frame, (moved, pose) in enumerate(zip(tracker_from_reference, sweep.tracked.poses, strict=True)):
        probe = moved @ reference_from_frame0 @ pose @ np.linalg.inv(probe_from_image)
        for name, matrix in (("ProbeToTracker", probe), ("ReferenceToTracker", moved)):
            prefix = f"Seq_Frame{frame:04d}_{name}Transform"
            fields += [(prefix, text(matrix)), (f"{prefix}Status", "OK")]
        fields.append((f"Seq_Frame{frame:04d}_Timestamp", f"{frame / 20:.3f}"))
    path = tmp_path_factory.mktemp("plus") / "plus.igs.mha"
    height, width = sweep.frame_size
    metafile(path, sweep.frames, fields, DimSize=f"{width} {height} {len(sweep)}")
    calibration = probe_from_image @ sweep.image_from_pixel
    np.savetxt(path.with_name("calibration.txt"), calibration)
    return path, calibration


def put_as_plus(image, transforms, calibration, frame: int) -> None:
    """Image below probe below tracker below reference, by Slicer's transform nodes."""
    to_reference = np.linalg.inv(transforms["ReferenceToTracker"][frame])
    put_below(image, calibration, transforms["ProbeToTracker"][frame], to_reference)


def test_a_file_of_plus_lies_for_us_where_it_lies_in_slicer(scene, plus, tmp_path):
    path, calibration = plus
    sweep, transforms = load_sweep(path, calibration=calibration), read_transforms(scene, path, tmp_path)
    for frame in FRAMES:
        image = image_node_of_metafile(scene, path, frame)
        put_as_plus(image, transforms, calibration, frame)
        ours = sweep.tracked.ras_from_frame0 @ sweep.tracked.poses[frame] @ sweep.image_from_pixel
        np.testing.assert_allclose(ours[:, (0, 1, 3)], ras_from_pixel(image)[:, (0, 1, 3)], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        ("SpinePhantomFreehand", "SpinePhantomFreehandReconstructionOnly"),
        ("fCal_Test_Validation_3NWires_fCal2.0", "fCal_Sim_VolumeReconstruction"),
    ],
)
def test_a_recording_of_plus_lies_for_us_where_it_lies_in_slicer(scene, tmp_path, name, configuration):
    path, calibration = shared_path(f"data/seq/{name}.igs.mha"), read_calibration(config(configuration))
    sweep, transforms = load_sweep(path, calibration=calibration), read_transforms(scene, path, tmp_path)
    for frame in np.flatnonzero(sweep.tracked.valid)[[0, len(sweep) // 2, -1]]:
        image = image_node_of_metafile(scene, path, frame)
        put_as_plus(image, transforms, calibration, frame)
        ours = sweep.tracked.ras_from_frame0 @ sweep.tracked.poses[frame] @ sweep.image_from_pixel
        np.testing.assert_allclose(ours[:, (0, 1, 3)], ras_from_pixel(image)[:, (0, 1, 3)], atol=1e-3)


@pytest.mark.parametrize("frame", ["frame0", "reference"])
def test_what_is_written_of_a_tracked_sweep_lies_together_in_either_frame(scene, plus, tmp_path, frame):
    path, calibration = plus
    words = ["reconstruct", path, "--calibration", path.with_name("calibration.txt"), "--frame", frame, "--voxel", 0.4]
    assert main([*map(str, words), "--no-pictures", "--slicer", "-o", str(tmp_path / "out")]) == 0
    volumes = [read_volume(scene, tmp_path / "out" / f"{name}.nrrd") for name in ("volume", "coverage")]
    sweep_file = tmp_path / "out" / "sweep.igs.mha"
    recorded, (written,) = read_transforms(scene, path, tmp_path), read_transforms(scene, sweep_file, tmp_path).values()
    browser, moving, _ = opened(scene, tmp_path / "out" / "scene.mrb")
    for number in FRAMES:
        image = image_node_of_metafile(scene, sweep_file, number)
        put_below(image, written[number])
        assert agreement(*volumes, image) > 0.95
        browser.SetSelectedItemNumber(number)
        assert agreement(*volumes, moving) > 0.95
        image = image_node_of_metafile(scene, path, number)
        put_as_plus(image, recorded, calibration, number)
        assert (agreement(*volumes, image) > 0.95) == (frame == "reference")  # where the recording itself lies
