"""The host refuses what would fail in Slicer."""

import pytest
from pythonqt import Bridge


@pytest.fixture
def qt(host):
    """The module `qt` of the host."""
    return host.bridge.module("qt")


@pytest.mark.parametrize(
    ("misuse", "error"),
    [
        (lambda qt, label: label.text(), TypeError),
        (lambda qt, label: setattr(label, "text", None), TypeError),
        (lambda qt, label: setattr(label, "txt", "a"), AttributeError),
        (lambda qt, label: label.setTxt("a"), AttributeError),
        (lambda qt, label: qt.QLabel(text="a"), TypeError),
        (lambda qt, label: qt.Qt.CheckState.Checked, AttributeError),
        (lambda qt, label: qt.Signal, AttributeError),
        (lambda qt, label: isinstance(label, qt.QWidget), TypeError),
        (lambda qt, label: qt.QPushButton().clicked, AttributeError),
        (lambda qt, label: qt.QPushButton().connect("pushed()", lambda: None), AttributeError),
        (lambda qt, label: qt.QPushButton().connect("clicked()", print), TypeError),
    ],
)
def test_a_habit_that_fails_in_slicer_fails_here(qt, misuse, error):
    label = qt.QLabel("text")
    with pytest.raises(error):
        misuse(qt, label)


def test_properties_are_attributes_and_setters_stay(qt):
    label = qt.QLabel("one")
    label.text = "two"
    assert label.text == "two"
    label.setText("three")
    assert label.text == "three"


def test_a_slot_gets_as_many_arguments_as_it_takes(qt):
    seen = []
    box = qt.QSpinBox()
    box.connect("valueChanged(int)", lambda: seen.append("none"))
    box.connect("valueChanged(int)", lambda value: seen.append(value))
    box.value = 7
    assert sorted(map(str, seen)) == ["7", "none"]


def test_an_exception_in_a_slot_fails_the_test(host):
    def fail():
        raise ZeroDivisionError

    button = host.bridge.module("qt").QPushButton()
    button.connect("clicked()", fail)
    button.click()
    with pytest.raises(ZeroDivisionError):
        host.process()


def test_a_parameter_refuses_wrong_values_and_unknown_names(host):
    from DualTrackSlicer import DualTrackSlicerLogic

    parameters = DualTrackSlicerLogic().getParameterNode()
    with pytest.raises(AttributeError):
        parameters.voxelsize = 1.0
    with pytest.raises(ValueError):
        parameters.voxelSize = 101.0
    with pytest.raises(TypeError):
        parameters.makeVolume = "yes"
    with pytest.raises(TypeError):
        parameters.browser = host.application_logic


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text.replace("ctkPathLineEdit", "ctkPathEdit"), "ctkPathEdit"),
        (lambda text: text.replace('property name="wordWrap"', 'property name="wordwrap"', 1), "wordwrap"),
        (lambda text: text.replace(">voxelSize<", ">voxelsize<"), "voxelsize"),
    ],
)
def test_a_ui_file_with_a_mistake_is_refused(host, tmp_path, monkeypatch, change, complaint):
    from slicer_host import MODULE_FOLDER

    text = (MODULE_FOLDER / "Resources" / "UI" / "DualTrackSlicer.ui").read_text(encoding="utf-8")
    changed = tmp_path / "UI" / "DualTrackSlicer.ui"
    changed.parent.mkdir()
    changed.write_text(change(text), encoding="utf-8")
    load = host.load_ui
    monkeypatch.setattr("slicer.util.loadUI", lambda path: load(str(changed)))
    with pytest.raises((AssertionError, ValueError), match=complaint):
        host.open_panel()


def test_the_bridge_wraps_an_object_once():
    bridge = Bridge()
    qt = bridge.module("qt")
    box = qt.QComboBox()
    assert bridge.wrap(object.__getattribute__(box, "_target")) is box
