"""Miniature data sets in the published layouts, made for tests: frames of a few pixels, a few kilobytes in all."""

from zlib import crc32

import h5py
import numpy as np
from hdf5_files import calibration_csv, random_poses
from sequence_files import PROBES, metafile, pixels, text

from DualTrackCore.io import save_sweep
from DualTrackCore.sweep import Sweep
from DualTrackCore.trajectory import Trajectory

SIZE = (12, 16)
FRAMES = 6
#: Two of the 24 scans of a subject of 2024, and the two of 2025.
SCANS_2024 = ("LH_Par_C_PtD", "RH_Per_L_DtP")
SCANS_2025 = ("LH_rotation", "RH_rotation")

#: A PLUS configuration with the calibration of a probe, pixels of 0.1 x 0.2 mm.
CONFIGURATION = """<PlusConfiguration version="2.1"><CoordinateDefinitions>
<Transform From="Image" To="Probe" Matrix="0.1 0 0 5  0 0.2 0 7  0 0 0.1 9  0 0 0 1"/>
</CoordinateDefinitions></PlusConfiguration>"""


def write_h5(path, **members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in members.items():
            file[name] = values
    return path


def change_h5(path, **members):
    """Replace members of a file; None removes one."""
    with h5py.File(path, "a") as file:
        for name, values in members.items():
            if name in file:
                del file[name]
            if values is not None:
                file[name] = values
    return path


def frames(count=FRAMES, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (count, *size), dtype=np.uint8)


def seed_of(subject, scan):
    """Every scan shows something else."""
    return crc32(f"{subject}/{scan}".encode())


def landmark_rows(count=20, frames=FRAMES, size=SIZE):
    """Rows of frame from 0, column and row from 1, over the whole range."""
    random = np.random.default_rng(5)
    rows = np.stack(
        [random.integers(0, frames, count), *(random.integers(1, n + 1, count) for n in size[::-1])], axis=1
    )
    rows[0], rows[1] = (0, 1, 1), (frames - 1, size[1], size[0])
    return rows


def tus_rec_train(root, subjects=("000", "001", "002"), scans=SCANS_2024, landmarks=20, count=FRAMES, size=SIZE):
    """Frames and poses together, landmarks, calibration."""
    marks = dict.fromkeys(scans, landmark_rows(landmarks, count, size))
    for subject in subjects:
        for scan in scans:
            write_h5(
                root / "frames_transfs" / subject / f"{scan}.h5",
                frames=frames(count, seed_of(subject, scan), size),
                tforms=random_poses(count, seed=seed_of(subject, scan)),
            )
        write_h5(root / "landmarks" / f"landmark_{subject}.h5", **marks)
    calibration_csv(root / "calib_matrix.csv")
    return root


def tus_rec_validation(
    root, subjects=("050", "051", "052"), scans=SCANS_2024, folder="landmark", landmarks=20, count=FRAMES, size=SIZE
):
    """Frames and poses apart, landmarks, calibration, and the list of keys."""
    keys, marks = {}, dict.fromkeys(scans, landmark_rows(landmarks, count, size))
    for subject in subjects:
        for scan in scans:
            seed = seed_of(subject, scan)
            write_h5(root / "frames" / subject / f"{scan}.h5", frames=frames(count, seed, size))
            write_h5(root / "transfs" / subject / f"{scan}.h5", tforms=random_poses(count, seed=seed))
            keys[f"sub{subject}__{scan}"] = 0
        write_h5(root / folder / f"landmark_{subject}.h5", **marks)
    write_h5(root / "dataset_keys.h5", **keys)
    calibration_csv(root / "calib_matrix.csv")
    return root


def dualtrack_table(root, splits=("train", "train", "val")):
    """DualTrack files in a folder, and their metadata CSV."""
    lines = ["index,sweep_id,processed_sweep_path,split"]
    for number, split in enumerate(splits):
        motions = np.random.default_rng(number).normal(size=(FRAMES - 1, 6))
        tracked = Trajectory.from_parameters(motions, origin="measured")
        sweep = Sweep(frames(seed=number), (0.2, 0.3), tracked=tracked)
        save_sweep(sweep, root / "sweeps" / f"{number}.h5")
        lines.append(f"{number},sweep_{number},sweeps/{number}.h5,{split}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def plus_recording(path, invalid=(), to="Tracker"):
    """A PLUS sequence of 3 frames of 5 x 4 pixels, tracked, without its calibration."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = []
    for i, pose in enumerate(PROBES):
        status = "INVALID" if i in invalid else "OK"
        fields += [
            (f"Seq_Frame{i:04d}_ProbeTo{to}Transform", text(pose)),
            (f"Seq_Frame{i:04d}_ProbeTo{to}TransformStatus", status),
            (f"Seq_Frame{i:04d}_Timestamp", str(0.1 * i)),
        ]
    # Recordings of other names show something else.
    seen = pixels(3, 4, 5) + np.uint8(crc32("/".join(path.parts[-2:]).encode()) % 256)
    return metafile(path, seen, fields)


def plus_folder(root):
    """Two recordings with one configuration beside them, a third with another in its own folder."""
    plus_recording(root / "a.igs.mha")
    plus_recording(root / "b.mha")
    plus_recording(root / "other" / "a.igs.mha")
    (root / "PlusDeviceSet.xml").write_text(CONFIGURATION)
    (root / "other" / "probe.xml").write_text(CONFIGURATION.replace("0.1 0 0 5", "0.3 0 0 5"))
    return root
