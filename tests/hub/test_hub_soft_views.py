"""FerKD and ReLabel: stores and students, pushed and loaded again, on a protocol stand-in of the Hub of our own."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("soft_views_push"))
def test_push_soft_views_to_loopback_stand_in(name, run_script):
    run_script("soft_views_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("soft_views_load"))
def test_load_soft_views_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("soft_views_push")
    run_script("soft_views_load").assert_passed(name)
