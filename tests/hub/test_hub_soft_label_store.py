"""Soft-label stores, pushed and loaded again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("soft_label_store_push"))
def test_push_store_to_loopback_stand_in(name, run_script):
    run_script("soft_label_store_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("soft_label_store_load"))
def test_load_store_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("soft_label_store_push")
    run_script("soft_label_store_load").assert_passed(name)
