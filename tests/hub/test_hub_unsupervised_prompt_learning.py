"""A prompt classifier and its corpus, pushed and loaded again, on a stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of

PUSH, LOAD = "unsupervised_prompt_learning_push", "unsupervised_prompt_learning_load"


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(PUSH))
def test_push_prompt_classifier_to_loopback_stand_in(name, run_script):
    run_script(PUSH).assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of(LOAD))
def test_load_prompt_classifier_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script(PUSH)
    run_script(LOAD).assert_passed(name)
