"""The frame behind a point, asked for by clicks of the mouse into drawn views."""

import html
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import slicer
from clip_nodes import add_simulated_clip, drifting, job_result
from test_picture import changed, write_png
from view import SliceWindow

from DualTrackCore.research.simulation import simulated_sweep

SWEEP = simulated_sweep(3, frames=30, frame_size=(120, 160), spacing_mm=(0.2, 0.16), family="Per_S_PtD")
RESULT = job_result(SWEEP, drifting(SWEEP.tracked), voxel_mm=0.45)


@pytest.fixture
def windows(host, views):
    """The slice views by name, each in a window with a mouse, which opens when it is looked at."""
    scene, logic = slicer.mrmlScene, slicer.app.applicationLogic()
    scene.AddNode(slicer.vtkMRMLCrosshairNode())
    (markups,) = [one for one in host._logics if one.IsA("vtkSlicerMarkupsLogic")]

    class Windows(dict):
        def __missing__(self, name):
            return self.setdefault(name, SliceWindow(views, name, logic, markups))

    opened = Windows()
    yield opened
    for window in opened.values():
        window.close()


@pytest.fixture
def result(host, panel, windows):
    """(browser, nodes) of a clip and its shown result, without a run; the yellow view passes frame 12 or so."""
    from DualTrackSlicerLib import scene

    browser, _ = add_simulated_clip(slicer.mrmlScene, replace(SWEEP, tracked=None))
    host.process()
    nodes = scene.showResults(slicer.mrmlScene, scene.sweepFromBrowser(browser), RESULT)
    host.process()
    panel.picture.showResult(nodes)
    host.process()
    return browser, nodes


def switch_on(host, panel):
    host.click(panel.ui.behindCheckBox)
    host.wait_until(lambda: "Click into" in panel.ui.behindLabel.text, 10)


def click(host, window, pixel, button="Left"):
    window.click(pixel, button)
    host.process()


def cross():
    """[3] where the cross is, RAS, and the text beside it; None where there is none."""
    node = slicer.mrmlScene.GetFirstNodeByName("DualTrack cross")
    if node is None or not node.GetNumberOfControlPoints():
        return None
    return slicer.util.arrayFromMarkupsControlPoints(node, True)[0], node.GetNthControlPointLabel(0)


def crosshair():
    """(whether the crosshair is seen, [3] where it is)."""
    node = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
    return node.GetCrosshairMode() != node.NoCrosshair, np.array(node.GetCrosshairRAS())


def text(panel):
    """What the label says, without its markup."""
    return html.unescape(re.sub("<[^>]+>", " ", panel.ui.behindLabel.text))


def behind(nodes, place):
    """What lies behind a place, from the scene alone."""
    from DualTrackSlicerLib import scene
    from DualTrackSlicerLib.scene.nodes import finished

    return finished(scene.framesBehind(nodes)).at(place)


def pixel_at(browser, place):
    """(column, row) in the picture that is shown."""
    from DualTrackSlicerLib.scene import pixelAt

    return pixelAt(browser, browser.GetMasterSequenceNode(), place)


def distance_from_plane(node, place):
    """Of a place from the plane of a slice view, mm."""
    matrix = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS())
    return abs(matrix[:3, 2] @ (place - matrix[:3, 3]))


def asks():
    """Whether the next click places a point of ours."""
    logic = slicer.app.applicationLogic()
    node, interaction = logic.GetSelectionNode().GetActivePlaceNodeID(), logic.GetInteractionNode()
    ours = slicer.mrmlScene.GetFirstNodeByName("DualTrack point")
    return interaction.GetCurrentInteractionMode() == interaction.Place and ours is not None and node == ours.GetID()


