"""Two processes of half the batch train as one process of the whole batch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("tail_vrd_two_processes.py")


def run(command, folder):
    done = subprocess.run([*command, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=300)
    found = re.findall(r"weights ([\d.]+)", done.stdout)
    assert done.returncode == 0 and len(found) == 2, done.stderr[-2000:]
    return [float(number) for number in found]


@pytest.mark.dist
@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29651"]
    assert run(launch, tmp_path / "two") == pytest.approx(run([sys.executable], tmp_path / "one"), rel=1e-7)
