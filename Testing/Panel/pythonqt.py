"""Qt as PythonQt shows it to scripted modules, over PySide6, and stricter than either.

Properties are attributes, setters stay methods, signals are connected by their C++ signature, enumerations are
unscoped. What would fail or silently do nothing in Slicer is refused here: unknown attributes and signals, keyword
arguments, getters of properties called as methods, `None` as a text, scoped enumerations, `qt.Signal`.
"""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

_MODULES = (QtWidgets, QtGui, QtCore)
#: Names of PySide6 that PythonQt does not have.
_REFUSED = {"Signal", "Slot", "Property", "SIGNAL", "SLOT", "QEnum", "QFlag", "ClassInfo"}
#: PythonQt returns the file name alone.
_FIRST_OF_TUPLE = {"getOpenFileName", "getSaveFileName"}


class SlotErrors(list):
    """Exceptions that slots raised: Qt only prints them, a test must fail for them."""


def unwrap(value: Any) -> Any:
    """What PySide6 takes, for what the module code holds."""
    if isinstance(value, Wrapped):
        return object.__getattribute__(value, "_target")
    if isinstance(value, list | tuple):
        return type(value)(unwrap(item) for item in value)
    return value


class Wrapped:
    """One Qt object as PythonQt shows it."""

    def __init__(self, target: Any, bridge: Bridge) -> None:
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_bridge", bridge)

    def __getattr__(self, name: str) -> Any:
        target, bridge = self._target, self._bridge
        if isinstance(target, QtCore.QObject):
            if name == "name":
                return target.objectName()
            if target.metaObject().indexOfProperty(name) >= 0:
                return bridge.wrap(target.property(name))
            if name == "connect":
                return lambda signal, slot: bridge.connect(target, signal, slot)
            if name == "disconnect":
                return lambda signal, slot: bridge.disconnect(target, signal, slot)
        return bridge.member(target, name, type(target).__name__)

    def __setattr__(self, name: str, value: Any) -> None:
        target = self._target
        kind = type(target).__name__
        index = target.metaObject().indexOfProperty(name) if isinstance(target, QtCore.QObject) else -1
        if index < 0:
            raise AttributeError(f"{kind} has no property {name!r}, and PythonQt creates no new attributes.")
        described = target.metaObject().property(index)
        if not described.isWritable():
            raise AttributeError(f"The property {name!r} of {kind} is read-only.")
        expected = {"QString": str, "bool": bool, "int": int, "double": (int, float)}.get(described.typeName())
        if expected is not None and not isinstance(value, expected):
            raise TypeError(f"{kind}.{name} takes {described.typeName()}, not {value!r}.")
        if not target.setProperty(name, unwrap(value)):
            raise TypeError(f"{kind}.{name} does not take {value!r}.")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrapped) and unwrap(self) is unwrap(other)

    def __hash__(self) -> int:
        return hash(id(self._target))

    def __bool__(self) -> bool:
        return True


class WrappedClass:
    """A class of the `qt` or `ctk` module: called without keywords, its enumerations unscoped."""

    def __init__(self, cls: type, bridge: Bridge) -> None:
        self._cls, self._bridge = cls, bridge

    def __call__(self, *arguments: Any) -> Any:
        return self._bridge.wrap(self._cls(*(unwrap(argument) for argument in arguments)))

    def __getattr__(self, name: str) -> Any:
        return self._bridge.member(self._cls, name, self._cls.__name__)

    def describes(self, value: Any) -> bool:
        """Whether `type(value) == qt.ThisClass` would hold in PythonQt."""
        return isinstance(value, Wrapped) and type(unwrap(value)) is self._cls


