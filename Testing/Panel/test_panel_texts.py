"""Every text that a user sees can be translated, and what the tutorial quotes is what the code says."""

import ast
import importlib
import pkgutil
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import slicer
from journey import add_clip

from DualTrackCore.errors import InputError
from DualTrackCore.progress import Stage
from DualTrackCore.tracking.test_time_augmentation import AUGMENTATION_COUNTS, augmentations

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "DualTrackSlicer"
UI = MODULE / "Resources" / "UI" / "DualTrackSlicer.ui"
SOURCES = sorted([MODULE / "DualTrackSlicer.py", *(MODULE / "DualTrackSlicerLib").rglob("*.py")])
#: Words of the scene that go into the provenance of a sweep, and from there into reports, as the core has them.
RECORDED = re.compile("Not tracked: |Tracked: |Used the pixel spacing of the transforms")
#: Attributes, methods and functions that put a text before the user, and which of their arguments it is.
SHOWN_ATTRIBUTES = {
    "text",
    "toolTip",
    "title",
    "specialValueText",
    "suffix",
    "prefix",
    "helpText",
    "windowTitle",
    "placeholderText",
}
SHOWN_CALLS = {
    "addItem": (0,), "setText": (0,), "setToolTip": (0,), "setWindowTitle": (0,), "setHorizontalHeaderLabels": (0,),
    "QTableWidgetItem": (0,), "confirmOkCancelDisplay": (0,), "getOpenFileName": (1,), "enable": (0,), "say": (0,),
    "complain": (0,), "append": (0,), "InputError": (0,), "MissingDependencyError": (0,), "Cancelled": (0,),
    "DualTrackError": (0,),
}  # fmt: skip
#: What is the same in every language.
NAMES = {"DualTrack", "GB", "MB", "kB"}
#: Keyword arguments of any call that are shown.
SHOWN_KEYWORDS = {"windowTitle", "sampleCategory", "category"}


def bare_texts(tree):
    """(line, text) of each text that is shown and does not go through `_()` or `translate()`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.attr for target in targets if isinstance(target, ast.Attribute)}
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
            shown = {*SHOWN_ATTRIBUTES, "reason", "sentence", "problem", "tip"}
            if {name.lstrip("_") for name in names} & {*shown, "message", "error", "status"}:
                yield from _letters(node.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for index in SHOWN_CALLS.get(name, ()):
                if index < len(node.args):
                    yield from _letters(node.args[index])
            for keyword in node.keywords:
                if keyword.arg in SHOWN_KEYWORDS:
                    yield from _letters(keyword.value)
        elif isinstance(node, ast.FunctionDef) and node.name.endswith(("Text", "label", "problem", "Tip")):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from _letters(inner.value)


def _letters(node):
    """Constants with words in an expression, except within `_()`, calls of other functions, keys and conditions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        words = re.sub(r"<[^>]*>|https?://\S+", "", node.value)
        if re.search(r"[A-Za-z]{2,}", words) and words.strip() not in NAMES and not RECORDED.match(words):
            yield node.lineno, node.value
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "join"):
            yield from _letters(node.func.value)
    elif isinstance(node, ast.IfExp):
        yield from _letters(node.body)
        yield from _letters(node.orelse)
    elif isinstance(node, ast.Compare | ast.Subscript):
        return
    else:
        for child in ast.iter_child_nodes(node):
            yield from _letters(child)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_text_that_is_shown_can_be_translated(path):
    assert list(bare_texts(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "line",
    [
        "ui.label.text = 'Some words'",
        "self._message = f'{name} is bad'",
        "enable('' if ready else 'Wait for it.', button)",
        "combo.addItem('one' if x else _('two'))",
        "raise InputError('That is wrong.')",
        "slicer.util.confirmOkCancelDisplay(_('Really?'), windowTitle='Question')",
        "def problem(self):\n    return 'No clip.'",
        "def sizeText(n):\n    return '{n} bytes'.format(n=n)",
        "reason = '' if ready else 'Not ready.'",
    ],
)
def test_the_check_sees_each_kind_of_bare_text(line):
    assert list(bare_texts(ast.parse(line)))


@pytest.mark.parametrize(
    "line",
    ["ui.label.text = _('Some words')", "x.text = _('{n} bytes').format(n=3)", "names['text'] = 'key'", "a.text = ''"],
)
def test_the_check_leaves_translated_texts_alone(line):
    assert not list(bare_texts(ast.parse(line)))


def translated(tree):
    """The calls of `_` in a source."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) == "_"]


def _called(node):
    return getattr(node.func, "attr", getattr(node.func, "id", ""))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_a_translated_text_is_one_constant_with_named_places(path):
    """Slicer's tool takes constants out of the sources, and a language may turn the places round."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in translated(tree):
        (text,) = call.args
        assert isinstance(text, ast.Constant), f"{path.name}, line {call.lineno}"
        assert not re.search(r"\{\}|\{\d", text.value), text.value
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert "_" not in names or not translated(tree), f"{path.name} uses _ for a value, which hides the function"


def test_every_class_has_one_context_and_every_context_one_file():
    """Slicer names the context of a text by folder and file of the code that asks for it."""
    contexts, classes = [], []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if translated(tree):
            is_package = (path.parent / "__init__.py").is_file()
            contexts.append(f"{path.parent.name}.{path.stem}" if is_package else path.stem)
        classes += [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        others = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _called(node) == "translate"]
        assert all(node.args[0].value == "qSlicerAbstractCoreModule" for node in others)  # categories, Slicer's own
    assert len(contexts) == len(set(contexts))
    assert len(classes) == len(set(classes))
    assert {"scene.frames", "widget.run_section", "DualTrackSlicerLib.dependencies"} <= set(contexts)


def test_all_ask_slicers_own_function_which_finds_the_context_by_its_caller(host):
    import DualTrackSlicerLib

    found = pkgutil.walk_packages(DualTrackSlicerLib.__path__, "DualTrackSlicerLib.")
    ours = [importlib.import_module(module.name) for module in found]  # the panel is imported when it is opened
    asking = [module for module in ours if hasattr(module, "_")]
    assert len(asking) > 15
    assert all(module._ is sys.modules["slicer.i18n"].tr for module in asking)


def test_an_error_of_the_scene_is_told_in_the_language_of_slicer(host, monkeypatch):
    from DualTrackSlicerLib.scene import frames

    words = {"{name} has 1 frame; a sweep needs at least two.": "{name}: ein Bild; es braucht zwei."}
    monkeypatch.setattr(frames, "_", lambda text: words.get(text, text))
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "Clip")
    sequence.SetDataNodeAtValue(slicer.vtkMRMLScalarVolumeNode(), "0")
    with pytest.raises(InputError, match=r"^Clip: ein Bild; es braucht zwei\.$"):
        frames.layout_of(sequence)


