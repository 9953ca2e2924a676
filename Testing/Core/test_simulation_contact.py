"""The pressing, sliding probe: echoes move by the strain, the dragged skin lags behind, and the poses stay true."""

import numpy as np
import pytest

from DualTrackCore.research.simulation import Phantom, Probe, Renderer, acquired_sweep
from DualTrackCore.research.simulation.acquisition import Acquisition, Contact, View
from DualTrackCore.research.simulation.deformation import Deformation

SPACING, SIZE = (0.3, 0.1), (250, 100)
DEPTH_MM = np.arange(SIZE[0]) * SPACING[1]
#: The beam is the same at all depths, so that speckle keeps its shape where it moves to.
PROBE = Probe(noise_db=-300.0, lateral_widening=0.0, lens_height_mm=1.0, elevational_factor=0.2)
FACE_MM = np.array([0.0, -(SIZE[0] - 1) / 2 * SPACING[1], 0.0])


def straight(frames=60, step_mm=0.1) -> np.ndarray:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = step_mm * np.arange(frames)
    return poses


def renderer(contact=None, poses=None) -> Renderer:
    return Renderer(Phantom(3, 3, homogeneous=True), PROBE, SIZE, SPACING, contact=contact, poses=poses)


def deformation(contact, poses=None, seed=3) -> Deformation:
    return Deformation(contact, straight() if poses is None else poses, FACE_MM, 20.0, seed)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.mark.parametrize("depth_mm", [8.0, 16.0])
def test_compression_moves_echoes_towards_the_probe_by_strain_times_depth(depth_mm):
    contact, poses = Contact(compression=0.1), straight(200, 0.0)
    strain = deformation(contact, poses).strain
    index = int(strain.argmax())
    before = renderer().level_db(poses[0], 0)
    pressed = renderer(contact, poses).level_db(poses[0], index)
    row = round(depth_mm / SPACING[1])
    seen = pressed[row - 3 : row + 4]
    origins = np.arange(row - 10, row + 40)
    came_from = origins[np.argmax([likeness(seen, before[o - 3 : o + 4]) for o in origins])]
    expected = depth_mm * strain[index] / (1 - strain[index])
    assert (came_from - row) * SPACING[1] == pytest.approx(expected, abs=0.06)
    assert expected > 0.5


def test_compression_moves_the_anatomy_as_it_moves_the_speckle():
    contact, poses = Contact(compression=0.1), straight(200, 0.0)
    index = int(deformation(contact, poses, seed=5).strain.argmax())
    phantom = Phantom(5, 3, scale_mm=25)
    view = Renderer(phantom, PROBE, SIZE, SPACING)
    maps = poses[0], deformation(contact, poses, seed=5).compressed(poses[0], index)
    before, pressed = (view._tissue_level_db(pose) for pose in maps)
    origins = np.arange(150, 190)
    came_from = origins[np.argmax([likeness(pressed[130:170], before[o - 20 : o + 20]) for o in origins])]
    strain = deformation(contact, poses, seed=5).strain[index]
    assert (came_from - 150) * SPACING[1] == pytest.approx(15 * strain / (1 - strain), abs=0.3)


def test_strain_changes_slowly_between_none_and_the_given_one():
    strain = deformation(Contact(compression=0.05), straight(2000)).strain
    assert strain.min() == pytest.approx(0, abs=1e-4)
    assert strain.max() == pytest.approx(0.05, abs=1e-4)
    assert np.abs(np.diff(strain)).max() < 0.05 * np.pi * 0.2 / 20


@pytest.mark.parametrize("depth_mm", [0.5, 6.0])
def test_dragged_tissue_lags_behind_the_probe_by_a_part_that_falls_off_with_depth(depth_mm):
    contact, poses = Contact(drag_mm=1.0), straight()
    drag = deformation(contact, poses).drag_mm[:, 2]
    index = int(drag.argmax())
    row = round(depth_mm / SPACING[1])
    rows = slice(row - 4, row + 5)
    seen = renderer(contact, poses).level_db(poses[index], index)[rows]
    plain, lags = renderer(), np.arange(-1.2, 1.2, 0.02)

    def at(z: float) -> np.ndarray:
        pose = np.eye(4)
        pose[2, 3] = z
        return plain.level_db(pose, 0)[rows]

    lag = lags[np.argmax([likeness(seen, at(poses[index, 2, 3] - lag)) for lag in lags])]
    assert lag == pytest.approx(drag[index] * np.exp(-depth_mm / 8), abs=0.03)
    assert drag[index] > 0.45


def test_skin_sticks_up_to_the_limit_then_slides_back_and_rests_with_the_probe():
    poses = straight(400, 0.05)
    poses[200:300, 2, 3] = poses[200, 2, 3]
    for seed in range(5):
        drag = deformation(Contact(drag_mm=0.6), poses, seed).drag_mm
        size = np.linalg.norm(drag, axis=1)
        assert not drag[:, :2].any()
        assert 0.3 <= size.max() <= 0.6
        assert size[size.argmax() :].min() < 0.1
        assert np.diff(drag[1:10, 2]) == pytest.approx(np.full(8, drag[1, 2]))
        assert 0.4 <= drag[1, 2] / 0.05 <= 0.95
        assert not np.diff(drag[201:300], axis=0).any()


def test_the_tracked_path_of_a_pressing_probe_is_the_true_one_and_frames_do_not_depend_on_the_slicing():
    view = View(depth_mm=24, width_mm=24)
    free, pressed = (
        acquired_sweep(5, Acquisition(view=view, contact=contact), 6, 0.4, speckle_seed=3)
        for contact in (Contact(), Contact(compression=0.05, drag_mm=1.0))
    )
    assert np.array_equal(free.tracked.poses, pressed.tracked.poses)
    assert not np.array_equal(free.frames[3], pressed.frames[3])
    assert np.array_equal(pressed.frames[2:5][1], pressed.frames[3])
