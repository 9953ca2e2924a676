"""As much of Slicer as a scripted module needs to open its panel: windows, a scene, settings, dialogs."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import re
import sys
import tempfile
import time
import types
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

import mrml_widgets
import scripted_module
import slicer
import slicer.util
from PySide6 import QtCore, QtUiTools, QtWidgets
from pythonqt import Bridge, Wrapped, unwrap

MODULE_FOLDER = Path(__file__).resolve().parents[2] / "DualTrackSlicer"


class Loader(QtUiTools.QUiLoader):
    """Knows the stand-ins, and refuses classes and properties that do not exist."""

    def createWidget(self, kind: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> QtWidgets.QWidget:
        if kind in mrml_widgets.STAND_INS:
            widget = mrml_widgets.STAND_INS[kind](parent)
        elif kind in self.availableWidgets():
            widget = super().createWidget(kind, parent, name)
        else:
            raise ValueError(f"The .ui names the class {kind}, which does not exist.")
        widget.setObjectName(name)
        return widget


class Application:
    """`slicer.app`, as far as modules use it; anything else is an AttributeError."""

    applicationName = "Slicer"
    applicationVersion, majorVersion, minorVersion = "5.12.3", 5, 12

    def __init__(self, host: SlicerHost) -> None:
        self._host = host
        self._startup: list[Callable] = []

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self) -> None:
        self._host.qt_application.processEvents()

    def clipboard(self) -> Wrapped:
        return self._host.bridge.wrap(QtWidgets.QApplication.clipboard())

    def applicationLogic(self) -> slicer.vtkSlicerApplicationLogic:
        return self._host.application_logic

    def connect(self, signal: str, slot: Callable) -> bool:
        if signal != "startupCompleted()":
            raise AttributeError(f"qSlicerApplication has no signal {signal!r} here.")
        self._startup.append(slot)
        return True

    def complete_startup(self) -> None:
        """What happens once all modules are loaded."""
        for slot in self._startup:
            slot()


class SequencesModule:
    """`slicer.modules.sequences`, as far as modules use it."""

    def __init__(self) -> None:
        self.browser, self.visible = None, False

    def setToolBarActiveBrowserNode(self, browser: slicer.vtkMRMLSequenceBrowserNode) -> None:
        self.browser = browser

    def setToolBarVisible(self, visible: bool) -> None:
        self.visible = visible


class Dialogs:
    """Message boxes that are answered and remembered instead of shown."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = True

    def confirm(self, text: str, windowTitle: str | None = None, parent: object = None, **others: Any) -> bool:
        self.asked.append(text)
        return self.answer


