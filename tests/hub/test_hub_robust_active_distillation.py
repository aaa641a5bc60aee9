"""Bought labels, their query log and the student, pushed and loaded again, on a protocol stand-in of the Hub."""

import pytest
from hub_reports import checks_of

PUSH, LOAD = "robust_active_distillation_push", "robust_active_distillation_load"


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(PUSH))
def test_push_bought_labels_to_loopback_stand_in(name, run_script):
    run_script(PUSH).assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(LOAD))
def test_load_bought_labels_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script(PUSH)
    run_script(LOAD).assert_passed(name)
