"""The way of a lab from the challenge's folders to a submission, in short and whole."""

import pytest
from lab_journey import Journey

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # warnings of small, meaningless weights and data


def test_a_lab_gets_from_both_layouts_to_a_checked_submission(tmp_path):
    Journey(tmp_path, processes=1).go()


def test_it_does_so_with_two_processes_that_train_and_two_that_evaluate(tmp_path):
    Journey(tmp_path, processes=2).go()
