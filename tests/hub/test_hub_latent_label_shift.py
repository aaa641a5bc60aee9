"""Classifiers of latent classes, pushed and loaded again, on a stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of

PUSH, LOAD = "latent_label_shift_push", "latent_label_shift_load"


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(PUSH))
def test_push_classes_to_loopback_stand_in(name, run_script):
    run_script(PUSH).assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(LOAD))
def test_load_classes_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script(PUSH)
    run_script(LOAD).assert_passed(name)
