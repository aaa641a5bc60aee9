"""The plain Hub client against the loopback Hub, a protocol stand-in written by this project."""

import pytest
from hub_reports import checks_of


@pytest.mark.hub
@pytest.mark.parametrize("name", checks_of("transfer"))
def test_client_on_loopback_stand_in(name, run_script):
    run_script("transfer").assert_passed(name)
