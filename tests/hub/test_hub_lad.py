"""LAD students and teachers, pushed and loaded again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("lad_push"))
def test_push_lad_to_loopback_stand_in(name, run_script):
    run_script("lad_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("lad_load"))
def test_load_lad_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("lad_push")
    run_script("lad_load").assert_passed(name)
