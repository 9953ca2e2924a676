"""DualTrack and TUS-REC sweeps in HDF5."""

import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hdf5_files import SPACING, dualtrack_file, load, random_poses
from hypothesis import given, settings
from hypothesis import strategies as st

from DualTrackCore.errors import Cancelled, InputError, OutputError
from DualTrackCore.io import hdf5, hdf5_frames, save_sweep
from DualTrackCore.progress import Reporter
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory, invert_rigid


def test_a_dualtrack_file_is_read_as_it_is(tmp_path):
    data = dualtrack_file(tmp_path / "a.h5", timestamps=np.arange(6) / 20)
    sweep = load(tmp_path / "a.h5")
    np.testing.assert_array_equal(sweep.window(0, 6), data["images"])
    assert sweep.spacing_mm == SPACING
    assert sweep.frame_rate_hz == pytest.approx(20)
    world = sweep.tracked.reference_from_frame0 @ sweep.tracked.poses
    np.testing.assert_allclose(world, data["tracking"], atol=1e-12)
    assert sweep.provenance["spacing_source"] == "file"
    assert sweep.provenance["source"] == "a.h5"


def test_hdf5_is_recognised_by_content(tmp_path):
    dualtrack_file(tmp_path / "a.bin")
    assert hdf5.recognises(tmp_path / "a.bin", (tmp_path / "a.bin").read_bytes()[:4096])
    assert not hdf5.recognises(tmp_path / "a.h5", b"not HDF5 at all")
    assert not hdf5.recognises(tmp_path, b"")


@settings(max_examples=15)
@given(
    count=st.integers(1, 40),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 1000),
    known=st.booleans(),
)
def test_what_is_written_is_read_back(tmp_path_factory, count, size, seed, known):
    rng = np.random.default_rng(seed)
    valid = rng.random(count) < 0.7
    sweep = Sweep(
        rng.integers(0, 256, (count, *size), dtype=np.uint8),
        (0.3, 0.2) if known else None,
        np.sort(rng.random(count)) if known else None,
        rng.random(count) < 0.8,
        Trajectory.from_reference(random_poses(count, seed), valid) if known else None,
        skew_deg=0.5 if known else 0.0,
    )
    path = tmp_path_factory.mktemp("round") / "a.h5"
    save_sweep(sweep, path)
    back = load(path)
    np.testing.assert_array_equal(back.window(0, count), sweep.frames)
    np.testing.assert_array_equal(back.frame_valid, sweep.frame_valid)
    assert back.spacing_mm == sweep.spacing_mm
    assert back.skew_deg == pytest.approx(sweep.skew_deg, abs=1e-9)
    if known:
        np.testing.assert_array_equal(back.timestamps_s, sweep.timestamps_s)
        np.testing.assert_array_equal(back.tracked.valid, valid)
        np.testing.assert_allclose(back.tracked.poses[valid], sweep.tracked.poses[valid], atol=1e-10)
    else:
        assert back.timestamps_s is None
        assert back.tracked is None


def test_a_given_trajectory_is_written_in_place_of_the_tracked_one(tmp_path):
    dualtrack_file(tmp_path / "a.h5")
    estimate = Trajectory.from_parameters(np.ones((5, 6)))
    hdf5.write(load(tmp_path / "a.h5"), tmp_path / "b.h5", estimate, Reporter())
    np.testing.assert_allclose(load(tmp_path / "b.h5").tracked.poses, estimate.poses, atol=1e-12)
    with pytest.raises(InputError, match="6 frames and the trajectory 3"):
        save_sweep(load(tmp_path / "a.h5"), tmp_path / "c.h5", trajectory=estimate.slice(0, 3))


def test_a_cancelled_or_failed_write_leaves_what_was_there(tmp_path):
    dualtrack_file(tmp_path / "a.h5")
    sweep, target = load(tmp_path / "a.h5"), tmp_path / "out" / "b.h5"
    target.parent.mkdir()
    target.write_bytes(b"before")
    with pytest.raises(Cancelled):
        hdf5.write(sweep, target, None, Reporter(cancelled=lambda: True))
    assert [p.name for p in target.parent.iterdir()] == ["b.h5"]
    assert target.read_bytes() == b"before"
    with pytest.raises(OutputError, match="Cannot write"):
        hdf5.write(sweep, tmp_path / "a.h5" / "below-a-file.h5", None, Reporter())


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from DualTrackCore.errors import OutputError
from DualTrackCore.io import hdf5
from DualTrackCore.progress import Reporter
from DualTrackCore.sweep import Sweep

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
frames = np.random.default_rng(0).integers(0, 256, (40, 100, 100), dtype=np.uint8)
try:
    hdf5.write(Sweep(frames), Path(sys.argv[1]), None, Reporter())
