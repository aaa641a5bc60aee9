"""Labels of documents and students, pushed and loaded again, on a stand-in of the Hub written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("tail_vrd_push"))
def test_push_students_to_loopback_stand_in(name, run_script):
    run_script("tail_vrd_push").assert_passed(name)


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("tail_vrd_load"))
def test_load_students_in_fresh_process_from_loopback_stand_in(name, run_script):
    run_script("tail_vrd_push")
    run_script("tail_vrd_load").assert_passed(name)
