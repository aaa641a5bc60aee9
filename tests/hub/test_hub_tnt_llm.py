"""A taxonomy and its classifier, pushed and loaded again, on a stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("tnt_llm_push"))
def test_push_taxonomy_to_loopback_stand_in(name, run_script):
    run_script("tnt_llm_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("tnt_llm_load"))
def test_load_taxonomy_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("tnt_llm_push")
    run_script("tnt_llm_load").assert_passed(name)
