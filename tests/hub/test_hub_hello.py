"""Label projectors, pushed and loaded again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("hello_push"))
def test_push_hello_to_loopback_stand_in(name, run_script):
    run_script("hello_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("hello_load"))
def test_load_hello_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("hello_push")
    run_script("hello_load").assert_passed(name)
