"""Steps that the tests of the panel share."""

import slicer


def add_clip(host, sweep=None, name="clip"):
    """A clip in the scene, tracked and synthetic where none is given."""
    from DualTrackSlicerLib.self_test import syntheticSweep
    from DualTrackSlicerLib.sweep_nodes import addSweep

    browser = addSweep(slicer.mrmlScene, sweep or syntheticSweep(), name)
    host.process()
    return browser


def choose_file(panel, path):
    """Take a weights file as the model."""
    panel.ui.modelComboBox.currentIndex = panel.ui.modelComboBox.count - 1
    panel.ui.modelFileEdit.currentPath = str(path)


def use_a_model(panel, file):
    """The model that ships where it is there, else a file."""
    if panel.view().modelProblem():
        choose_file(panel, file)


def clip_of(panel, name):
    """Index of a clip in the chooser."""
    return [clip.name for clip in panel.view().clips].index(name)


def finish(host, panel, seconds=120):
    """Wait until the run has ended."""
    host.wait_until(lambda: not panel.runSection.isRunning(), seconds)


def turn_over(host, panel):
    """Press the button that turns the shown result over, and wait."""
    host.click(panel.ui.turnOverButton)
    host.wait_until(lambda: panel.ui.turnOverButton.text == "Runs the other way", 60)


def run(host, panel, voxel_mm=0.8):
    """One more result of the chosen clip."""
    panel.ui.voxelSpinBox.value = voxel_mm
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert panel.runSection.run.error == ""
    host.process()
    return panel.view().result


def titles(combo):
    """All texts of a chooser."""
    return [combo.itemText(index) for index in range(combo.count)]


def card(panel):
    """All that the card shows."""
    ui = panel.ui
    return ui.resultLabel.text, ui.warningsLabel.text, titles(ui.resultComboBox), ui.resultComboBox.currentIndex


def scene_names():
    """Names of all nodes of the scene, sorted."""
    scene = slicer.mrmlScene
    return sorted(scene.GetNthNode(number).GetName() or "" for number in range(scene.GetNumberOfNodes()))


def mark_in_red(host, panel, point, frame, x, y):
    """Set a mark as a click into the red view does: in the plane of the frame that is shown."""
    from DualTrackSlicerLib.scene.nodes import ijk_to_world

    browser = panel.view().clip.browser
    browser.SetSelectedItemNumber(frame)
    host.process()
    panel.ui.pointEdit.text = point
    host.click(panel.ui.markButton)
    place = ijk_to_world(browser.GetProxyNode(panel.view().clip.sequence)) @ [x, y, 0, 1]
    panel.parameters.landmarks.AddControlPointWorld(*place[:3])
    host.process()
