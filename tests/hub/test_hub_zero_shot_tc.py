"""Zero-shot models, pushed and loaded again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("zero_shot_tc_push"))
def test_push_zero_shot_tc_to_loopback_stand_in(name, run_script):
    run_script("zero_shot_tc_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("zero_shot_tc_load"))
def test_load_zero_shot_tc_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("zero_shot_tc_push")
    run_script("zero_shot_tc_load").assert_passed(name)
