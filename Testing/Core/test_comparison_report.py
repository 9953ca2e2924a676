"""The page of an evaluation: whole in one file, sorted, honest about what is missing, and its pictures."""

import base64
import html
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluation_sets import Failing, Shortened, Wobbling, wobbling_sweep

pytest.importorskip("matplotlib", reason="reports need the extra report")
pytest.importorskip("jinja2", reason="reports need the extra report")

from matplotlib.text import Text

from DualTrackCore.errors import Cancelled, InputError, MissingDependencyError
from DualTrackCore.pictures import drawing
from DualTrackCore.pictures.drawing import save
from DualTrackCore.research.comparison import Identity, OwnMeanMotion, run_methods
from DualTrackCore.research.comparison.table_files import markdown, text_table, too_few
from DualTrackCore.research.report import write_report
from DualTrackCore.research.report.plots import choose_cases, families, family_of, growth, leaders, ranked

_VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags that are balanced, the cells of every table, and everything that a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.sources, self.links = [], [], [], []
        self.feed(text)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.sources += [attributes["src"]] if "src" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        if tag not in _VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Four methods on seven sweeps of two families, one of which one method fails on, with their page."""

    class Families(Wobbling):
        def __init__(self):
            super().__init__(7)
            self._seeds = {f"{'Par_L_DtP' if seed < 4 else 'rotation'} {seed}": seed for seed in range(7)}
            self.names = tuple(self._seeds)

        def load(self, name):
            return wobbling_sweep(self._seeds[name], 9 if name.endswith("6") else 12)

    folder = tmp_path_factory.mktemp("report")
    methods = [Identity(), Shortened("half <i>", 0.5), OwnMeanMotion(), Failing(9, InputError("Too <dark>."))]
    result = run_methods(methods, Families(), folder / "items")
    about = {"data_set": "two <families>", "about_simulation": "Says nothing about patients."}
    files = write_report(result, result.pairs(), Families(), folder, about)
    return result, folder, files


def test_the_page_needs_nothing_but_itself(evaluated):
    _, folder, files = evaluated
    assert files == ["report.html", "errors.png", "growth.png"]
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.sources) == 2 + 2 * 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert page.links == []
    assert not re.search(r"https?://|@import|url\(", text)
    for source in page.sources:
        assert base64.b64decode(source.partition(",")[2]).startswith(b"\x89PNG")


def test_the_page_has_every_method_the_best_first_with_names_that_are_no_markup(evaluated):
    result, folder, _ = evaluated
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    names = [row[0] for row in page.tables[0][1:]]
    assert [name.split("uses")[0] for name in names] == [summary.method for summary in ranked(result)]
    assert names[0].startswith("failing")
    assert "<i>" not in text
    assert "half &lt;i&gt;" in text
    assert "Too &lt;dark&gt;." in text
    assert "two &lt;families&gt;" in text
    assert "Research use only" in text
    assert "Says nothing about patients." in text
    widths = [{len(row) for row in table} for table in page.tables]
    assert all(len(width) == 1 for width in widths), widths


def test_the_page_says_what_failed_and_what_the_means_are_of(evaluated):
    _, folder, _ = evaluated
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    heads, *rows = page.tables[0]
    line = dict(zip(heads, rows[0], strict=True))
    assert line["Sweeps"] == "6 of 7"
    assert "GPE, common sweeps" in heads
    assert "rotation 6" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_tests_between_methods_are_mirrored(evaluated):
    result, folder, _ = evaluated
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    table = next(table for table in page.tables if table[0][0] == "" and "p" in "".join(table[1]))
    cells = np.array([row[1:] for row in table[1:]])
    assert cells.shape == (4, 4)
    np.testing.assert_array_equal(cells, cells.T)
    pair = next(p for p in result.pairs() if (p.metric, p.one, p.other) == ("gpe_mm", "identity", "half <i>"))
    order = [summary.method for summary in ranked(result)]
    assert cells[order.index("identity"), order.index("half <i>")] == f"p = {pair.p_holm:.3f}".replace("0.", ".", 1)


def test_cases_are_the_median_and_the_worst_of_methods_that_only_look(evaluated):
    result, _, _ = evaluated
    assert [summary.method for summary in leaders(result)] == ["failing", "half <i>"]
    cases = [case for case in choose_cases(result) if case.method == "half <i>"]
    errors = sorted(row.metrics["gpe_mm"] for row in result.of("half <i>").values())
    assert [(case.kind, case.gpe_mm) for case in cases] == [("median", errors[3]), ("worst", errors[6])]


def test_curves_grow_from_nothing_to_the_last_error(evaluated):
    result, _, _ = evaluated
    curves = growth(result, "identity", np.array([0.0, 0.5, 1.0]))
    assert curves.shape == (7, 3)
    np.testing.assert_array_equal(curves[:, 0], 0)
    assert (curves[:, 1] < curves[:, 2]).all()
    assert growth(result, "failing", np.array([1.0])).shape == (6, 1)


def test_families_are_read_from_names():
    assert family_of("050/RH_Per_L_DtP") == "Per_L_DtP"
    assert family_of("RH_rotation") == "rotation"
    assert family_of("Par_S_PtD 2000003") == "Par_S_PtD"
    assert family_of("liver 7") is None
    assert families(["Per_L_DtP 1", "Per_L_DtP 2"]) == {}
    assert families(["rotation 1", "Per_L_DtP 2", "rotation 3"]) == {
        "Per_L_DtP": ["Per_L_DtP 2"],
        "rotation": ["rotation 1", "rotation 3"],
    }


def test_one_sweep_and_one_method_make_a_page_too(tmp_path):
    result = run_methods([Identity()], Wobbling(1), tmp_path / "items")
    write_report(result, result.pairs(), Wobbling(1), tmp_path, {"data_set": "one"})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tables[0][1][0].startswith("identity")
    assert len(page.sources) == 3


def test_no_name_is_cut_or_leaves_its_picture_however_long_it_is(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(drawing, "save", lambda figure, path: drawn.append(figure) or save(figure, path))
    names = [f"model:{'long-name/' * 7}fusion-{number}" for number in range(3)] + ["x" * 80, *map(str, range(8))]
    result = run_methods([Shortened(name, 0.1 * i) for i, name in enumerate(names)], Wobbling(2), tmp_path / "items")
    write_report(result, [], Wobbling(2), tmp_path, {"data_set": "two"})
    for figure in drawn[:3]:  # errors, growth, the first case
        pixels = figure.canvas.get_width_height()
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        said = "".join(text.get_text() for text in texts).replace("\n", "")
        assert all(leader.method in said for leader in leaders(result))
        boxes = [text.get_window_extent() for text in texts if text.get_text()[0].isalpha()]
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= pixels[0] and box.y1 <= pixels[1] for box in boxes)


def test_it_is_said_that_few_sweeps_cannot_show_a_difference_and_how_many_could(tmp_path):
    methods = [Identity(), Shortened("half", 0.5), OwnMeanMotion()]
    result = run_methods(methods, Wobbling(2), tmp_path / "items")
    write_report(result, result.pairs(), Wobbling(2), tmp_path, {"data_set": "two"})
    assert "with 2 sweeps no p of the signed-rank test is below 0.5" in (sentence := too_few(result)[0])
    assert "number of pairs, 3. At least 7 sweeps are needed" in sentence
    page = html.unescape((tmp_path / "report.html").read_text())
    for text in (page, markdown(result, {}), text_table(result).replace("\n", " ")):
        assert sentence in text
    assert not too_few(run_methods(methods, Wobbling(7), tmp_path / "items"))
    assert not too_few(run_methods(methods[:1], Wobbling(1), tmp_path / "items"))


def test_a_report_can_be_cancelled_and_says_what_it_needs(tmp_path, monkeypatch):
    result = run_methods([Identity()], Wobbling(1), tmp_path / "items")
    with pytest.raises(Cancelled):
        write_report(result, [], Wobbling(1), tmp_path, {"data_set": "one"}, cancelled=lambda: True)
    assert not (tmp_path / "report.html").exists()
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"dualtrack\[report\]"):
        write_report(result, [], Wobbling(1), tmp_path, {"data_set": "one"})
