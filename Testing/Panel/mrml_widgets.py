"""Stand-ins for the ctk and qMRML classes that the panel's .ui names, with the properties and signals they have.

Names are those of the public headers of CTK (Libs/Widgets) and Slicer (Libs/MRML/Widgets). A property or a signal
that is not declared here does not exist, so a misspelt one fails in the tests.
"""

from __future__ import annotations

from PySide6 import QtCore, QtWidgets


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that knows the scene."""

    mrmlSceneChanged = QtCore.Signal("vtkMRMLScene*")

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.scene = None

    def setMRMLScene(self, scene: object) -> None:
        self.scene = scene


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A titled section that folds."""

    contentsCollapsed = QtCore.Signal(bool)
    _TITLE_HEIGHT = 26

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self._button = QtWidgets.QToolButton(self)
        self._button.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)
        self._button.setStyleSheet(
            "QToolButton { border: 1px solid #bbb; border-radius: 3px; background: #e8e8e8; "
            "font-weight: bold; text-align: left; padding-left: 4px; }"
        )
        self._button.clicked.connect(lambda: self._set_collapsed(not self._collapsed))
        self._button.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self.setContentsMargins(0, self._TITLE_HEIGHT, 0, 0)

    def _get_text(self) -> str:
        return self._text

    def _set_text(self, text: str) -> None:
        self._text = text
        self._button.setText(text)

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        changed, self._collapsed = collapsed != self._collapsed, collapsed
        self._show_contents()
        if changed:
            self.contentsCollapsed.emit(collapsed)

    def _show_contents(self) -> None:
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
            if child is not self._button and not child.isWindow():
                child.setVisible(not self._collapsed)
        self._button.setArrowType(QtCore.Qt.RightArrow if self._collapsed else QtCore.Qt.DownArrow)
        self.setMaximumHeight(self._TITLE_HEIGHT if self._collapsed else 16777215)

    def showEvent(self, event: object) -> None:
        if self._collapsed:
            self._show_contents()

    def resizeEvent(self, event: object) -> None:
        self._button.setGeometry(0, 0, self.width(), self._TITLE_HEIGHT - 2)
        self._button.setArrowType(QtCore.Qt.RightArrow if self._collapsed else QtCore.Qt.DownArrow)

    text = QtCore.Property(str, _get_text, _set_text)
    collapsed = QtCore.Property(bool, _get_collapsed, _set_collapsed)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path, with a button to browse."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._filters, self._name_filters, self._setting_key = QtCore.QDir.Files, [], ""
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._edit = QtWidgets.QLineEdit(self)
        self._browse = QtWidgets.QToolButton(self)
        self._browse.setText("…")
        layout.addWidget(self._edit)
        layout.addWidget(self._browse)
        self._edit.textChanged.connect(self.currentPathChanged)

    def _get_path(self) -> str:
        return self._edit.text()

    def _set_path(self, path: str) -> None:
        self._edit.setText(path)

    def _get_filters(self) -> QtCore.QDir.Filter:
        return self._filters

    def _set_filters(self, filters: QtCore.QDir.Filter) -> None:
        self._filters = filters

    def _get_name_filters(self) -> list:
        return self._name_filters

    def _set_name_filters(self, filters: list) -> None:
        self._name_filters = filters

    def _get_key(self) -> str:
        return self._setting_key

    def _set_key(self, key: str) -> None:
        self._setting_key = key

    currentPath = QtCore.Property(str, _get_path, _set_path)
    filters = QtCore.Property(QtCore.QDir.Filter, _get_filters, _set_filters)
    nameFilters = QtCore.Property("QStringList", _get_name_filters, _set_name_filters)
    settingKey = QtCore.Property(str, _get_key, _set_key)


STAND_INS = {cls.__name__: cls for cls in (qMRMLWidget, ctkCollapsibleButton, ctkPathLineEdit)}
