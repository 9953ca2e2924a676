"""What PythonQt would stumble over, and who may import what, read from the source."""

import ast
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

MODULE = Path(__file__).resolve().parents[2] / "DualTrackSlicer"
LIBRARY = MODULE / "DualTrackSlicerLib"
SOURCES = sorted([MODULE / "DualTrackSlicer.py", *LIBRARY.rglob("*.py")])
#: Classes of the .ui that Slicer's designer plugins and Qt itself have.
UI_CLASSES = {
    "qMRMLWidget", "ctkCollapsibleButton", "ctkPathLineEdit", "QWidget", "QTabWidget", "QLabel", "QComboBox", "QFrame",
    "QPushButton", "QSpinBox", "QDoubleSpinBox", "QCheckBox", "QProgressBar", "QGroupBox", "QTableWidget",
    "QPlainTextEdit", "QSlider", "QToolButton", "QLineEdit",
}  # fmt: skip


def traps(tree):
    """(line, what is wrong) of each habit that passes elsewhere and fails in PythonQt."""
    for node in ast.walk(tree):
        yield from _call_traps(node)
        if isinstance(node, ast.Attribute):
            chain = _dotted(node)
            if re.fullmatch(r"qt\.Q\w+\.[A-Z]\w+\.\w+", chain):
                yield node.lineno, f"scoped enumeration {chain}"
            if chain in ("qt.Signal", "qt.Slot", "qt.Property"):
                yield node.lineno, f"{chain} does not exist"
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is None:
            for target in node.targets:
                if isinstance(target, ast.Attribute) and target.attr in ("text", "toolTip", "title", "currentPath"):
                    yield node.lineno, f"None assigned to {target.attr}"


def _call_traps(node):
    if not isinstance(node, ast.Call):
        return
    name = _dotted(node.func)
    if name.startswith(("qt.", "ctk.")) and node.keywords:
        yield node.lineno, f"keywords in {name}(...)"
    if name in ("isinstance", "issubclass") and "qt." in ast.unparse(node):
        yield node.lineno, "isinstance with a Qt class"
    if name.endswith((".connect", ".disconnect")):
        first = node.args[0] if node.args else None
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str) and "(" in first.value):
            yield node.lineno, "a signal that is not named by its signature"
        if len(node.args) > 1 and isinstance(node.args[1], ast.Call | ast.Lambda):
            yield node.lineno, "a slot that is a lambda or a partial"
    if name.endswith(".sizeHint"):
        yield node.lineno, "sizeHint() is a property"
    if name.endswith(("getOpenFileName", "getSaveFileName")) and node.keywords:
        yield node.lineno, "keywords in a file dialogue"


def _dotted(node):
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    parts.append(node.id if isinstance(node, ast.Name) else "")
    return ".".join(reversed(parts))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_falls_into_a_trap_of_pythonqt(path):
    assert list(traps(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "qt.Qt.CheckState.Checked",
        "qt.Signal",
        "qt.QPushButton(text='a')",
        "isinstance(x, qt.QWidget)",
        "button.clicked.connect(f)",
        "button.connect('clicked()', functools.partial(f, 1))",
        "button.connect('clicked()', lambda: f())",
        "label.text = None",
        "widget.sizeHint()",
    ],
)
def test_the_check_sees_each_trap(line):
    assert list(traps(ast.parse(line)))


def imported(path):
    """Top-level names of what a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_only_the_panel_events_and_processes_import_qt_and_nothing_below_imports_the_panel(path):
    if path.parent.name == "widget" or path.name in ("DualTrackSlicer.py", "events.py", "process.py"):
        return
    names = imported(path)
    assert not names & {"qt", "ctk"}
    assert not any(name.startswith("DualTrackSlicerLib.widget") for name in names)
    if path.parent.name == "scene":
        inside = {name for name in names if name.startswith("DualTrackSlicerLib")}
        assert all(name.startswith("DualTrackSlicerLib.scene") for name in inside)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_imports_torch_or_is_long(path):
    assert not {name.split(".")[0] for name in imported(path)} & {"torch", "timm", "safetensors", "pydicom"}
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_opening_the_module_loads_no_torch(host):
    """In a process that has not loaded it before."""
    import subprocess
    import sys

    code = (
        "import sys, slicer, types, unittest.mock as m, vtk\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(MODULE)!r}]\n"
        "import pytest, pathlib, tempfile\n"
        "from slicer_host import SlicerHost\n"
        "host = SlicerHost(pathlib.Path(tempfile.mkdtemp()), pytest.MonkeyPatch())\n"
        "panel = host.open_panel(); host.close()\n"
        "print(sorted({'torch', 'timm', 'h5py', 'pydicom'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def test_the_ui_names_only_classes_that_slicer_has():
    ui = ET.parse(MODULE / "Resources" / "UI" / "DualTrackSlicer.ui")
    assert {element.get("class") for element in ui.iter("widget")} <= UI_CLASSES
    assert ui.getroot().find("widget").get("class") == "qMRMLWidget"
    names = [element.get("name") for element in ui.iter("widget")]
    assert len(names) == len(set(names))


def test_every_parameter_of_the_ui_exists(host):
    from DualTrackSlicerLib.parameters import DualTrackSlicerParameterNode

    ui = ET.parse(MODULE / "Resources" / "UI" / "DualTrackSlicer.ui")
    connected = {prop.findtext("string") for prop in ui.iter("property") if prop.get("name") == "SlicerParameterName"}
    assert connected <= set(DualTrackSlicerParameterNode.allParameters)
    by_hand = {"browser", "sequence", "region", "fanCorners", "fanOutline", "compared", "model"}
    by_hand |= {"cropRegion", "ruler", "mask", "profile"}
    by_hand |= {"countedIn", "landmarks", "trackerNode", "orientationsFile", "trackerFile"}
    assert set(DualTrackSlicerParameterNode.allParameters) - connected == by_hand


def test_nothing_of_the_bundle_is_asked_for_again():
    text = (MODULE / "Resources" / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert not {re.split(r"[<>=!~]", line)[0].lower() for line in lines} & {"numpy", "vtk", "simpleitk", "torch"}
    assert not any("==" in line for line in lines)
