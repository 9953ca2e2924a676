"""Programs beside Slicer: how they are found, how they end, and what is said of it."""

import os
import sys
import time
from pathlib import Path

import pytest
import slicer
from journey import add_clip, choose_file, finish, scene_names
from worker_processes import is_running

from DualTrackCore.errors import MissingDependencyError
from DualTrackCore.worker.process import described_ending

LAUNCHER_WORDS = "error: [/opt/Slicer/bin/./python-real] exit abnormally - Report the problem."
#: Starts another program, says its number, and waits for it, as a launcher does.
LAUNCHER = (
    "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print(p.pid, flush=True); p.wait()"
)
#: What a worker says first.
GREETING = (
    "from DualTrackCore.worker.protocol import encoded, hello; import sys; "
    "sys.stdout.buffer.write(encoded(hello())); sys.stdout.flush(); "
)


def started(host, code, tmp_path):
    """(a program, the lines that it wrote, how often its end was told)."""
    from DualTrackSlicerLib.process import Process

    lines, ends = [], []
    command = [sys.executable, "-c", code]
    process = Process(command, os.environ, tmp_path / "log.txt", lines.append, lambda: ends.append(1))
    return process, lines, ends


def executable(folder: Path, name: str) -> Path:
    """A program that does nothing."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_program_is_ended_with_what_its_launcher_started(host, tmp_path):
    process, lines, ends = started(host, LAUNCHER, tmp_path)
    host.wait_until(lambda: lines, 30)
    child = int(lines[0])
    assert is_running(child)
    process.end()
    host.wait_until(lambda: ends, 30)
    assert ends == [1]
    assert process.returncode == -9
    end = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < end


def test_lines_come_whole_and_what_is_no_text_does_no_harm(host, tmp_path):
    code = "import os, time; os.write(1, b'on'); time.sleep(0.2); os.write(1, b'e\\ntw\\xff\\nthree'); "
    code += "os.write(2, b'\\xfe!')"
    process, lines, ends = started(host, code, tmp_path)
    host.wait_until(lambda: ends, 30)
    assert lines == [b"one", b"tw\xff"]
    assert process.returncode == 0
    assert process.log_tail() == "\ufffd!"


def test_a_program_that_is_not_there_is_told_as_its_end(host, tmp_path):
    from DualTrackSlicerLib.process import Process

    ends = []
    process = Process([str(tmp_path / "none")], {}, tmp_path / "log.txt", ends.append, lambda: ends.append("gone"))
    host.wait_until(lambda: ends, 30)
    assert ends == ["gone"]
    assert process.problem
    assert process.returncode is None


@pytest.mark.parametrize("ended", [False, True])
def test_a_log_that_cannot_be_written_is_told_when_the_program_has_been_made(host, tmp_path, ended):
    from DualTrackSlicerLib.process import Process

    ends, made = [], []
    command, log = [sys.executable, "-c", ""], tmp_path / "none" / "log.txt"
    process = Process(command, os.environ, log, ends.append, lambda: ends.append(list(made)))
    made.append(process)
    if ended:
        process.end(wait=True)
        assert ends == [[process]]
    host.wait_until(lambda: ends, 30)
    host.process()
    assert ends == [[process]]
    assert process.problem
    assert process.pid == 0


def test_python_is_started_without_the_launcher_that_hides_how_it_ends(host, tmp_path, monkeypatch):
    from DualTrackSlicerLib.process import slicerPython

    launcher = executable(tmp_path / "bin", "PythonSlicer")
    monkeypatch.setenv("PATH", str(launcher.parent))
    assert slicerPython() == str(launcher)
    real = executable(tmp_path / "bin", "python-real")
    assert slicerPython() == str(real)


def test_the_application_itself_is_never_started_as_python(host, tmp_path, monkeypatch):
    from DualTrackSlicerLib.process import slicerPython

    monkeypatch.setenv("PATH", str(tmp_path))
    assert slicerPython() == sys.executable
    monkeypatch.setattr(sys, "executable", "/opt/Slicer/bin/SlicerApp-real")
    with pytest.raises(MissingDependencyError, match="PythonSlicer"):
        slicerPython()


def test_an_end_behind_the_launcher_offers_a_run_with_less_memory(host, panel, tiny_model_file, monkeypatch):
    assert described_ending(1, LAUNCHER_WORDS)[0] == "memory"
    assert described_ending(1, "ValueError: bad")[0] == "crash"
    code = f"import sys; sys.stdin.readline(); print({LAUNCHER_WORDS!r}, file=sys.stderr); sys.exit(1)"
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.logic.worker()._command = (sys.executable, "-c", GREETING + code)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert "memory ran out" in panel.ui.errorLabel.text
    assert panel.ui.retryButton.isVisible()
    host.click(panel.ui.copyErrorButton)
    assert "exit abnormally" in slicer.app.clipboard().text()


def test_a_cancelled_download_has_ended_before_another_can_begin(host, panel, monkeypatch, tmp_path):
    from DualTrackSlicerLib import models

    monkeypatch.setattr(models, "slicerPython", lambda: str(tmp_path / "python"))
    program = executable(tmp_path, "python")
    # A launcher that waits for a program which writes on and on.
    program.write_text(
        f'#!/bin/sh\n{sys.executable} -c \'import os, time\nopen("{tmp_path}/pid", "w").write(str(os.getpid()))\n'
        f'while True:\n    open("{tmp_path}/part", "a").write("x"); time.sleep(0.01)\'\n:\n'
    )
    names = [choice.name for choice in panel.view().models]
    panel.ui.modelComboBox.currentIndex = names.index("dualtrack-tusrec2024")
    host.click(panel.ui.downloadButton)
    assert panel.ui.downloadButton.text == "Cancel download"
    host.wait_until(lambda: (tmp_path / "part").exists(), 30)
    writer = int((tmp_path / "pid").read_text())
    host.click(panel.ui.downloadButton)
    host.wait_until(lambda: panel.ui.downloadButton.text == "Download…", 30)
    assert not is_running(writer)
    assert "Cancelled" in panel.ui.modelMessageLabel.text


def test_a_callback_that_raises_leaves_no_run_running(host, tiny_model_file):
    def fail(*_):
        raise ZeroDivisionError

    logic = host.module.DualTrackSlicerLogic()
    run = logic.run(add_clip(host), model=str(tiny_model_file), onProgress=fail, onDone=fail)
    host.wait_until(lambda: run.state != "running", 120)
    assert run.state == "done"
    again = logic.run(slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode"), model=str(tiny_model_file))
    assert again.volume is not None
    logic.close()


def test_a_worker_that_says_nonsense_is_ended_with_a_sentence(host, panel, tiny_model_file):
    code = GREETING + "print('\\xfc nonsense', flush=True); sys.stdin.readline(); sys.stdin.read()"
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.logic.worker()._command = (sys.executable, "-c", code)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    assert "something unreadable" in panel.ui.errorLabel.text


def test_nothing_acts_while_another_module_is_shown(host, panel, tiny_model_file):
    add_clip(host)
    choose_file(panel, tiny_model_file)
    panel.exit()
    shown = panel.ui.clipComboBox.currentText, panel.ui.clipInfoLabel.text
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    add_clip(host, name="other")
    slicer.mrmlScene.Clear(False)
    add_clip(host, name="third")
    host.process()
    assert panel.parameters is None
    assert (panel.ui.clipComboBox.currentText, panel.ui.clipInfoLabel.text) == shown
    assert composite.GetBackgroundVolumeID() is None
    panel.enter()
    assert panel.ui.clipComboBox.currentText == "third"


@pytest.mark.parametrize("way", ["the button", "the scene closes"])
def test_a_run_can_be_cancelled_while_its_result_comes_into_the_scene(host, panel, tiny_model_file, monkeypatch, way):
    from DualTrackSlicerLib import run as running

    def endless(*arguments, **options):
        while True:
            yield

    add_clip(host)
    choose_file(panel, tiny_model_file)
    monkeypatch.setattr(running, "showInPieces", endless)
    before = scene_names()
    host.click(panel.ui.applyButton)
    run = panel.runSection.run
    host.wait_until(lambda: run._pieces is not None, 120)
    assert panel.ui.applyButton.text == "Cancel"
    if way == "the button":
        host.click(panel.ui.applyButton)
        assert scene_names() == before
        assert panel.ui.applyButton.enabled
    else:
        slicer.mrmlScene.Clear(False)
        host.process()
    assert (run.state, run._pieces, run._clip) == ("cancelled", None, None)
    assert panel.ui.applyButton.text == "Apply"
