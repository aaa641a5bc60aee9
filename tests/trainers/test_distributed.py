import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import toys

SCRIPT = Path(__file__).parent / "dist_runs.py"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One launch with two processes and one without, side by side."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    commands = [[sys.executable, str(SCRIPT), str(folders[0])], [*launch, str(SCRIPT), str(folders[1])]]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    for process in running:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output[-6000:]
    found = []
    for folder in folders:
        tensors = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
        found.append((tensors, json.loads((folder / "report.json").read_text())))
    return found


@pytest.mark.dist
def test_two_processes_equal_one(runs):
    (one, report), (two, report_two) = runs
    assert set(one) == {"model", "state", "resumed", "resumed_state", "tokens"}
    for name in one:  # weights; teacher, memory and queue; token means over both processes
        toys.assert_same(one[name], two[name], atol=2e-6)
    for name in ("logs", "token_losses"):
        for a, b in zip(report[name], report_two[name], strict=True):
            assert a == pytest.approx(b, rel=1e-5)
    assert report["metrics"] == pytest.approx(report_two["metrics"], rel=1e-5)
    assert len(report["logs"]) == 6 and report["history"] == report_two["history"]


@pytest.mark.dist
def test_both_streams_are_sharded(runs):
    (_, report), (_, report_two) = runs
    ((seen, unlabeled),), shards = report["seen"], report_two["seen"]
    for whole, number in ((seen, 0), (unlabeled, 1)):
        joined = [one + two for one, two in zip(shards[0][number], shards[1][number], strict=True)]
        assert joined == whole and all(len(set(batch)) == 8 for batch in joined)


@pytest.mark.dist
def test_interrupt_of_one_process_stops_both_and_resumes_exactly(runs):
    for tensors, report in runs:
        assert "after step 3; everything is saved" in report["message"]
        toys.assert_same(tensors["model"], tensors["resumed"])
        toys.assert_same(tensors["state"], tensors["resumed_state"])
