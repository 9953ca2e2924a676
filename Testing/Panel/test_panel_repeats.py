"""Repeated frames of a clip, on the panel."""

from dataclasses import replace

import numpy as np
from journey import add_clip

from DualTrackCore.sample import sample_sweep


def recording(pictures, rate_hz):
    """The sample as a recorder that shows at each frame the picture of this index."""
    return replace(sample_sweep().chosen(pictures), timestamps_s=np.arange(len(pictures)) / rate_hz, tracked=None)


def test_the_clip_says_how_often_its_picture_changes_and_where_it_stands_still(host, panel):
    add_clip(host, recording(np.arange(60) // 3, 60.0))
    host.wait_until(lambda: "again" in panel.ui.clipInfoLabel.text, 30)
    text = panel.ui.clipInfoLabel.text
    assert "60 frames/s" in text
    assert "40 of them show the picture before them again (20 different pictures/s)." in text
    assert "stands still" not in text
    add_clip(host, recording(np.r_[0:25, np.full(20, 24), 25:40], 20.0), "frozen")
    panel.ui.clipComboBox.currentIndex = 1
    host.wait_until(lambda: "stands still" in panel.ui.clipInfoLabel.text, 30)
    assert "stands still in the frames 25 to 44 (1.25 to 2.2 s)." in panel.ui.clipInfoLabel.text


def test_the_panel_can_keep_repeated_frames(host, panel):
    add_clip(host)
    assert panel.view().settings().repeats == "drop"
    assert panel.ui.repeatsComboBox.currentText == "left out"
    panel.ui.repeatsComboBox.currentIndex = 1
    assert panel.view().settings().repeats == "keep"
    assert "again" not in panel.ui.clipInfoLabel.text
