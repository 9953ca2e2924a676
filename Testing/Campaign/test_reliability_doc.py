"""The table of Docs/reliability.md is what the campaigns left."""

import json
import subprocess
import sys
from pathlib import Path

import reliability_doc
from figures import Figures, finish
from reliability_doc import BEGIN, END, PAGE, updated


def rows(page):
    """The cells of each line of the table, without the head."""
    table = page.partition(BEGIN)[2].partition(END)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()[2:]]


def left(tmp_path, **counts):
    """The JSON values of a campaign with these counts."""
    figures = Figures("convert")
    for name, count in counts.items():
        for _ in range(count):
            (figures.fault(name, "step 1") if name == "mixed" else figures.count(name))
    values = {"seed": "1", "minutes": 20.0, "total": dict(figures.counts), "faults": figures.faults}
    finish(values, figures.faulty, str(tmp_path / "kill_runs.json"))
    return json.loads((tmp_path / "kill_runs.json").read_text())


def test_the_row_of_a_campaign_holds_its_counts_and_faults(tmp_path):
    page = f"before\n{BEGIN}\n{END}\nafter\n"
    page = updated(page, {"kill_runs": left(tmp_path, kills=3, mixed=2)})
    told = "2 (mixed 2, leftovers after the next run 0, files of the user lost 0)"
    assert rows(page) == [["`kill_runs`", "20", "1", "kills 3", told]]
    fuzzed = {"seed": "0", "minutes": 5, "inputs": 1234, "total": {"read": 1000, "refused": 234}, "faulty": 0}
    page = updated(page, {"fuzz_readers": fuzzed})
    assert [row[0] for row in rows(page)] == ["`fuzz_readers`", "`kill_runs`"]
    assert rows(page)[0][3] == "inputs 1,234, read 1,000, refused 234"
    assert (page.startswith("before\n"), page.endswith("\nafter\n")) == (True, True)
    assert updated(page, {}) == page


def test_the_page_has_its_table_and_a_file_of_another_name_is_refused(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    assert updated(page, {}) == page
    assert {row[0].strip("`") for row in rows(page)} <= set(reliability_doc.NAMED)
    assert rows(page)
    command = [sys.executable, str(Path(reliability_doc.__file__)), str(tmp_path / "other.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is named after no campaign" in done.stderr
    assert PAGE.read_text(encoding="utf-8") == page