def test_clicks_into_a_slice_view_show_the_frames_behind_with_a_cross_at_the_pixel(host, panel, windows, result):
    browser, nodes = result
    assert not panel.ui.behindFrame.isVisible()
    panel.ui.frameOverCheckBox.checked = panel.ui.followCheckBox.checked = False
    switch_on(host, panel)
    assert panel.ui.frameOverCheckBox.checked
    assert panel.ui.followCheckBox.checked
    for window, pixel in (("Yellow", (200, 260)), ("Yellow", (180, 170)), ("Green", (205, 190))):
        place = windows[window].place(pixel)
        click(host, windows[window], pixel)
        found = behind(nodes, place)
        assert browser.GetSelectedItemNumber() == found.frames[0]
        where, label = cross()
        np.testing.assert_allclose(where, found.places[0], atol=1e-4)
        assert label == f"frame {found.frames[0]}"
        np.testing.assert_allclose(pixel_at(browser, where), found.pixels[0], atol=1e-3)
        assert distance_from_plane(windows["Red"].node, where) < 1e-3
        column, row = found.pixels[0].round().astype(int)
        assert f"{found.frames[0]} (of 0 to 29), at {found.times_s[0]:.2f} s" in text(panel)
        assert f"column {column}, row {row}" in text(panel)
        assert "R {:.1f}, A {:.1f}, S {:.1f} mm".format(*place) in text(panel)
        assert crosshair()[0]
        np.testing.assert_allclose(crosshair()[1], place, atol=1e-4)
        for other in ("Yellow", "Green"):
            assert distance_from_plane(windows[other].node, place) < 1e-3
        assert asks()


def test_the_cross_is_drawn_in_red_at_the_pixel_and_nowhere_else(host, panel, windows, result, pictures):
    switch_on(host, panel)
    assert [windows[name] for name in ("Red", "Yellow", "Green")]
    click(host, windows["Yellow"], (200, 260))
    row, column = windows["Red"].pixel(cross()[0])
    with_cross = {name: windows[name].picture() for name in ("Red", "Yellow", "Green")}
    write_png(pictures / "frame-behind-voxel.png", np.concatenate(list(with_cross.values()), axis=1))
    host.picture(panel, pictures / "panel-behind.png")
    panel.behindSection._pointing.unmark()
    differs = {name: changed(picture, windows[name].picture()) for name, picture in with_cross.items()}
    assert differs["Red"][row - 9 : row + 10, column - 9 : column + 10].sum() > 20
    assert np.abs(np.argwhere(differs["Red"][:, : column + 9]).mean(axis=0) - [row, column]).max() < 2
    assert not differs["Yellow"].any()
    assert not differs["Green"].any()


def test_the_arrows_go_through_all_frames_of_the_voxel_by_their_weights(host, panel, windows, result):
    browser, nodes = result
    switch_on(host, panel)
    place = windows["Yellow"].place((200, 260))
    click(host, windows["Yellow"], (200, 260))
    found, seen = behind(nodes, place), []
    assert len(found.frames) > 1
    for number in (*range(len(found.frames)), 0):
        seen.append(browser.GetSelectedItemNumber())
        assert f"number {number + 1} of {len(found.frames)} frames" in text(panel)
        np.testing.assert_allclose(cross()[0], found.places[number], atol=1e-4)
        host.click(panel.ui.nextFrameButton)
    assert seen == [*found.frames, found.frames[0]]
    host.click(panel.ui.previousFrameButton)
    host.click(panel.ui.previousFrameButton)
    assert browser.GetSelectedItemNumber() == found.frames[-1]


def test_a_click_into_the_frame_shows_where_its_pixel_lies(host, panel, windows, result):
    browser, _ = result
    switch_on(host, panel)
    for frame, pixel in ((8, (200, 210)), (20, (150, 300))):
        browser.SetSelectedItemNumber(frame)
        place = windows["Red"].place(pixel)
        click(host, windows["Red"], pixel)
        assert browser.GetSelectedItemNumber() == frame
        column, row = pixel_at(browser, place)
        assert f"{frame} (of 0 to 29)" in text(panel)
        assert f"column {column:.0f}, row {row:.0f}" in text(panel)
        np.testing.assert_allclose(cross()[0], place, atol=1e-4)
        np.testing.assert_allclose(crosshair()[1], place, atol=1e-4)
        for other in ("Yellow", "Green"):
            assert distance_from_plane(windows[other].node, place) < 1e-3
        assert distance_from_plane(windows["Red"].node, place) < 1e-3


