import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from lightning_opplan.tuner.executors.processes import (
    ProcessExecutor,
    SerialExecutor,
    WorkerDiedError,
    end_isolated,
    isolated,
)

pytestmark = pytest.mark.process


def stamp(seconds):
    started = time.monotonic()
    time.sleep(seconds)
    return os.getpid(), started, time.monotonic()


def visible_gpus(seconds=0.3):
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def fail():
    raise LookupError("not here")


def kill_myself(file):
    with open(file, "a") as stream:
        stream.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def start_child_and_wait(file, seconds):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    Path(file).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(seconds)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids_in(file, timeout=60):
    deadline = time.monotonic() + timeout
    while not (file.exists() and len(file.read_text().split()) == 2):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(pid) for pid in file.read_text().split()]


def assert_all_end(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, [pid for pid in pids if is_alive(pid)]
        time.sleep(0.02)


@pytest.fixture
def executor():
    executor = ProcessExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


def test_serial_executor_returns_what_is_done():
    executor = SerialExecutor()
    assert executor.submit(max, 1, 2).result() == 2
    future = executor.submit(fail)
    assert future.done()
    with pytest.raises(LookupError, match="not here"):
        future.result()


def test_each_call_has_a_process_of_its_own_and_some_run_at_once(executor):
    results = [future.result() for future in [executor.submit(stamp, 0.5) for _ in range(4)]]
    assert len({pid for pid, _, _ in results}) == 4
    ends = [(started, 1) for _, started, _ in results] + [(ended, -1) for _, _, ended in results]
    running, most = 0, 0
    for _, change in sorted(ends):
        running += change
        most = max(most, running)
    assert most == 2
    assert not any(is_alive(pid) for pid, _, _ in results)


def test_processes_see_their_share_of_the_gpus():
    executor = ProcessExecutor(2, devices=[["0", "1"], ["2", "3"]])
    futures = [executor.submit(visible_gpus) for _ in range(4)]
    assert sorted(future.result() for future in futures) == ["0,1", "0,1", "2,3", "2,3"]


def test_errors_come_out_of_the_future(executor):
    with pytest.raises(LookupError, match="not here"):
        executor.submit(fail).result()


def test_a_killed_process_is_reported(executor, tmp_path):
    with pytest.raises(WorkerDiedError, match="was ended by signal SIGKILL before it had a result"):
        executor.submit(kill_myself, str(tmp_path / "x")).result()
    with pytest.raises(WorkerDiedError, match="with status 3"):
        executor.submit(os._exit, 3).result()
    assert executor.submit(max, 1, 2).result() == 2


def test_what_a_process_leaves_behind_ends_with_it(executor, tmp_path):
    executor.submit(start_child_and_wait, str(tmp_path / "pids"), 0.2).result()
    assert_all_end(pids_in(tmp_path / "pids"))


def test_killing_a_process_ends_what_it_started(executor, tmp_path):
    future = executor.submit(start_child_and_wait, str(tmp_path / "pids"), 300)
    pids = pids_in(tmp_path / "pids")
    os.kill(pids[0], signal.SIGKILL)
    with pytest.raises(WorkerDiedError):
        future.result(timeout=20)
    assert_all_end(pids)


def test_shutdown_ends_what_runs(tmp_path):
    executor = ProcessExecutor(1)
    future = executor.submit(start_child_and_wait, str(tmp_path / "pids"), 300)
    waiting = executor.submit(stamp, 0)
    pids = pids_in(tmp_path / "pids")
    executor.shutdown(cancel_futures=True)
    assert_all_end(pids, 1)
    with pytest.raises(WorkerDiedError):
        future.result()
    assert waiting.cancelled()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_workers": 0}, "`num_workers` must be at least 1, got 0"),
        ({"num_workers": 2, "devices": [["0"]]}, "`devices` must have one entry for each of 2 workers"),
    ],
    ids=["workers", "devices"],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ProcessExecutor(**arguments)


def test_calls_from_several_threads_are_isolated_side_by_side():
    with ThreadPoolExecutor(3) as threads:
        results = [future.result() for future in [threads.submit(isolated, stamp, 2.0) for _ in range(3)]]
    assert len({pid for pid, _, _ in results}) == 3
    assert max(begin for _, begin, _ in results) < min(end for _, _, end in results)


def test_isolated_calls_can_be_ended_from_outside(tmp_path):
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(isolated, start_child_and_wait, str(tmp_path / "pids"), 300)
        pids = pids_in(tmp_path / "pids")
        end_isolated()
        with pytest.raises(WorkerDiedError):
            future.result(timeout=20)
    assert_all_end(pids)


def test_jobs_of_slurm_start_their_ranks_themselves(executor, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert executor.submit(os.getenv, "SLURM_NTASKS").result() is None