except OutputError as error:
    sys.exit(f"OutputError: {error}")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on file sizes are a matter of POSIX systems")
@pytest.mark.parametrize("room", [100, 3000, 200_000, 399_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, room):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip().startswith("OutputError: Cannot write")
    assert done.stderr.strip().count("\n") == 0
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_only_the_asked_frames_are_read(tmp_path, monkeypatch):
    dualtrack_file(tmp_path / "a.h5", count=40)
    read = []
    original = h5py.Dataset.__getitem__

    def counting(self, key):
        result = original(self, key)
        if self.name == "/images":
            read.append(result.shape)
        return result

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
    sweep = load(tmp_path / "a.h5")
    assert read == []
    sweep.window(5, 8)
    assert read == [(3, 12, 10)]


def test_frames_are_sliced_like_an_array_and_can_be_pickled(tmp_path):
    data = dualtrack_file(tmp_path / "a.h5", count=9)
    frames = pickle.loads(pickle.dumps(load(tmp_path / "a.h5").frames))
    for key in (slice(None), slice(2, 5), slice(-3, None), slice(0, 9, 4), slice(5, 2), slice(4, 100)):
        np.testing.assert_array_equal(frames[key], data["images"][key])
    with pytest.raises(TypeError):
        frames[0]


def test_no_handle_stays_open(tmp_path):
    dualtrack_file(tmp_path / "a.h5")
    sweep = load(tmp_path / "a.h5")
    sweep.window(0, 2)
    with h5py.File(tmp_path / "a.h5", "a") as file:  # HDF5 would refuse to write to an open file
        file["more"] = 1


def test_a_file_that_changes_its_size_under_a_sweep_is_refused(tmp_path):
    dualtrack_file(tmp_path / "a.h5")
    sweep = load(tmp_path / "a.h5")
    dualtrack_file(tmp_path / "a.h5", count=3)
    with pytest.raises(InputError, match="has changed"):
        sweep.window(0, 2)
    (tmp_path / "a.h5").unlink()
    with pytest.raises(InputError, match=r"a\.h5"):
        sweep.window(0, 2)


def test_poses_that_are_none_are_marked_invalid_and_counted(tmp_path):
    poses = random_poses(6)
    poses[1] = np.nan
    poses[3] = 0
    poses[4] = np.inf
    dualtrack_file(tmp_path / "a.h5", tracking=poses)
    sweep = load(tmp_path / "a.h5")
    np.testing.assert_array_equal(sweep.tracked.valid, [1, 0, 1, 0, 0, 1])
    assert "Marked 3 of 6 poses invalid (2 not finite, 1 not rigid)." in sweep.provenance["conversions"]


def test_another_image_origin_in_the_file_moves_the_poses(tmp_path):
    """The same physical frames, told with the origin at the first pixel, give the same trajectory."""
    data = dualtrack_file(tmp_path / "a.h5")
    shift = np.eye(4)
    shift[:2, 3] = -data["pixel_to_image"][:2, 3]  # centre to first pixel
    dualtrack_file(
        tmp_path / "b.h5",
        pixel_to_image=shift @ data["pixel_to_image"],
        tracking=data["tracking"] @ invert_rigid(shift),
    )
    expected, moved = load(tmp_path / "a.h5"), load(tmp_path / "b.h5")
    np.testing.assert_allclose(moved.tracked.poses, expected.tracked.poses, atol=1e-10)
    assert any("origin" in note for note in moved.provenance["conversions"])


def test_the_users_spacing_wins_over_the_files_and_it_is_said(tmp_path):
    dualtrack_file(tmp_path / "a.h5")
    sweep = load(tmp_path / "a.h5", spacing_mm=(0.5, 0.5))
    assert sweep.spacing_mm == (0.5, 0.5)
    assert sweep.provenance["spacing_source"] == "user"
    assert "0.5 x 0.5 mm in place of" in sweep.provenance["conversions"][0]
    assert load(tmp_path / "a.h5", spacing_mm=(0.2294, 0.2210)).provenance["conversions"] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tracking": random_poses(5)}, "6 frames and 5 poses"),
        ({"timestamps": np.arange(4.0)}, "6 frames and 4 timestamps"),
        ({"timestamps": np.full(6, np.nan)}, "timestamps that are not finite"),
        ({"dimensions": np.array([640, 480, 1])}, "640 x 480 pixels and holds images of 10 x 12"),
        ({"images": np.zeros((6, 12, 10), np.complex64)}, "whole or real numbers"),
        ({"images": np.zeros((6, 12, 10, 7), np.uint8)}, "expected frames, rows, columns"),
        ({"images": np.zeros((0, 12, 10), np.uint8)}, "no frames"),
        ({"images": np.zeros((6, 0, 10), np.uint8)}, "nothing to read"),
        ({"tracking": np.zeros((6, 3, 4))}, "'tracking' of shape"),
        ({"tracking": np.full((6, 4, 4), b"x")}, "expected numbers"),
        ({"spacing": np.array([0.5, 0.5, 1])}, "contradicts its pixel_to_image"),
        ({"pixel_to_image": np.zeros((4, 4))}, "maps no pixels"),
        ({"images": None}, "neither images nor frames"),
    ],
)
def test_contradictions_inside_a_file_are_refused_with_its_name(tmp_path, changes, message):
    dualtrack_file(tmp_path / "bad.h5", **changes)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path / "bad.h5")
    assert "bad.h5" in str(caught.value)