def test_where_nothing_was_seen_a_sentence_says_so_and_the_next_click_is_asked_for(host, panel, windows, result):
    _, nodes = result
    switch_on(host, panel)
    click(host, windows["Yellow"], (200, 260))
    click(host, windows["Yellow"], (4, 4))
    assert "lies outside of the volume of DualTrack clip; click into the volume." in text(panel)
    assert cross() is None
    assert not panel.ui.nextFrameButton.enabled
    assert "no other frame" in panel.ui.nextFrameButton.toolTip
    click(host, windows["Yellow"], (200, 260))
    assert cross() is not None
    nodes.pose_table.GetTable().RemoveColumnByName("In the volume")
    host.click(panel.ui.behindCheckBox)
    host.click(panel.ui.behindCheckBox)
    host.wait_until(lambda: "earlier version" in text(panel), 10)
    assert not asks()


def names():
    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode")]


def test_a_right_click_or_another_tool_that_places_points_ends_it_and_nothing_stays_on_the_views(
    host, panel, windows, result, tmp_path
):
    switch_on(host, panel)
    click(host, windows["Yellow"], (200, 260))
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    with zipfile.ZipFile(tmp_path / "scene.mrb") as bundle:
        (scene,) = [name for name in bundle.namelist() if name.endswith(".mrml")]
        assert b"DualTrack cross" not in bundle.read(scene)
        assert b"DualTrack point" not in bundle.read(scene)
    click(host, windows["Green"], (100, 100), "Right")
    assert not panel.ui.behindCheckBox.checked
    assert not panel.ui.behindFrame.isVisible()
    assert names() == []
    assert not crosshair()[0]
    interaction = slicer.app.applicationLogic().GetInteractionNode()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    switch_on(host, panel)
    logic, line = slicer.app.applicationLogic(), slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode")
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    logic.GetSelectionNode().SetReferenceActivePlaceNodeClassName("vtkMRMLMarkupsLineNode")
    logic.GetSelectionNode().SetReferenceActivePlaceNodeID(line.GetID())
    interaction.SetCurrentInteractionMode(interaction.Place)
    host.process()
    assert not panel.ui.behindCheckBox.checked
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    assert logic.GetSelectionNode().GetActivePlaceNodeID() == line.GetID()


def test_it_asks_about_the_result_that_is_shown_and_ends_with_it(host, panel, windows, result):
    switch_on(host, panel)
    before = panel.view().result
    host.click(panel.ui.turnOverButton)
    host.wait_until(lambda: panel.view().result.transform_sequence is not before.transform_sequence, 20)
    host.wait_until(lambda: "Click into" in panel.ui.behindLabel.text, 10)
    turned = panel.view().result
    place = windows["Yellow"].place((200, 260))
    click(host, windows["Yellow"], (200, 260))
    np.testing.assert_allclose(cross()[0], behind(turned, place).places[0], atol=1e-4)
    host.click(panel.ui.deleteResultButton)
    assert names() == []
    assert not asks()
    assert not panel.ui.behindCheckBox.isVisible()


@pytest.mark.parametrize("end", ["exit", "close the scene"])
def test_it_ends_with_the_panel_and_with_the_scene(host, panel, windows, result, end):
    switch_on(host, panel)
    if end == "exit":
        panel.exit()
        host.process()
        assert names() == []
        panel.enter()
    else:
        slicer.mrmlScene.Clear(False)
        host.process()
    assert not panel.ui.behindCheckBox.checked
    assert not asks()


def test_a_result_that_was_loaded_is_asked_as_well(host, panel, windows, result, tmp_path):
    assert slicer.mrmlScene.WriteToMRB(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(False)
    host.process()
    slicer.mrmlScene.SetURL(str(tmp_path / "scene.mrb"))
    assert slicer.mrmlScene.ReadFromMRB(str(tmp_path / "scene.mrb"), False)
    host.process()
    switch_on(host, panel)
    place = windows["Yellow"].place((200, 260))
    click(host, windows["Yellow"], (200, 260))
    found = behind(panel.view().result, place)
    assert panel.view().clip.browser.GetSelectedItemNumber() == found.frames[0]
    np.testing.assert_allclose(cross()[0], found.places[0], atol=1e-4)
