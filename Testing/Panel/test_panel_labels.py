"""Nothing that the panel says is cut off: at 100 % and at 150 %, with everything unfolded and a result shown."""

import pytest
from journey import add_clip, finish
from named_clips import named_sweep
from PySide6 import QtWidgets

#: Width of Slicer's dock at 100 %, pixels.
DOCK = 500


@pytest.fixture(params=[1.0, 1.5], ids=["100 %", "150 %"])
def scaled(request, host):
    """How many times as large letters are as usual."""
    usual = QtWidgets.QApplication.font()
    larger = QtWidgets.QApplication.font()
    larger.setPointSizeF(usual.pointSizeF() * request.param)
    QtWidgets.QApplication.setFont(larger)
    yield request.param
    QtWidgets.QApplication.setFont(usual)


def clipped(window):
    """What is narrower or lower than its words: buttons and boxes, labels in one line, and labels with line breaks."""
    for widget in window.findChildren(QtWidgets.QWidget):
        if not widget.isVisible() or not widget.objectName():
            continue  # what has no name is a part of a stand-in
        if isinstance(widget, QtWidgets.QLabel) and widget.wordWrap():
            if widget.height() < widget.heightForWidth(widget.width()):
                yield widget.objectName(), widget.text()
        elif isinstance(widget, QtWidgets.QAbstractSpinBox):
            if widget.width() < widget.minimumSizeHint().width():
                yield widget.objectName(), widget.text()
        elif isinstance(widget, QtWidgets.QLabel | QtWidgets.QAbstractButton) and widget.text():
            needed = widget.sizeHint()
            if widget.width() < needed.width() or widget.height() < needed.height():
                yield widget.objectName(), widget.text()


def test_no_words_are_cut_off(host, scaled, pictures):
    panel = host.open_panel((round(DOCK * scaled), 980))
    add_clip(host, named_sweep())
    for name in ("prepareSection", "partSection", "profileSection", "advancedSection", "correctSection"):
        getattr(panel.ui, name).collapsed = False
    host.wait_until(lambda: "Picture area" in panel.ui.preparedLabel.text, 60)
    panel.ui.posesComboBox.currentIndex = 1
    host.click(panel.ui.rulerButton)
    host.click(panel.ui.applyButton)
    finish(host, panel)
    panel.ui.modelsFolderEdit.currentPath = "/data/ultrasound/models"
    host.picture(panel, pictures / f"panel-labels-{round(100 * scaled)}.png")
    window = next(window for known, window in host._panels if known is panel)
    host.give_room(window)
    assert panel.ui.resultGroup.isVisible()
    assert window.width() <= DOCK * scaled  # it asks for no more than a usual dock has
    assert list(clipped(window)) == []
    for area in range(4):
        panel.ui.areaComboBox.currentIndex = area
        host.process()
        host.give_room(window)  # Slicer's panel scrolls
        assert list(clipped(window)) == [], panel.ui.areaComboBox.currentText
    panel.runSection._kind = "memory"
    panel.runSection.changed.emit()
    panel.ui.errorFrame.visible = True
    for tab in range(3):
        panel.ui.tabs.currentIndex = tab
        host.give_room(window)
        assert list(clipped(window)) == [], tab


def test_words_that_are_cut_off_are_seen(host, panel):
    window = next(window for known, window in host._panels if known is panel)
    assert list(clipped(window)) == []
    label = window.findChild(QtWidgets.QWidget, "clipLabel0")
    button = window.findChild(QtWidgets.QWidget, "preflightButton")
    for widget in (label, button):
        widget.setFixedWidth(widget.sizeHint().width() // 2)
    notice = window.findChild(QtWidgets.QWidget, "noticeLabel")
    notice.setFixedSize(120, 12)
    host.process()
    assert {name for name, _ in clipped(window)} == {"clipLabel0", "preflightButton", "noticeLabel"}
