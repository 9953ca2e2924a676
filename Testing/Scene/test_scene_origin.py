"""Nodes say where their poses are from, and an estimate in the scene is never taken for tracking."""

import numpy as np
import pytest
from clip_nodes import add_simulated_clip, add_transforms, drifting, job_result, simulated
from DualTrackSlicerLib.scene import showResults, sweepFromBrowser, trajectoryFromTable
from DualTrackSlicerLib.scene.nodes import set_pose_origin

from DualTrackCore.io.pose_marks import FIELDS, ORIGIN
from DualTrackCore.trajectory import PoseOrigin, Trajectory

TRUTH = simulated()


def read_back(scene, origin, **source):
    browser, images = add_simulated_clip(scene, TRUTH)
    transforms = add_transforms(scene, browser, images, TRUTH.tracked.poses, name="ImageToReference")
    set_pose_origin(transforms, Trajectory(TRUTH.tracked.poses, provenance=source, origin=origin))
    return sweepFromBrowser(browser)


@pytest.mark.parametrize("origin", list(PoseOrigin))
def test_poses_put_into_the_scene_keep_where_they_are_from(scene, origin):
    read = read_back(scene, origin)
    assert read.sweep.tracked.origin is origin
    assert (read.sweep.truth is not None) == origin.is_truth
    assert read.sweep.provenance["tracking"].startswith("Tracked:" if origin.is_truth else "Not tracked: the poses are")


def test_an_estimate_in_the_scene_names_its_model(scene):
    read = read_back(scene, "estimated", model="mini", weights_sha256="ab" * 32, warnings=["A guess."])
    assert read.sweep.tracked.estimated_by == "mini"
    assert read.sweep.tracked.provenance["weights_sha256"] == "ab" * 32
    assert "A guess." in read.sweep.provenance["conversions"]


def test_transforms_that_say_nothing_are_those_of_a_tracker(scene):
    browser, images = add_simulated_clip(scene, TRUTH)
    add_transforms(scene, browser, images, TRUTH.tracked.poses, name="ImageToReference")
    assert sweepFromBrowser(browser).sweep.tracked.origin is PoseOrigin.MEASURED


@pytest.mark.parametrize("bad", [0, 1])
def test_a_chain_of_transforms_is_as_good_as_its_worst_link(scene, bad):
    browser, images = add_simulated_clip(scene, TRUTH)
    names = ("ImageToProbe", "ProbeToReference")
    chain = (np.tile(np.eye(4), (len(TRUTH), 1, 1)), TRUTH.tracked.poses)
    links = [add_transforms(scene, browser, images, part, name=name) for part, name in zip(chain, names, strict=True)]
    links[1 - bad].SetAttribute(FIELDS[ORIGIN], "measured")
    links[bad].SetAttribute(FIELDS[ORIGIN], "estimated")
    assert sweepFromBrowser(browser).sweep.tracked.origin is PoseOrigin.ESTIMATED


def test_a_header_that_slicer_kept_on_the_images_counts(scene):
    browser, images = add_simulated_clip(scene, TRUTH)
    add_transforms(scene, browser, images, TRUTH.tracked.poses, name="ImageToReference")
    images.SetAttribute(FIELDS[ORIGIN], "unknown")
    assert sweepFromBrowser(browser).sweep.truth is None


def test_the_nodes_of_a_run_say_where_its_poses_are_from(scene):
    browser, images = add_simulated_clip(scene, TRUTH)
    add_transforms(scene, browser, images, TRUTH.tracked.poses, name="ImageToReference")
    clip = sweepFromBrowser(browser)
    nodes = showResults(scene, clip, job_result(clip.sweep, drifting(TRUTH.tracked)))
    assert {node.GetAttribute(FIELDS[ORIGIN]) for node in nodes} == {"estimated"}
    assert trajectoryFromTable(nodes.pose_table).origin is PoseOrigin.ESTIMATED
    for field in FIELDS.values():
        nodes.pose_table.RemoveAttribute(field)
    assert trajectoryFromTable(nodes.pose_table).origin is PoseOrigin.UNKNOWN
