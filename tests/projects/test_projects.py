"""Each project plans, is killed by force within its search, goes on, follows its path and is tested."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers.scripted import PROJECT

EDGES = {"image_classifier": 6, "plain_loaders": 6, "template": 3, "forecasting": 2}


def begun(name, folder):
    command = [sys.executable, "-W", "ignore", str(PROJECT / "tests" / "projects" / f"{name}.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, text=True, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.process
@pytest.mark.parametrize("name", list(EDGES))
def test_project_plans_survives_a_kill_and_is_tested(tmp_path, name):
    process, deadline = begun(name, tmp_path), time.monotonic() + 120
    while not list(tmp_path.glob("*/edges/*/resume/*.ckpt")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = begun(name, tmp_path)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    found = json.loads(out.splitlines()[-1])
    assert found["edges"] == EDGES[name]
    assert found["knee"].startswith("knee-epoch=")
    assert found["tested"] >= 0
    assert not list(tmp_path.glob("*/edges/*/resume/*.ckpt"))