@pytest.mark.parametrize("kept", [9, 100, 2000, -100])
def test_a_truncated_file_is_refused_with_its_name(tmp_path, kept):
    dualtrack_file(tmp_path / "cut.h5")
    content = (tmp_path / "cut.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[:kept])
    with pytest.raises(InputError, match=r"cut\.h5"):
        load(tmp_path / "cut.h5").window(0, 6)


def test_damaged_pixels_are_refused_when_they_are_read(tmp_path):
    hdf5.write(
        Sweep(np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)), tmp_path / "a.h5", None, Reporter()
    )
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["images"].id.write_direct_chunk((1, 0, 0), b"this is no deflate stream")
    sweep = load(tmp_path / "a.h5")
    sweep.window(0, 1)
    with pytest.raises(InputError, match=r"a\.h5 cannot be read"):
        sweep.window(1, 2)


@pytest.mark.parametrize(
    "storage", [{}, {"chunks": (1, 1000, 1000)}, {"chunks": (1, 1000, 1000), "compression": "gzip"}]
)
@pytest.mark.parametrize("name", ["images", "tracking"])
def test_a_claim_of_a_million_million_pixels_is_refused_before_anything_is_read(tmp_path, storage, name):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        if name == "images":
            file.create_dataset("images", (10**6, 1000, 1000), np.uint8, **storage)
        else:
            file["images"] = np.zeros((2, 3, 3), np.uint8)
            chunked = {k: (1, 4, 4) if k == "chunks" else v for k, v in storage.items()}
            file.create_dataset("tracking", (10**10, 4, 4), np.float64, **chunked)
    assert (tmp_path / "bomb.h5").stat().st_size < 10_000
    with pytest.raises(InputError, match="claims"):
        load(tmp_path / "bomb.h5")


def test_pieces_that_are_not_compressed_make_no_more_than_is_stored(tmp_path):
    with h5py.File(tmp_path / "half.h5", "w") as file:
        images = file.create_dataset("images", (8, 40, 50), np.uint8, chunks=(1, 40, 50))
        images[:4] = 1
    with pytest.raises(InputError, match="claims 16000 bytes of 'images' and stores 8000"):
        load(tmp_path / "half.h5")


def test_a_few_stored_pieces_do_not_cover_for_an_absurd_claim(tmp_path):
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        images = file.create_dataset(
            "images", (10**6, 1000, 1000), np.uint8, chunks=(1, 1000, 1000), compression="gzip"
        )
        images[0] = 1
    with pytest.raises(InputError, match="claims"):
        load(tmp_path / "bomb.h5")


def test_frames_and_pieces_of_absurd_size_are_refused(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"] = np.zeros((1, 9000, 8000), np.uint8)
    with pytest.raises(InputError, match="8000 x 9000"):
        load(tmp_path / "a.h5")
    monkeypatch.setattr(hdf5_frames, "_MAX_CHUNK_BYTES", 1000)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("images", data=np.ones((40, 10, 10), np.uint8), chunks=(40, 10, 10))
    with pytest.raises(InputError, match="pieces of 4000 bytes"):
        load(tmp_path / "b.h5")


@pytest.mark.parametrize("way", ["external link", "soft link", "external storage", "virtual"])
def test_a_sweep_file_never_leads_to_another_file(tmp_path, way):
    dualtrack_file(tmp_path / "other.h5")
    (tmp_path / "raw").write_bytes(bytes(720))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if way == "external link":
            file["images"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/images")
        elif way == "soft link":
            file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
            file["images"] = h5py.SoftLink("/x/images")
        elif way == "external storage":
            file.create_dataset("images", (6, 12, 10), np.uint8, external=[(str(tmp_path / "raw"), 0, 720)])
        else:
            layout = h5py.VirtualLayout((6, 12, 10), np.uint8)
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "images", (6, 12, 10))
            file.create_virtual_dataset("images", layout)
    with pytest.raises(InputError, match="must hold its own data"):
        load(tmp_path / "a.h5")


def test_a_group_in_the_place_of_the_frames_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("images")
    with pytest.raises(InputError, match="as a group"):
        load(tmp_path / "a.h5")
