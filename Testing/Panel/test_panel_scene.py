"""What the views show, and what stays behind of a scene: nothing."""

import gc

import numpy as np
import pytest
import slicer
import vtk
from journey import add_clip, choose_file, clip_of, finish


def red_view():
    """(slice node, composite node) of the red view, as the application makes them."""
    nodes = []
    for name in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
        node = slicer.mrmlScene.CreateNodeByClass(name)
        node.UnRegister(None)
        node.SetSingletonTag("Red")
        node.SetLayoutName("Red")
        nodes.append(slicer.mrmlScene.AddNode(node))
    return nodes


def proxy(browser):
    """The image of a clip."""
    return browser.GetProxyNode(browser.GetMasterSequenceNode())


def place_of(view):
    """[4, 4] where a slice view lies."""
    return slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()).copy()


def test_a_chosen_clip_is_shown_with_the_controls_to_play_it(host, panel):
    red, composite = red_view()
    browser = add_clip(host)
    assert composite.GetBackgroundVolumeID() == proxy(browser).GetID()
    assert (host.sequences.browser, host.sequences.visible) == (browser, True)
    assert np.abs(place_of(red) - np.eye(4)).max() > 0.5
    other = add_clip(host, name="other")
    panel.ui.clipComboBox.currentIndex = clip_of(panel, "other")
    assert composite.GetBackgroundVolumeID() == proxy(other).GetID()
    assert host.sequences.browser is other


def test_the_red_view_follows_the_run_and_shows_the_frame_over_the_volume(host, panel, tiny_model_file):
    red, composite = red_view()
    browser = add_clip(host)
    choose_file(panel, tiny_model_file)
    seen = []
    browser.AddObserver("ModifiedEvent", lambda *_: seen.append(browser.GetSelectedItemNumber()))
    host.click(panel.ui.applyButton)
    finish(host, panel)
    host.process()
    assert max(seen) == 23
    nodes = panel.view().result
    assert composite.GetBackgroundVolumeID() == nodes.volume.GetID()
    assert (composite.GetForegroundVolumeID(), composite.GetForegroundOpacity()) == (proxy(browser).GetID(), 1.0)
    host.click(panel.ui.frameOverCheckBox)
    assert composite.GetForegroundOpacity() == 0.0
    browser.SetSelectedItemNumber(2)
    second = place_of(red)
    browser.SetSelectedItemNumber(20)
    assert np.abs(place_of(red) - second).max() > 0.1
    panel.ui.followCheckBox.checked = False
    host.process()
    last = place_of(red)
    browser.SetSelectedItemNumber(2)
    np.testing.assert_array_equal(place_of(red), last)


def test_drawing_on_the_picture_goes_to_the_first_frame(host, panel):
    _, composite = red_view()
    browser = add_clip(host)
    browser.SetSelectedItemNumber(9)
    composite.SetBackgroundVolumeID(None)
    panel.ui.partSection.collapsed = False
    host.click(panel.ui.drawAreaButton)
    assert browser.GetSelectedItemNumber() == 0
    assert composite.GetBackgroundVolumeID() == proxy(browser).GetID()


@pytest.mark.parametrize("shown", [True, False], ids=["the panel shown", "another module shown"])
def test_a_closed_scene_leaves_no_reference_behind(host, panel, tiny_model_file, shown):
    gc.collect()
    before = list(map(id, kept := held()))  # of other tests
    red_view()
    browser = add_clip(host)
    panel.ui.partSection.collapsed = False
    host.click(panel.ui.drawAreaButton)
    panel.ui.areaComboBox.currentIndex = 0
    choose_file(panel, tiny_model_file)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    host.process()
    assert panel.view().result is not None
    if not shown:
        panel.exit()
    gone = []
    for node in (browser, browser.GetMasterSequenceNode(), proxy(browser)):
        node.AddObserver("DeleteEvent", lambda *_: gone.append("a node"))
    del node, browser
    host.sequences.browser = None
    slicer.mrmlScene.Clear(False)
    host.process()
    gc.collect()
    assert [type(thing).__name__ for thing in held() if id(thing) not in before] == []
    assert len(kept) == len(before)
    assert len(gone) == 3


def held():
    """What belongs to clips and results and lives."""
    names = {"Sweep", "SceneSweep", "RunResult", "Clip", "ResultNodes", "_StoredPixels", "Job"}
    return [thing for thing in gc.get_objects() if type(thing).__name__ in names]


def test_facts_of_a_clip_are_looked_up_once_until_it_changes(host, panel, monkeypatch):
    from DualTrackSlicerLib.scene import input as reading

    browser, calls = add_clip(host), []
    facts = reading._facts
    monkeypatch.setattr(reading, "_facts", lambda *nodes: calls.append(nodes) or facts(*nodes))
    browser.SetSelectedItemNumber(4)
    assert [clip.frames for clip in panel.logic.clips()] == [24]
    assert calls == []
    images = browser.GetMasterSequenceNode()
    images.RemoveDataNodeAtValue(images.GetNthIndexValue(23))
    assert [clip.frames for clip in panel.logic.clips()] == [23]
    assert len(calls) == 1
    above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    browser.GetProxyNode(images).SetAndObserveTransformNodeID(above.GetID())
    assert [clip.spacing_mm for clip in panel.logic.clips()] == [(0.4, 0.3)]
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 7.0)
    above.SetMatrixTransformToParent(matrix)
    panel.logic.clips()
    assert len(calls) == 3  # another parent, and another place of it
    assert len(panel.logic._known_clips) == 1  # what was true before is forgotten
