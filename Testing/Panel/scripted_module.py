"""Stand-ins for Slicer's Python base classes and its parameter nodes, over the real MRML libraries.

Only what scripted modules rely on, and strict: a parameter that does not exist, a value of the wrong type or out of
range, a widget that has no connector for its parameter are errors here as they are in Slicer.
"""

from __future__ import annotations

import enum
import importlib
import pathlib
import types
import typing
import unittest
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import slicer
import vtk
from packaging.requirements import Requirement
from PySide6 import QtWidgets
from pythonqt import unwrap


class ScriptedLoadableModule:
    """Metadata of a module."""

    def __init__(self, parent: object) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, filename: str) -> str:
        """A file in the folder Resources beside the module."""
        return str(pathlib.Path(self.parent.path).parent / "Resources" / filename)


class ScriptedLoadableModuleWidget:
    """The panel of a module."""

    def __init__(self, parent: object = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, filename: str) -> str:
        """A file in the folder Resources beside the module."""
        return str(pathlib.Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Nothing: the developer's section is not shown."""

    def onReload(self) -> None:
        """Read the module anew."""
        slicer.util.reloadScriptedModule(self.moduleName)


class ScriptedLoadableModuleLogic:
    """The logic of a module, with one parameter node a scene."""

    def __init__(self, parent: object = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> slicer.vtkMRMLScriptedModuleNode:
        """The module's node of the scene, made where there is none."""
        found = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if found is not None:
            return found
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A self-test."""

    messageDelay = 0


@dataclass(frozen=True)
class WithinRange:
    """Bounds of a number, both included."""

    minimum: float
    maximum: float


class _Parameter:
    """One setting: how it is written into a node and read from it."""

    def __init__(self, name: str, annotation: Any, default: Any) -> None:
        self.name = name
        self.bounds = None
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *extras = typing.get_args(annotation)
            self.bounds = next((extra for extra in extras if isinstance(extra, WithinRange)), None)
        self.kind = annotation
        self.is_node = isinstance(annotation, type) and issubclass(annotation, slicer.vtkMRMLNode)
        if not self.is_node and not (annotation in (bool, int, float, str, pathlib.Path) or _is_enum(annotation)):
            raise TypeError(f"Parameter {name} has the type {annotation}, which parameter nodes do not keep.")
        self.default = default

    def check(self, value: Any) -> Any:
        if self.is_node:
            if value is not None and not isinstance(value, self.kind):
                raise TypeError(f"Parameter {self.name} takes {self.kind.__name__}, not {value!r}.")
            return value
        allowed = (
            (int, float) if self.kind is float else (pathlib.PurePath,) if self.kind is pathlib.Path else self.kind
        )
        if not isinstance(value, allowed) or (isinstance(value, bool) and self.kind is not bool):
            raise TypeError(f"Parameter {self.name} takes {self.kind.__name__}, not {value!r}.")
        if self.bounds is not None and not self.bounds.minimum <= value <= self.bounds.maximum:
            raise ValueError(f"Parameter {self.name} is {value}; it must lie in {self.bounds}.")
        return value

    def write(self, node: slicer.vtkMRMLScriptedModuleNode, value: Any) -> None:
        value = self.check(value)
        if self.is_node:
            node.SetNodeReferenceID(self.name, None if value is None else value.GetID())
        elif _is_enum(self.kind):
            node.SetParameter(self.name, value.name)
        else:
            node.SetParameter(self.name, str(value))

    def read(self, node: slicer.vtkMRMLScriptedModuleNode) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if _is_enum(self.kind):
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)

    def is_in(self, node: slicer.vtkMRMLScriptedModuleNode) -> bool:
        return self.is_node or self.name in node.GetParameterNames()


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def parameterNodeWrapper(cls: type) -> type:
    """Make a class of annotations into typed access to a parameter node."""
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {
        name: _Parameter(name, hint, getattr(cls, name, None if not _has_empty(hint) else _empty(hint)))
        for name, hint in hints.items()
    }
    for name, parameter in parameters.items():
        setattr(cls, name, property(_getter(parameter), _setter(parameter)))
    for name, member in vars(_Wrapper).items():
        if name not in ("__module__", "__dict__", "__weakref__", "__doc__"):
            setattr(cls, name, member)
    cls.allParameters = parameters
    return cls


def _has_empty(hint: Any) -> bool:
    return hint in (bool, int, float, str)


def _empty(hint: Any) -> Any:
    return hint()


def _getter(parameter: _Parameter) -> Any:
    return lambda self: parameter.read(self.parameterNode)


def _setter(parameter: _Parameter) -> Any:
    def write(self: Any, value: Any) -> None:
        parameter.write(self.parameterNode, value)

    return write


class _Wrapper:
    def __init__(self, parameterNode: slicer.vtkMRMLScriptedModuleNode) -> None:
        self.__dict__.update(parameterNode=parameterNode, _guis={}, _updating=False)
        for parameter in self.allParameters.values():
            if not parameter.is_in(parameterNode):
                parameter.write(parameterNode, parameter.default)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.allParameters and name not in self.__dict__:
            raise AttributeError(f"There is no parameter {name!r}.")
        object.__setattr__(self, name, value)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, before: int) -> int:
        return self.parameterNode.EndModify(before)

    def connectGui(self, ui: types.SimpleNamespace) -> int:
        connectors = {}
        for widget in vars(ui).values():
            name = widget.property("SlicerParameterName")
            if name:
                if name not in self.allParameters:
                    raise ValueError(f"Cannot find a param with the given name: {name}")
                connectors[name] = _Connector(self, self.allParameters[name], widget)
        tag = len(self._guis)
        self._guis[tag] = (connectors, self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._show))
        return tag

    def disconnectGui(self, tag: int) -> None:
        connectors, observer = self._guis.pop(tag)
        self.parameterNode.RemoveObserver(observer)
        for connector in connectors.values():
            connector.disconnect()

    def _show(self, caller: object, event: str) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in list(self._guis.values()):
                for name, connector in connectors.items():
                    connector.write(getattr(self, name))
        finally:
            self._updating = False

    def _take(self, name: str, value: Any) -> None:
        if not self._updating:
            setattr(self, name, value)


class _Connector:
    """Between a parameter and the one kind of widget that Slicer connects it to."""

    _SIGNALS: typing.ClassVar = {
        QtWidgets.QCheckBox: ("stateChanged(int)", bool),
        QtWidgets.QSpinBox: ("valueChanged(int)", int),
        QtWidgets.QDoubleSpinBox: ("valueChanged(double)", float),
        QtWidgets.QComboBox: ("currentIndexChanged(int)", enum.Enum),
        QtWidgets.QLineEdit: ("textChanged(QString)", str),
    }

    def __init__(self, owner: _Wrapper, parameter: _Parameter, widget: Any) -> None:
        self.owner, self.parameter, self.widget = owner, parameter, widget
        kind = type(unwrap(widget))
        if kind.__name__ == "ctkPathLineEdit":
            self.signal, expected = "currentPathChanged(QString)", pathlib.Path
        elif kind in self._SIGNALS:
            self.signal, expected = self._SIGNALS[kind]
        else:
            raise RuntimeError(f"Unable to create GUI connector to widget type {kind.__name__}")
        if not issubclass(parameter.kind, expected):
            raise RuntimeError(f"{kind.__name__} cannot show the parameter {parameter.name} of {parameter.kind}")
        if expected in (int, float):
            bounds = parameter.bounds or WithinRange(-(2**31), 2**31 - 1)
            widget.minimum, widget.maximum = bounds.minimum, bounds.maximum
        if expected is enum.Enum:
            widget.clear()
            for member in parameter.kind:
                widget.addItem(member.label() if hasattr(member, "label") else member.name)
        self.expected = expected
        self.write(getattr(owner, parameter.name))
        widget.connect(self.signal, self.changed)

    def changed(self) -> None:
        self.owner._take(self.parameter.name, self.read())

    def disconnect(self) -> None:
        self.widget.disconnect(self.signal, self.changed)

    def read(self) -> Any:
        if self.expected is bool:
            return self.widget.checked
        if self.expected is enum.Enum:
            return list(self.parameter.kind)[self.widget.currentIndex]
        if self.expected is pathlib.Path:
            return pathlib.Path(self.widget.currentPath)
        return self.widget.text if self.expected is str else self.widget.value

    def write(self, value: Any) -> None:
        if self.expected is bool:
            self.widget.checked = value
        elif self.expected is enum.Enum:
            self.widget.currentIndex = list(self.parameter.kind).index(value)
        elif self.expected is pathlib.Path:
            self.widget.currentPath = str(value)
        elif self.expected is str:
            self.widget.text = value
        else:
            self.widget.value = value


def _is_satisfied(requirement: str) -> bool:
    """Whether a package is installed in a version that fits."""
    wanted = Requirement(requirement)
    try:
        return metadata.version(wanted.name) in wanted.specifier
    except metadata.PackageNotFoundError:
        return False


def modules() -> dict[str, types.ModuleType]:
    """The modules that scripted modules import these names from."""
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for cls in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, cls.__name__, cls)
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    wrapper.parameterNodeWrapper, wrapper.WithinRange = parameterNodeWrapper, WithinRange
    translation = types.ModuleType("slicer.i18n")
    translation.tr = lambda text: text
    translation.translate = lambda context, text: text
    packages = types.ModuleType("slicer.packaging")
    packages.pip_check = _is_satisfied
    found = {module.__name__: module for module in (base, wrapper, translation, packages)}
    assert importlib.util.find_spec("slicer") is not None
    return found