class Bridge:
    """Wraps objects once each, connects signals, collects what slots raise."""

    def __init__(self) -> None:
        self.errors = SlotErrors()
        self._wrappers: dict[int, Wrapped] = {}
        self._slots: dict[tuple[int, str, Any], Callable] = {}

    def wrap(self, value: Any) -> Any:
        """What PythonQt gives for a value of PySide6."""
        if isinstance(value, enum.Enum):
            return value
        if isinstance(value, tuple | list):
            return type(value)(self.wrap(item) for item in value)
        if not type(value).__module__.startswith(("PySide6", "mrml_widgets")):
            return value
        known = self._wrappers.get(id(value))
        if known is None:
            known = self._wrappers[id(value)] = Wrapped(value, self)
        return known

    def member(self, owner: Any, name: str, kind: str) -> Any:
        """A method, or a member of an unscoped enumeration."""
        found = inspect.getattr_static(owner, name, None)
        if found is None and hasattr(owner, name):
            found = getattr(owner, name)
        if found is None or name.startswith("_"):
            raise AttributeError(f"{kind} has no attribute {name!r}.")
        if isinstance(found, QtCore.Signal | QtCore.SignalInstance):
            raise AttributeError(f"Connect {kind}.{name} by its signature: connect('{name}(...)', slot).")
        value = getattr(owner, name)
        if isinstance(value, enum.EnumMeta):
            raise AttributeError(f"{kind}.{name} is a scoped enumeration; PythonQt knows {kind}.<member> only.")
        if isinstance(value, enum.Enum):
            return value
        if not callable(value):
            raise AttributeError(f"{kind} has no attribute {name!r} in PythonQt.")
        return self._method(value, name)

    def _method(self, method: Callable, name: str) -> Callable:
        def call(*arguments: Any) -> Any:
            result = method(*(self._guarded(argument) for argument in arguments))
            return self.wrap(result[0] if name in _FIRST_OF_TUPLE else result)

        return call

    def connect(self, target: QtCore.QObject, signature: str, slot: Callable) -> bool:
        """Connect by C++ signature; the slot gets as many arguments as it takes, as in PythonQt."""
        key = self._key(target, signature, slot)
        guarded = self._slots[key] = self._guarded(slot)
        return QtCore.QObject.connect(target, QtCore.SIGNAL(key[1]), guarded)

    def disconnect(self, target: QtCore.QObject, signature: str, slot: Callable) -> bool:
        """Undo :meth:`connect`."""
        key = self._key(target, signature, slot)
        guarded = self._slots.pop(key, None)
        return guarded is not None and QtCore.QObject.disconnect(target, QtCore.SIGNAL(key[1]), guarded)

    def _guarded(self, argument: Any) -> Any:
        """What PySide6 takes for an argument; of a function one whose exceptions are kept, for Qt only prints them."""
        if not isinstance(argument, types.FunctionType | types.MethodType):
            return unwrap(argument)
        takes = _arguments_taken(argument)

        def guarded(*arguments: Any) -> None:
            try:
                argument(*(self.wrap(value) for value in arguments[:takes]))
            except Exception as error:
                self.errors.append(error)

        return guarded

    def _key(self, target: QtCore.QObject, signature: str, slot: Callable) -> tuple[int, str, Any]:
        if not isinstance(signature, str) or "(" not in signature:
            raise TypeError(f"connect takes a C++ signature such as 'clicked()', not {signature!r}.")
        normal = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
        if target.metaObject().indexOfSignal(normal) < 0:
            raise AttributeError(f"{type(target).__name__} has no signal {signature!r}.")
        if not isinstance(slot, types.FunctionType | types.MethodType):
            raise TypeError(f"{slot!r} cannot be a slot; give a function or a method.")
        return id(target), normal, slot

    def module(self, name: str) -> types.ModuleType:
        """The module `qt`."""
        bridge = self

        class QtModule(types.ModuleType):
            def __getattr__(self, attribute: str) -> WrappedClass:
                for source in _MODULES:
                    found = getattr(source, attribute, None)
                    if isinstance(found, type) and attribute.startswith("Q") and attribute not in _REFUSED:
                        return WrappedClass(found, bridge)
                raise AttributeError(f"The module qt has no {attribute!r}.")

        return QtModule(name)


def _arguments_taken(slot: Callable) -> int | None:
    """Most positional arguments of a slot; None for any number."""
    parameters = inspect.signature(slot).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
