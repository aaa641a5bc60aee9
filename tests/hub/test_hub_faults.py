"""Refusals, broken uploads and damaged downloads, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("faults"))
def test_fault_on_loopback_stand_in(name, run_script):
    run_script("faults").assert_passed(name)
