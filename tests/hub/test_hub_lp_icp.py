"""Conformal calibrations, pushed and loaded again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of

PUSH, LOAD = "lp_icp_push", "lp_icp_load"


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(PUSH))
def test_push_calibration_to_loopback_stand_in(name, run_script):
    run_script(PUSH).assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(LOAD))
def test_load_calibration_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script(PUSH)
    run_script(LOAD).assert_passed(name)
