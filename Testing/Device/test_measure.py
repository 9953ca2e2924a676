"""The script for graphics cards runs through on the CPU, agrees with the network, and says what is not reached."""

import measure
import pytest
import torch

from DualTrackCore.network import session


@pytest.fixture
def dry(monkeypatch):
    """What the dry run changes goes back at the end."""
    monkeypatch.setattr(session, "runs_in_chunks", session.runs_in_chunks)


def test_the_dry_run_measures_all_and_reaches_what_needs_no_card(dry, capsys, tmp_path):
    assert measure.main(["--dry", "-o", str(tmp_path / "results.md")]) == 0
    page = capsys.readouterr().out
    assert (tmp_path / "results.md").read_text() == page.removesuffix("\n")
    assert page.startswith("no card: the CPU played one")
    for what in ("fp32", "first call", "plain forward", "sent in a call", "latency p50", "volume, linear"):
        assert f" {what}" in page
    assert page.count("| yes |") == 4
    assert "NO" not in page


def test_motions_that_are_off_are_not_reached(dry, monkeypatch, capsys):
    monkeypatch.setattr(measure, "measured", lambda bench: list(measure.parity(bench)))
    original = session.InferenceSession.poses

    def poses(self, tokens, pooled):
        found = original(self, tokens, pooled)
        return found._replace(motions=found.motions + 1e-4)

    monkeypatch.setattr(session.InferenceSession, "poses", poses)
    assert measure.main(["--dry"]) == 1
    assert "| at most 6e-05 | NO |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("figure", "limit", "at_least", "held"),
    [(1.0, None, False, True), (1, 1, False, True), (1.1, 1, False, False), (1.1, 1, True, True), (0.9, 1, True, False)]
    + [(float("nan"), 1, at_least, False) for at_least in (True, False)],
)
def test_a_figure_is_held_against_its_limit(figure, limit, at_least, held):
    assert measure.Row("a", figure, "s", limit, at_least).held is held


def test_without_a_card_one_sentence_says_so(capsys):
    assert not torch.cuda.is_available()
    assert measure.main([]) == 2
    assert capsys.readouterr().err == "There is no NVIDIA card that this torch can use; --dry runs on the CPU.\n"