class SlicerHost:
    """Installs the stand-ins, makes scenes, opens the module, closes everything again.

    Args:
        settings_folder: where QSettings are kept.
    """

    def __init__(self, settings_folder: Path, patch: Any) -> None:
        self.qt_application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
        QtCore.QCoreApplication.setOrganizationName("DualTrackTests")
        QtCore.QCoreApplication.setApplicationName("PanelHost")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, str(settings_folder))
        self.bridge, self.dialogs, self.samples = Bridge(), Dialogs(), []
        self._settings_folder = settings_folder
        self._panels: list[tuple[Any, QtWidgets.QWidget]] = []
        self.sequences = SequencesModule()
        self._install(patch)
        self.new_scene()
        self.module = importlib.import_module("DualTrackSlicer")
        self.module_parent = types.SimpleNamespace(path=str(MODULE_FOLDER / "DualTrackSlicer.py"))
        self.described = self.module.DualTrackSlicer(self.module_parent)

    def new_scene(self) -> None:
        """An empty scene with the logics that its nodes need."""
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        scene = slicer.vtkMRMLScene()
        self.application_logic.SetMRMLScene(scene)
        self._logics = []
        names = ("Sequences", "VolumeRendering", "Markups", "SubjectHierarchy", "Volumes", "Models", "Tables", "Plots")
        for name in names:
            cls = getattr(slicer, f"vtkSlicer{name}Logic", None) or getattr(slicer, f"vtkSlicer{name}ModuleLogic", None)
            if cls is None:
                continue
            logic = cls()
            logic.SetMRMLApplicationLogic(self.application_logic)
            logic.SetMRMLScene(scene)
            self._logics.append(logic)
        # What reading a bundle needs.
        remote, data = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
        remote.SetMRMLScene(scene)
        data.SetMRMLApplicationLogic(self.application_logic)
        data.SetAndObserveDataIOManager(remote.GetDataIOManager())
        remote.AddDataIOToScene()
        remote.GetCacheManager().SetRemoteCacheDirectory(str(self._settings_folder))
        self._logics += [remote, data]
        slicer.mrmlScene = scene

    def open_panel(self, size: tuple[int, int] = (470, 980)) -> Any:
        """The module's panel, set up and shown."""
        window = mrml_widgets.qMRMLWidget()
        QtWidgets.QVBoxLayout(window).setContentsMargins(0, 0, 0, 0)
        window.resize(*size)
        panel = self.module.DualTrackSlicerWidget(self.bridge.wrap(window))
        panel.setup()
        self._panels.append((panel, window))
        window.show()
        self.process()
        return panel

    def close_panel(self, panel: Any) -> None:
        """What happens when the module is reloaded or the application ends."""
        for entry in [entry for entry in self._panels if entry[0] is panel]:
            panel.cleanup()
            entry[1].close()
            self._panels.remove(entry)

    def close(self) -> None:
        """Close all panels; exceptions in slots are raised here at the latest."""
        for panel, _ in list(self._panels):
            self.close_panel(panel)
        self.process()

    def process(self) -> None:
        """Let Qt work; an exception in a slot is raised."""
        for _ in range(4):
            self.qt_application.processEvents()
        if self.bridge.errors:
            error = self.bridge.errors[0]
            self.bridge.errors.clear()
            raise error

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Let Qt work until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"Nothing happened within {seconds} s."
            self.process()
            time.sleep(0.005)

    def click(self, button: Wrapped) -> None:
        """Press a button as a user can: only where it is enabled and there."""
        assert button.enabled, f"{button.name} is disabled: {button.toolTip}"
        assert button.isVisible(), f"{button.name} is not visible"
        button.click()
        self.process()

    def picture(self, panel: Any, path: Path, part: Wrapped | None = None) -> Path:
        """A screenshot of a panel, or of a part of it, with all of it in view."""
        window = next(window for known, window in self._panels if known is panel)
        self.process()
        self.give_room(window)
        assert (window if part is None else unwrap(part)).grab().save(str(path))
        return path

    def give_room(self, window: QtWidgets.QWidget) -> None:
        """Make a window as high as a scroll area makes its contents: long texts are broken at its width."""
        for _ in range(4):  # what was just made visible asks for its room a turn later
            window.resize(window.width(), max(window.layout().heightForWidth(window.width()), 400))
            self.process()

    def load_ui(self, path: str) -> Wrapped:
        """`slicer.util.loadUI`, which also refuses properties that do not exist and wires the scene."""
        file = QtCore.QFile(str(path))
        assert file.open(QtCore.QFile.ReadOnly), path
        widget = Loader().load(file)
        assert widget is not None, path
        _refuse_unknown_properties(widget, ET.parse(path))
        self._wire(widget, ET.parse(path))
        return self.bridge.wrap(widget)

    def child_variables(self, widget: Wrapped) -> types.SimpleNamespace:
        """`slicer.util.childWidgetVariables`."""
        children = unwrap(widget).findChildren(QtWidgets.QWidget)
        named = {child.objectName(): child for child in children if not child.objectName().startswith("qt_")}
        return types.SimpleNamespace(**{name: self.bridge.wrap(child) for name, child in named.items() if name})

    def _wire(self, widget: QtWidgets.QWidget, ui: ET.ElementTree) -> None:
        for connection in ui.iter("connection"):
            sender, receiver = (connection.findtext(end) for end in ("sender", "receiver"))
            for name in (sender, receiver):
                assert name == widget.objectName() or widget.findChild(QtCore.QObject, name), f"The .ui wires {name}."
            assert connection.findtext("signal") == "mrmlSceneChanged(vtkMRMLScene*)"
            assert connection.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"

    def _install(self, patch: Any) -> None:
        sample_data = types.ModuleType("SampleData")
        sample_data.SampleDataLogic = types.SimpleNamespace(registerCustomSampleDataSource=self._register_sample)
        ctk = types.ModuleType("ctk")
        installed = {"qt": self.bridge.module("qt"), "ctk": ctk, "SampleData": sample_data, **scripted_module.modules()}
        for name, module in installed.items():
            patch.setitem(sys.modules, name, module)
        patch.syspath_prepend(str(MODULE_FOLDER))
        patch.setattr(slicer, "app", Application(self), raising=False)
        patch.setattr(slicer, "mrmlScene", None, raising=False)
        patch.setattr(slicer, "modules", types.SimpleNamespace(sequences=self.sequences), raising=False)
        patch.setattr(slicer.util, "loadUI", self.load_ui)
        patch.setattr(slicer.util, "childWidgetVariables", self.child_variables)
        patch.setattr(slicer.util, "modulePath", lambda name: str(MODULE_FOLDER / f"{name}.py"))
        patch.setattr(slicer.util, "confirmOkCancelDisplay", self.dialogs.confirm)
        patch.setattr(slicer.util, "settingsValue", _settings_value)
        patch.setattr(slicer.util, "resetThreeDViews", lambda: None)

    def download_sample(self, name: str) -> object:
        """`SampleData.downloadSample`: copies the file of a source, never asks the source itself, and opens the copy.

        Slicer takes the reader of the kind of data that the source names, and the first node that it loads.
        """
        source = next(sample for sample in self.samples if sample.sampleName == name)
        copy = Path(tempfile.mkdtemp()) / source.fileNames
        urllib.request.urlretrieve(source.uris, copy)
        digest = hashlib.sha256(copy.read_bytes()).hexdigest()
        assert source.checksums in (None, f"SHA256:{digest}")
        reader, parent = self.reader()
        assert source.loadFileType == reader.fileType()
        assert reader.canLoadFileConfidence(str(copy)) > 0
        assert reader.load({"fileName": str(copy), "name": source.nodeNames}), parent.userMessages().texts
        return slicer.mrmlScene.GetNodeByID(parent.loadedNodes[0])

    def reader(self) -> tuple[Any, Any]:
        """The file reader of the module, with the parent that Slicer gives it, which knows its filters."""
        messages = types.SimpleNamespace(texts=[])
        messages.AddMessage = lambda event, text: messages.texts.append(text)
        parent = types.SimpleNamespace(userMessages=lambda: messages, loadedNodes=[])
        reader = self.module.DualTrackSlicerFileReader(parent)

        def filters(path: str) -> list[str]:
            ends = [(text, re.search(r"\(([^()]*)\)$", text)[1].split()) for text in reader.extensions()]
            return [text for text, patterns in ends if any(fnmatch(path.lower(), pattern) for pattern in patterns)]

        parent.supportedNameFilters = filters
        return reader, parent

    def _register_sample(
        self,
        category: str,
        sampleName: str,
        uris: str,
        fileNames: str,
        nodeNames: str,
        thumbnailFileName: str,
        loadFileType: str,
        checksums: str | None,
        customDownloader: Callable,
    ) -> None:
        self.samples.append(types.SimpleNamespace(**{k: v for k, v in locals().items() if k != "self"}))


def _settings_value(key: str, default: Any, converter: Callable = lambda value: value, settings: Any = None) -> Any:
    return converter(QtCore.QSettings().value(key)) if QtCore.QSettings().contains(key) else default


def _refuse_unknown_properties(root: QtWidgets.QWidget, ui: ET.ElementTree) -> None:
    """Every property of the .ui exists on its widget, except dynamic ones that are marked as such."""
    unknown = io.StringIO()
    for element in ui.iter("widget"):
        widget = (
            root if element.get("name") == root.objectName() else root.findChild(QtWidgets.QWidget, element.get("name"))
        )
        for described in element.findall("property"):
            name = described.get("name")
            dynamic = described.get("stdset") == "0"
            exists = widget.metaObject().indexOfProperty(name) >= 0
            if exists == dynamic:
                unknown.write(f"{element.get('class')} {element.get('name')}: {name}\n")
    assert not unknown.getvalue(), f"Properties that do not exist:\n{unknown.getvalue()}"
