"""Engines beyond one machine, as far as a local cluster goes."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from lightning_opplan.planning.options import ExecutorOptions
from lightning_opplan.tuner.executors.engines import RayExecutor
from tests.helpers import toy

# Of the engines themselves: sockets and files that they leave to the collector, and their own deprecations.
pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*MPS.*"),
]


@pytest.mark.parametrize("name", ["dask", "slurm"])
def test_engine_finds_what_this_process_finds(tmp_path, name):
    graph = toy.graph((0.1,), (8,))
    here = toy.tuner(tmp_path / "here", graph=graph).search()
    options = ExecutorOptions(name=name, num_workers=2, address="local" if name == "slurm" else None)
    there = toy.tuner(tmp_path / "there", graph=graph, executor=options).search()
    found, expected = (
        toy.fingerprint(result, tmp_path / name, graph) for result, name in ((there, "there"), (here, "here"))
    )
    assert found == expected


def test_given_executor_of_concurrent_futures_does(tmp_path, searched):
    """Any object with the seam: here threads, each of which waits for a process of its own."""
    with ThreadPoolExecutor(1) as executor:
        found = toy.tuner(tmp_path, executor=executor).search()
    assert toy.fingerprint(found, tmp_path) == toy.fingerprint(toy.tuner(searched).search(), searched)


def ray_tasks():
    """Processes of Ray that run a task."""
    return [process for process in psutil.process_iter(["name"]) if "ray::isolated" in " ".join(cmdline(process))]


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_ray_with_four_workers_finds_the_same_when_one_is_killed(tmp_path, searched, monkeypatch):
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    killed = []
    submit = RayExecutor.submit

    def and_kill(self, fn, /, *arguments):
        """Kill the process of the third edge once it runs."""
        future = submit(self, fn, *arguments)
        if len(killed) < 3:
            killed.append(None)
            if len(killed) == 3:
                deadline = time.monotonic() + 60
                while not (running := ray_tasks()):
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                os.kill(running[0].pid, signal.SIGKILL)
                killed[-1] = running[0].pid
        return future

    monkeypatch.setattr(RayExecutor, "submit", and_kill)
    try:
        options = ExecutorOptions(name="ray", num_workers=4)
        found = toy.tuner(tmp_path, executor=options).search()
    finally:
        ray.shutdown()
    assert killed[2] is not None
    assert toy.fingerprint(found, tmp_path) == toy.fingerprint(toy.tuner(searched).search(), searched)
