"""Clips and results for the scene tests: simulated sweeps put into a scene as Slicer would have loaded them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import slicer
import vtk
from DualTrackSlicerLib.scene import SceneSweep, sweepFromBrowser
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from DualTrackCore.evaluation import evaluate
from DualTrackCore.reconstruction import plan_grid, reconstruct_volume
from DualTrackCore.research.simulation import simulated_sweep
from DualTrackCore.run.results import RunResult, run_report
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, matrices_from_parameters

#: As DICOM clips are loaded: I to the left, J to the posterior.
LPS = np.diag([-1.0, -1.0, 1.0])


def vtk_matrix(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    return result


def array_of(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def ijk_to_ras(spacing_mm: Sequence[float], directions: np.ndarray = LPS, origin: Sequence[float] = (0, 0, 0)):
    """[4, 4] of a one-slice volume with the given (I, J) spacing."""
    matrix = np.eye(4)
    matrix[:3, :3] = directions * np.array([*spacing_mm, 1.0])
    matrix[:3, 3] = origin
    return matrix


def volume_image(array: np.ndarray) -> vtk.vtkImageData:
    """vtkImageData of [K, J, I] or [K, J, I, channels]."""
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[2::-1])
    image.AllocateScalars(get_vtk_array_type(array.dtype), array.shape[3] if array.ndim == 4 else 1)
    vtk_to_numpy(image.GetPointData().GetScalars()).reshape(array.shape)[:] = array
    return image


def sequence_node(scene, name: str, unit: str = "") -> slicer.vtkMRMLSequenceNode:
    sequence = slicer.vtkMRMLSequenceNode()
    sequence.SetName(name)
    sequence.SetIndexName("time" if unit else "frame")
    sequence.SetIndexUnit(unit)
    return scene.AddNode(sequence)


def add_clip(scene, frames, ijkToRAS, *, name: str = "clip", rate_hz: float | None = None):
    """(browser, image sequence) of frames [N, H, W] or [N, H, W, channels].

    Args:
        ijkToRAS: [4, 4], or [N, 4, 4] for frames that are placed one by one.
        rate_hz: makes the index a time in s; otherwise it is the frame number.
    """
    sequence = sequence_node(scene, name, "s" if rate_hz else "")
    placed = np.broadcast_to(ijkToRAS, (len(frames), 4, 4))
    colour = np.ndim(frames[0]) == 3
    for number, (frame, matrix) in enumerate(zip(frames, placed, strict=True)):
        node = slicer.vtkMRMLVectorVolumeNode() if colour else slicer.vtkMRMLScalarVolumeNode()
        node.SetName(name)
        node.SetIJKToRASMatrix(vtk_matrix(matrix))
        sequence.SetDataNodeAtValue(node, f"{number / rate_hz:.6f}" if rate_hz else str(number))
        sequence.GetNthDataNode(number).SetAndObserveImageData(volume_image(np.asarray(frame)[None]))
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", f"{name} browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return browser, sequence


def add_transforms(scene, browser, images, matrices, *, name: str):
    """A transform sequence [N, 4, 4] in the browser, with the index values of the images; NaN leaves an item out."""
    sequence = sequence_node(scene, name, images.GetIndexUnit())
    for number, matrix in enumerate(matrices):
        if np.isfinite(matrix).all():
            node = slicer.vtkMRMLLinearTransformNode()
            node.SetName(name)
            node.SetMatrixTransformToParent(vtk_matrix(matrix))
            sequence.SetDataNodeAtValue(node, images.GetNthIndexValue(number))
    browser.AddSynchronizedSequenceNode(sequence)
    return sequence


def simulated(frames: int = 24, seed: int = 3) -> Sweep:
    """A small tracked sweep."""
    return simulated_sweep(seed, frames=frames, frame_size=(48, 64), spacing_mm=(0.5, 0.4), family="Per_S_PtD")


def add_simulated_clip(scene, sweep: Sweep, **options):
    """The frames of a sweep as a clip without tracking."""
    options.setdefault("rate_hz", 20.0)
    return add_clip(scene, sweep.frames[:], ijk_to_ras(sweep.spacing_mm, origin=(10, -20, 30)), **options)


def drifting(trajectory: Trajectory, step_mm: float = 0.02) -> Trajectory:
    """An estimate that goes a little further at every step than the truth."""
    motions = trajectory.parameters + np.array([step_mm, 0, step_mm, 0.01, 0, 0])
    return Trajectory.from_parameters(motions, {"model": "mini"})


def job_result(
    sweep: Sweep, trajectory: Trajectory, *, first: int = 0, last: int | None = None, volume: bool = True, voxel_mm=0.8
):
    """What a run with these poses gives: volume and errors made by the core, provenance as a worker writes it.

    Args:
        trajectory: of all frames of the sweep; those from `first` to `last`, both included, are taken.
    """
    stop = len(sweep) if last is None else last + 1
    part, poses = sweep.slice(first, stop), trajectory.slice(first, stop)
    reconstruction = None
    if volume:
        grid = plan_grid(part, poses, spacing_mm=voxel_mm)
        reconstruction = reconstruct_volume(part, poses, grid, interpolation="linear", hole_filling="stick")
    evaluated = part.tracked is not None and poses.estimated_by is not None
    source = {"model": "mini", "weights_sha256": "ab" * 32, "precision": "fp32", "chunk_frames": 16, "device": "cpu"}
    settings = RunSettings(first_frame=first, last_frame=last)
    report = run_report(settings, part, poses, reconstruction, evaluate(poses, part) if evaluated else None)
    report = replace(
        report,
        trajectory={**report.trajectory, "source": source},
        dualtrack_version="1.2.3",
        created="2026-05-04T03:02:01+00:00",
    )
    return RunResult(part, poses, reconstruction, report, {"total": 1.0})


def below_frame(volume, image) -> np.ndarray:
    """[rows, columns]: the voxels of a volume node where the pixels of an image node lie, through all transforms."""
    between = vtk.vtkMatrix4x4()
    parents = (node.GetParentTransformNode() for node in (image, volume))
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*parents, between)
    volume_from_ras, ras_from_image = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(volume_from_ras)
    image.GetIJKToRASMatrix(ras_from_image)
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(volume.GetImageData())
    ras_from_pixel = array_of(ras_from_image) * (*image.GetImageData().GetSpacing(), 1)
    reslice.SetResliceAxes(vtk_matrix(array_of(volume_from_ras) @ array_of(between) @ ras_from_pixel))
    columns, rows, _ = image.GetImageData().GetDimensions()
    reslice.SetOutputExtent(0, columns - 1, 0, rows - 1, 0, 0)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetInterpolationModeToLinear()
    reslice.Update()
    return vtk_to_numpy(reslice.GetOutput().GetPointData().GetScalars()).reshape(rows, columns)


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def random_rigid(random: np.random.Generator, count: int | None = None) -> np.ndarray:
    """Rigid motions of up to about 30 degrees and 50 mm."""
    shape = (6,) if count is None else (count, 6)
    return matrices_from_parameters(random.uniform(-1, 1, shape) * [50, 50, 50, 30, 30, 30])


def known_clip(scene, truth: Sweep) -> SceneSweep:
    """A simulated clip in the scene that knows the truth, without tracking among the nodes."""
    browser, _ = add_simulated_clip(scene, truth)
    read = sweepFromBrowser(browser)
    return replace(read, sweep=replace(read.sweep, tracked=truth.tracked))
