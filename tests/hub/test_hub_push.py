"""Pushing with the real client and loading in a fresh process, on a protocol stand-in of the Hub written by us."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("push"))
def test_push_to_loopback_stand_in(name, run_script):
    run_script("push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("load"))
def test_load_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("push")
    run_script("load").assert_passed(name)
