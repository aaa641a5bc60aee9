"""Jacobi decoding, pushed and used again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("ceed_vla_push"))
def test_push_jacobi_decoding_to_loopback_stand_in(name, run_script):
    run_script("ceed_vla_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("ceed_vla_load"))
def test_decode_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("ceed_vla_push")
    run_script("ceed_vla_load").assert_passed(name)
