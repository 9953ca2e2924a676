"""The network against the published implementation's recorded output (Testing/Data/oracle).

Gates are those of the specification: 6e-5 on the pose, 1e-4 on CNN probes, 1.5e-5 elsewhere, checksums exact. The
smallest wrong-implementation effect on the pose is 1.8e-4.
"""

import zlib

import numpy as np
import pytest
import torch
from oracle import golden, oracle_sweep, oracle_weights, recipe

from DualTrackCore.network import DualTrack
from DualTrackCore.network.catalogue import PUBLISHED_SPACING_MM
from DualTrackCore.tracking import estimate_trajectory
from DualTrackCore.tracking.preprocessing import Preprocessor
from DualTrackCore.trajectory import Trajectory, accumulate, matrices_from_parameters

POSE_TOLERANCE, PROBE_TOLERANCE, ARRAY_TOLERANCE, MATRIX_TOLERANCE = 6e-5, 1e-4, 1.5e-5, 1e-5
#: Translation from the image centre to the corner origin of the TUS-REC format, mm.
CORNER_FROM_CENTRE_MM = (73.28984642, 52.92463589, 0.0)


def largest_difference(actual, expected) -> float:
    return float(np.abs(np.asarray(actual, np.float64) - expected).max())


def preprocessor(height: int, width: int) -> Preprocessor:
    return Preprocessor((height, width), PUBLISHED_SPACING_MM, PUBLISHED_SPACING_MM, 256, 224)


@pytest.mark.parametrize(("positions", "checksum"), [(1024, 2878559197), (4096, 1237417450)])
def test_the_state_dict_has_the_published_keys_shapes_and_types(positions, checksum):
    weights = oracle_weights(positions)
    crc = 0
    for tensor in weights.values():
        crc = zlib.crc32(tensor.numpy().tobytes(), crc)
    assert crc == checksum
    own = DualTrack(positions=positions).state_dict()
    assert {k: (v.shape, v.dtype) for k, v in own.items()} == {k: (v.shape, v.dtype) for k, v in weights.items()}


@pytest.mark.parametrize("size", [(480, 640), (256, 256), (200, 180), (257, 259), (224, 224)])
def test_preprocessing_equals_the_reference(size):
    expected, name = golden("preproc"), f"{size[0]}x{size[1]}"
    frames = torch.from_numpy(recipe("make_sweep").sweep(13, 2, *size))
    prepare = preprocessor(*size)
    local = prepare.local(frames)
    assert zlib.crc32(local.contiguous().numpy().tobytes()) == expected[f"lcrc_{name}"]
    np.testing.assert_array_equal(local[:, 5::17, 3::19], expected[f"l_{name}"])
    assert largest_difference(prepare.global_image(frames)[:, 3::7, 3::7], expected[f"g_{name}"]) <= ARRAY_TOLERANCE


@torch.inference_mode()
def test_every_intermediate_of_24_frames_equals_the_reference(oracle_model):
    expected, network, frames = golden("n24"), oracle_model.network, oracle_sweep(11, 24).window(0, 24)
    assert zlib.crc32(frames.tobytes()) == expected["sweep_crc32"]
    prepare = preprocessor(480, 640)
    crops, whole = prepare.local(torch.from_numpy(frames)), prepare.global_image(torch.from_numpy(frames[::16].copy()))
    assert zlib.crc32(crops.contiguous().numpy().tobytes()) == expected["local_img_crc32"]
    assert largest_difference(whole[:, 3::7, 3::7], expected["global_img_probe"]) <= ARRAY_TOLERANCE

    maps = network.local.trunk(crops[None, None])
    probe = maps[0].transpose(0, 1)[[0, 1, 12, 23]][:, ::64, 1::5, 2::5]
    assert largest_difference(probe, expected["cnn_probe"]) <= PROBE_TOLERANCE
    tokens = network.local.frame_features(maps)
    temporal = network.local.temporal(tokens)
    queries = network.local_encoder[1](temporal)
    pooled = network.global_encoder.image_features(whole[None])
    context = network.global_encoder(pooled, torch.tensor([0, 16]))
    fused = network.fusion_module.module(queries, context)
    for name, actual in {
        "cnn_mean": maps.mean(dim=(3, 4))[0].T,
        "vit_cls": tokens[0],
        "temporal": temporal[0],
        "local_proj": queries[0],
        "global_cnn": pooled[0],
        "global_feat": context[0],
        "fusion": fused[0],
    }.items():
        assert largest_difference(actual, expected[name]) <= ARRAY_TOLERANCE, name
    pose = network.head.fc(fused)[0, 1:]
    assert largest_difference(pose, expected["pose"]) <= POSE_TOLERANCE
    assert largest_difference(pose, expected["pose_f64"]) <= POSE_TOLERANCE


