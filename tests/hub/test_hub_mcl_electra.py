"""MCL models, pushed and loaded again, on a protocol stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("mcl_electra_push"))
def test_push_mcl_electra_to_loopback_stand_in(name, run_script):
    run_script("mcl_electra_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("mcl_electra_load"))
def test_load_mcl_electra_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("mcl_electra_push")
    run_script("mcl_electra_load").assert_passed(name)
