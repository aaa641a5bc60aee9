"""A classifier that was trained on bags, pushed by its trainer and loaded again, on a stand-in of the Hub written by
this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("llp_bp_push"))
def test_push_classifier_to_loopback_stand_in(name, run_script):
    run_script("llp_bp_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("llp_bp_load"))
def test_load_classifier_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("llp_bp_push")
    run_script("llp_bp_load").assert_passed(name)