def test_every_text_of_the_ui_can_be_translated():
    """uic and lupdate take every <string> but those that are marked; only names and keys may be."""
    for element in ET.parse(UI).iter("property"):
        text = element.find("string")
        if text is None:
            continue
        fixed = element.get("stdset") == "0" or element.get("name") == "shortcut"
        assert (text.get("notr") == "true") == fixed, f"{element.get('name')}: {text.text}"
        assert fixed or element.get("name") in SHOWN_ATTRIBUTES, element.get("name")


def _said():
    """All texts of the sources of module and core, with `…` for what is filled in."""
    texts = []
    for path in [*SOURCES, *(ROOT / "DualTrackCore").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"\{\w*(:[^}]*)?\}", "…", node.value))
    return "\n".join(texts)


@pytest.fixture(scope="module")
def said():
    return _said()


TUTORIAL = ROOT / "Docs" / "slicer-tutorial.md"
TABLE = TUTORIAL.read_text(encoding="utf-8").partition("## When something goes wrong")[2].partition("\n## ")[0]
SENTENCES = [line.split("|")[1].strip() for line in TABLE.splitlines() if line.startswith("| ")][2:]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_what_the_tutorial_explains_is_what_the_code_says(said, sentence):
    parts = [part.strip(" ;,.()") for part in sentence.split("…")]
    assert any(len(part) > 8 for part in parts)
    missing = [part for part in parts if part and part not in said]
    assert not missing


@pytest.mark.parametrize("picture", re.findall(r"!\[.*?\]\((.*?)\)", TUTORIAL.read_text(encoding="utf-8")))
def test_every_picture_of_the_tutorial_is_there_and_small(picture):
    assert (TUTORIAL.parent / picture).stat().st_size < 150_000


def test_the_console_examples_run(host, tiny_model_file):
    from DualTrackSlicerLib.self_test import syntheticSweep
    from DualTrackSlicerLib.sweep_nodes import SAMPLE_NAME

    blocks = re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 3
    add_clip(host, syntheticSweep(), SAMPLE_NAME)
    names = {"slicer": slicer}
    for block in blocks:
        assert '"mini"' in block
        settings = {'"mini"': repr(str(tiny_model_file)), "last_frame=99": "last_frame=20"}
        for shown, used in settings.items():
            block = block.replace(shown, used)
        exec(block, names)
    assert names["run"].wait().state == "done", names["run"].error
    names["logic"].close()
    assert names["nodes"].volume is not None


@pytest.mark.parametrize(
    ("stage", "detail", "text"),
    [
        (Stage.NETWORK, "", "Looking at the frames"),
        (Stage.NETWORK, "mirrored", "Looking at the frames, mirrored"),
        (Stage.ATTENTION, "backwards and mirrored", "Putting the path together, backwards and mirrored"),
        (Stage.MEASURING, "identity", "Comparing with the tracker"),
    ],
)
def test_a_stage_and_its_detail_are_shown_in_the_panels_words(host, stage, detail, text):
    from DualTrackSlicerLib.widget.texts import stageText

    assert stageText(stage, detail) == text


def test_the_panel_has_words_for_every_view(host):
    from DualTrackSlicerLib.widget.texts import stageText

    for view in augmentations(max(AUGMENTATION_COUNTS)):
        assert stageText(Stage.NETWORK, view.name) == f"Looking at the frames, {view.name}"
