"""A result comes into the scene in small pieces; the volume is not read, whatever its size."""

import gc
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
from clip_nodes import drifting, job_result, known_clip, simulated
from DualTrackSlicerLib.scene import path_in_pieces, reportOf, shownResult, showResults, tables, wiring
from DualTrackSlicerLib.scene.results import showInPieces

from DualTrackCore.errors import InputError
from DualTrackCore.reconstruction import Reconstruction, VoxelGrid

TRUTH = simulated(100)
ESTIMATE = drifting(TRUTH.tracked)


def test_every_piece_makes_few_transforms_and_columns_and_the_last_one_alone_changes_the_scene(scene, monkeypatch):
    work, clip = [], known_clip(scene, TRUTH)
    for module, name in ((wiring, "to_vtk"), (tables, "_array"), (np, "quantile")):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, f=function, n=name, **k: (work.append(n), f(*a, **k))[1])
    before, nodes = scene.GetNumberOfNodes(), None
    pieces, counts = showInPieces(scene, clip, job_result(clip.sweep, ESTIMATE, voxel_mm=2)), []
    while nodes is None:
        assert scene.GetNumberOfNodes() == before
        work.clear()
        try:
            next(pieces)
        except StopIteration as end:
            nodes = end.value
        else:
            counts.append({name: work.count(name) for name in set(work)})
    assert max(count.get("to_vtk", 0) for count in counts) == wiring.PIECE
    assert sum(count.get("to_vtk", 0) for count in counts) == 100
    assert {count["_array"] for count in counts if "_array" in count} == {1}
    assert {count["quantile"] for count in counts if "quantile" in count} == {1}
    assert len(counts) > 100 / wiring.PIECE + 18
    assert shownResult(clip.browser).transform_sequence is nodes.transform_sequence
    assert nodes.transform_sequence.GetNumberOfDataNodes() == nodes.pose_table.GetNumberOfRows() == 100


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Which pages a process has read stands in /proc.")
def test_no_voxel_is_read_or_copied_when_a_volume_comes_into_the_scene(scene, tmp_path):
    clip, shape = known_clip(scene, TRUTH), (160, 240, 320)
    arrays = []
    for name, kind in (("volume", np.uint8), ("coverage", np.float32), ("filled", np.bool_)):
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", kind, shape).flush()
        arrays.append(np.asarray(np.load(tmp_path / f"{name}.npy", mmap_mode="c")))
    grid = VoxelGrid(np.zeros(3), (0.4, 0.4, 0.5), shape[::-1], np.eye(3))
    result = replace(
        job_result(clip.sweep, ESTIMATE, volume=False), reconstruction=Reconstruction(*arrays, grid, 100, 0, {})
    )
    nodes = showResults(scene, clip, result)
    pages = {name: kilobytes_read(tmp_path / f"{name}.npy") for name in ("volume", "coverage")}
    assert all(size < 0.02 * np.prod(shape) / 1024 for size in pages.values()), pages
    arrays[0][3, 2, 1] = 77
    assert slicer.util.arrayFromVolume(nodes.volume)[3, 2, 1] == 77  # the same memory
    assert nodes.volume.GetDisplayNode().GetWindowLevelMax() == 255
    assert not nodes.volume.GetDisplayNode().GetAutoWindowLevel()
    del result, arrays
    gc.collect()
    assert slicer.util.arrayFromVolume(nodes.volume)[3, 2, 1] == 77  # the nodes keep it


def kilobytes_read(path: Path) -> int:
    """How much of a mapped file this process has read."""
    parts = Path("/proc/self/smaps").read_text().split(str(path))[1:]
    assert parts
    return sum(int(part.split("Rss:")[1].split()[0]) for part in parts)


def test_a_clip_that_changes_meanwhile_gets_no_result(scene):
    clip = known_clip(scene, TRUTH)
    pieces = showInPieces(scene, clip, job_result(clip.sweep, ESTIMATE, volume=False))
    next(pieces)
    clip.image_sequence.RemoveDataNodeAtValue(clip.image_sequence.GetNthIndexValue(5))
    before = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="has 99 frames now and had 100"):
        list(pieces)
    assert scene.GetNumberOfNodes() == before
    assert shownResult(clip.browser) is None


def test_the_path_of_a_result_is_read_in_pieces_of_a_column(scene):
    clip = known_clip(scene, TRUTH)
    nodes = showResults(scene, clip, job_result(clip.sweep, ESTIMATE, volume=False))
    pieces, count, path = path_in_pieces(nodes, reportOf(nodes)), 0, None
    while path is None:
        try:
            next(pieces)
        except StopIteration as end:
            path = end.value
        else:
            count += 1
    assert count == len(tables.MATRIX_COLUMNS) + 1
    np.testing.assert_array_equal(path.poses, ESTIMATE.poses)
