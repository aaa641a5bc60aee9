"""What hf_labels makes, pushed and loaded again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("push_ours"))
def test_push_ours_to_loopback_stand_in(name, run_script):
    run_script("push_ours").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("load_ours"))
def test_load_ours_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("push_ours")
    run_script("load_ours").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("offline"))
def test_offline_after_loading_from_loopback_stand_in(name, run_script):
    run_script("push_ours")
    run_script("load_ours")
    run_script("offline", cache_of="load_ours").assert_passed(name)
