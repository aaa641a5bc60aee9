"""DistillWeighted: sources, student and its list of sources, on a protocol stand-in of the Hub of our own."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("distill_weighted_push"))
def test_push_distilled_student_to_loopback_stand_in(name, run_script):
    run_script("distill_weighted_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("distill_weighted_load"))
def test_load_distilled_student_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("distill_weighted_push")
    run_script("distill_weighted_load").assert_passed(name)
