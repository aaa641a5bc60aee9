"""A zero-shot classifier and graph embeddings, pushed and loaded again, on a stand-in of the Hub written by this
project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("kg_zero_shot_push"))
def test_push_classes_to_loopback_stand_in(name, run_script):
    run_script("kg_zero_shot_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("kg_zero_shot_load"))
def test_load_classes_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("kg_zero_shot_push")
    run_script("kg_zero_shot_load").assert_passed(name)
