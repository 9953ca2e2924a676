"""Sentences of the core name settings by the labels of the panel, in its own process and in that of the worker."""

import os
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from worker_processes import temporary, tracked_sweep  # noqa: F401

from DualTrackCore.errors import named
from DualTrackCore.run.settings import RunSettings
from DualTrackCore.worker import JobFailed

UI = Path(__file__).resolve().parents[2] / "DualTrackSlicer" / "Resources" / "UI" / "DualTrackSlicer.ui"


def test_every_label_stands_in_the_panel(host):
    from DualTrackSlicerLib.setting_labels import settingLabels

    shown = {re.sub(r"<[^>]*>|:$", "", text.text or "") for text in ET.parse(UI).iter("string")}
    assert set(settingLabels().values()) - shown == set()


def test_while_the_panel_is_there_settings_are_called_by_its_labels(host):
    panel = host.open_panel()
    assert named("spacing_mm") == "“Pixel size”"
    host.close_panel(panel)
    assert named("spacing_mm") == "spacing_mm"


def test_the_worker_process_names_settings_by_the_labels_of_the_panel(host, temporary, tiny_model_file):  # noqa: F811
    from DualTrackSlicerLib.worker import Worker

    worker = Worker((sys.executable, "-m", "DualTrackCore.worker"), os.environ)
    sweep = tracked_sweep(6)
    settings = RunSettings(model=str(tiny_model_file), poses="tracked", direction="other-way")
    job = worker.submit(sweep, settings)
    host.wait_until(lambda: job.state != "running", 60)
    worker.stop()
    with pytest.raises(JobFailed, match="Leave “Direction” out"):
        _ = job.result