@torch.inference_mode()
def test_the_transformers_over_300_frames_equal_the_reference(oracle_model):
    expected, network, unit = golden("tail300"), oracle_model.network, recipe("make_weights").unit
    tokens = torch.from_numpy(0.25 * unit(1, "tail.vit_cls", 300 * 64)).float().view(1, 300, 64)
    pooled = torch.from_numpy(0.30 * unit(1, "tail.global_cnn", 19 * 512)).float().view(1, 19, 512)
    temporal = network.local.temporal(tokens)
    context = network.global_encoder(pooled, torch.arange(0, 300, 16))
    assert largest_difference(temporal[0, ::32], expected["temporal_sub"]) <= ARRAY_TOLERANCE
    assert largest_difference(context[0, ::8], expected["global_feat_sub"]) <= ARRAY_TOLERANCE
    fused = network.fusion_module.module(network.local_encoder[1](temporal), context)
    assert largest_difference(fused[0, ::64], expected["fusion_sub"]) <= ARRAY_TOLERANCE
    assert largest_difference(network.poses_from_features(tokens, pooled)[0], expected["pose"]) <= POSE_TOLERANCE


@pytest.mark.filterwarnings("ignore::DualTrackCore.tracking.TrackingWarning")
@pytest.mark.parametrize(("name", "seed", "frames", "chunk"), [("n24", 11, 24, 7), ("n40", 12, 40, 16)])
def test_the_streaming_engine_gives_the_reference_poses(oracle_model, name, seed, frames, chunk):
    trajectory = estimate_trajectory(oracle_sweep(seed, frames), oracle_model, device="cpu", chunk_frames=chunk)
    assert largest_difference(trajectory.parameters, golden(name)["pose"]) <= POSE_TOLERANCE


@pytest.mark.parametrize("name", ["n24", "n40"])
def test_pose_matrices_equal_the_reference_given_its_poses(name):
    expected = golden(name)
    steps = matrices_from_parameters(expected["pose"])
    assert largest_difference(steps, expected["loc"]) <= MATRIX_TOLERANCE
    rounded = [np.eye(4, dtype=np.float32)]  # the reference rounds to float32 after every step; a trajectory does not
    for step in steps:
        rounded.append((rounded[-1] @ step).astype(np.float32))
    assert largest_difference(rounded[1:], expected["glob"]) <= MATRIX_TOLERANCE
    assert largest_difference(accumulate(steps)[1:], expected["glob"]) <= 1e-4


@pytest.mark.parametrize("name", ["n24", "n40"])
def test_a_trajectory_moved_to_the_corner_origin_is_in_the_tus_rec_format(name):
    expected = golden(name)
    corner_from_centre = np.eye(4)
    corner_from_centre[:3, 3] = CORNER_FROM_CENTRE_MM
    trajectory = Trajectory.from_parameters(expected["pose"])
    moved = corner_from_centre @ trajectory.relative @ np.linalg.inv(corner_from_centre)
    assert largest_difference(moved, expected["loc_tusrec"]) <= MATRIX_TOLERANCE
    moved = corner_from_centre @ trajectory.poses[1:] @ np.linalg.inv(corner_from_centre)
    assert largest_difference(moved, expected["glob_tusrec"]) <= 1e-4
