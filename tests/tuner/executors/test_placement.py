import subprocess
import sys
from types import SimpleNamespace

import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CUDAAccelerator

from lightning_opplan.planning.options import ExecutorOptions
from lightning_opplan.planning.search import Search
from lightning_opplan.tuner.executors import placement
from lightning_opplan.tuner.executors.processes import ProcessExecutor, SerialExecutor
from tests.helpers import toy
from tests.helpers.searches import lattice


class FakeRecipe:
    """Makes a Trainer as it is on a machine with GPUs."""

    def __init__(self, num_gpus):
        self.trainer = SimpleNamespace(
            accelerator=CUDAAccelerator(), num_devices=num_gpus, device_ids=list(range(num_gpus))
        )

    def build_trainer(self, folder, devices=None):
        return self.trainer


@pytest.mark.parametrize(
    ("total", "wanted", "width", "expected"),
    [(8, None, 8, 4), (8, None, 1, 8), (1, None, 8, 1), (3, None, 8, 3), (8, 8, 8, 8), (8, 2, 8, 2)],
    ids=["half", "one branch", "one GPU", "odd", "all", "two"],
)
def test_half_of_the_gpus_for_each_edge_unless_told_otherwise(total, wanted, width, expected):
    assert placement.shares(total, wanted, width=width, are_scarce=True) == expected


def test_processes_on_a_cpu_are_not_shared_out():
    assert placement.shares(4, None, width=8, are_scarce=False) == 4


def test_devices_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="must divide the 8 devices of the Trainer.*got 3. Valid choices: 1, 2, 4, 8"):
        placement.shares(8, 3, width=8, are_scarce=True)


@pytest.mark.parametrize(
    ("wanted", "workers", "each", "accumulate"), [(None, 2, 4, 2), (2, 4, 2, 4), (8, 1, 8, 1)], ids=["4", "2", "8"]
)
def test_global_batch_is_kept_by_accumulation_and_said(monkeypatch, tmp_path, wanted, workers, each, accumulate):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    shares = []
    monkeypatch.setattr(
        placement, "ProcessExecutor", lambda number, devices: shares.extend(devices) or SerialExecutor()
    )
    options = ExecutorOptions(name="processes", devices_per_edge=wanted)
    placed = placement.place(options, FakeRecipe(8), Search(lattice()), tmp_path)
    assert (placed.num_workers, placed.devices, placed.accumulate) == (workers, each, accumulate)
    assert placed.num_threads is None
    assert [gpu for share in shares for gpu in share] == [str(gpu) for gpu in range(8)]
    assert f"Each has {each} of 8 devices" in placed.sentence
    assert (f"accumulates {accumulate} times as many batches" in placed.sentence) == (accumulate > 1)


def test_gpus_are_those_that_are_visible(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    shares = []
    monkeypatch.setattr(
        placement, "ProcessExecutor", lambda number, devices: shares.extend(devices) or SerialExecutor()
    )
    placement.place(ExecutorOptions(name="processes"), FakeRecipe(4), Search(lattice()), tmp_path)
    assert shares == [["4", "5"], ["6", "7"]]


def test_one_branch_has_all_the_gpus_for_a_chain(monkeypatch, tmp_path):
    monkeypatch.setattr(placement, "ProcessExecutor", lambda _, devices: SerialExecutor())
    graph = lattice(lengths=1, rates=3, branches=("cs",))
    placed = placement.place(ExecutorOptions(name="processes"), FakeRecipe(8), Search(graph), tmp_path)
    assert (placed.num_workers, placed.devices, placed.accumulate) == (1, 8, 1)


def test_gpus_given_by_number_are_counted_from_zero_in_the_worker(monkeypatch, tmp_path):
    """A worker that sees one GPU alone has no other number for it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = []
    monkeypatch.setattr(placement, "ProcessExecutor", lambda _, devices: seen.extend(devices) or SerialExecutor())
    recipe = FakeRecipe(1)
    recipe.trainer.device_ids = [3]
    placed = placement.place(ExecutorOptions(name="processes"), recipe, Search(lattice()), tmp_path)
    assert (seen, placed.devices) == ([["3"]], 1)


def test_dask_does_not_share_gpus_out(tmp_path):
    with pytest.raises(ValueError, match="`executor.devices_per_edge` must be given for Dask with GPUs"):
        placement.place(ExecutorOptions(name="dask"), FakeRecipe(4), Search(lattice()), tmp_path)


@pytest.mark.parametrize(("name", "expected"), [("in_process", 1.0), ("processes", 0.5)])
def test_share_of_the_devices_for_the_estimate(name, expected):
    assert placement.share_of_devices(ExecutorOptions(name=name), FakeRecipe(8), Search(lattice())) == expected


def test_processes_started_together_may_not_all_search(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MisconfigurationException, match="`executor` must be 'in_process' where several processes"):
        placement.place(
            ExecutorOptions(name="processes"), toy.tuner(tmp_path).spec.recipe, Search(toy.graph()), tmp_path
        )


@pytest.mark.slow
def test_given_executor_is_used_and_left_to_its_owner(tmp_path):
    executor = ProcessExecutor(3)
    placed = placement.place(executor, toy.tuner(tmp_path).spec.recipe, Search(toy.graph()), tmp_path)
    assert (placed.executor, placed.num_workers, placed.is_isolated) == (executor, 3, True)
    placed.shutdown(cancel=True)
    assert executor.submit(max, 1, 2).result() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "process"}, "`executor.name` must be one of 'in_process', 'processes', 'ray', 'dask', 'slurm'"),
        ({"num_workers": 0}, "`executor.num_workers` must be at least 1, got 0"),
        ({"max_restarts": -1}, "`executor.max_restarts` must be at least 0, got -1"),
    ],
    ids=["name", "workers", "restarts"],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ExecutorOptions(**options)


@pytest.mark.parametrize("name", ["ray", "dask", "slurm"])
def test_missing_package_names_the_extra(monkeypatch, tmp_path, name):
    package = {"ray": "ray", "dask": "distributed", "slurm": "submitit"}[name]
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"Run `pip install 'lightning-opplan\\[{name}\\]'`"):
        toy.tuner(tmp_path, executor=name).search()


@pytest.mark.slow
def test_script_that_searches_without_a_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from lightning_opplan.tuner.executors.processes import ProcessExecutor\n"
        "print(ProcessExecutor(1).submit(max, 1, 2).result())\n"
    )
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=400)
    assert result.returncode == 1
    assert "below `if __name__ == '__main__':`" in result.stderr
