"""What a search survives: kills of anything, requests to end, damaged files, a full disk, a second driver."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from lightning_opplan.planning.graph import Edge
from lightning_opplan.planning.journal import Journal
from lightning_opplan.planning.options import ExecutorOptions
from lightning_opplan.tuner.disk import weights_size
from lightning_opplan.tuner.edges.checkpoints import MAX_CHECKPOINTS
from lightning_opplan.tuner.executors.lock import FileLock, LockedError
from lightning_opplan.tuner.loop import EdgeError
from tests.helpers import toy
from tests.helpers.config import CONFIG
from tests.helpers.driver import Driver, assert_clean, edges_of, killed_search, result_of
from tests.helpers.scripted import PROJECT, Points, Scripted

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return Driver(tmp_path_factory.mktemp("whole") / "run", "processes").finish()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_search_in_processes_survives_random_kills(tmp_path, undisturbed):
    """Of the search, its workers, and the server of these; `python -m tests.helpers.driver` does more."""
    folder = tmp_path / "run"
    assert killed_search(folder, random.Random(1))
    assert result_of(folder) == undisturbed
    assert_clean(folder, len(undisturbed["edges"]))


@pytest.mark.slow
def test_search_killed_at_random_moments_ends_as_if_undisturbed(tmp_path, undisturbed):
    generator, kills = random.Random(0), 0
    folder = tmp_path / "run"
    for _ in range(8):
        driver = Driver(folder, "in_process")
        before, pause = len(edges_of(folder)), generator.uniform(0, 0.3)

        def is_at_work(before=before, pause=pause):
            if len(edges_of(folder)) > before or list(folder.glob("edges/*/resume/*")):
                time.sleep(pause)
                return True
            return False

        kills += driver.kill_when(is_at_work)
        if (folder / "result-0.json").exists():
            break
    assert Driver(folder, "in_process").finish() == undisturbed
    assert kills >= 5
    assert_clean(folder, len(undisturbed["edges"]))


@pytest.mark.slow
def test_two_processes_agree_and_resume_after_a_kill(tmp_path):
    whole = tmp_path / "whole"
    Driver(whole, "in_process", devices=2).finish()
    assert result_of(whole, 0) == result_of(whole, 1)
    folder = tmp_path / "killed"
    driver = Driver(folder, "in_process", devices=2)
    assert driver.kill_when(lambda: len(edges_of(folder)) >= 3)
    driver.wait_for_others()
    assert Driver(folder, "in_process", devices=2).finish() == result_of(folder, 1) == result_of(whole)
    assert_clean(folder, len(result_of(whole)["edges"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, {1, 130})], ids=["term", "ctrl-c"]
)
def test_stopped_search_says_so_by_its_status(tmp_path, number, status):
    content = yaml.safe_load(yaml.safe_dump(CONFIG))
    content["trainer"]["max_epochs"] = 400
    content["plan"]["knee"]["patience"] = 300
    content["plan"]["dirpath"] = str(tmp_path / "run")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "lightning_opplan",
        "plan",
        "--config",
        str(tmp_path / "config.yaml"),
    ]
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        # A shell's background jobs, tests among them, ignore Ctrl-C, and so would this one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/edges/*/resume/*5.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in ({status} if isinstance(status, int) else status)
    assert edges_of(tmp_path / "run") == []


@pytest.mark.slow
def test_processes_find_what_this_process_finds(tmp_path, undisturbed):
    assert Driver(tmp_path / "run", "in_process").finish() == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["term", "ctrl-c"])
def test_search_that_is_told_to_end_takes_everything_with_it(tmp_path, undisturbed, number):
    driver = Driver(tmp_path / "run", "processes")
    while not driver.workers():
        assert driver.process.poll() is None
        time.sleep(0.02)
    driver.process.send_signal(number)
    assert driver.process.wait(60) != 0
    assert driver.wait_for_others() < 5
    assert Driver(tmp_path / "run", "processes").finish() == undisturbed
    assert_clean(tmp_path / "run", len(undisturbed["edges"]))


@pytest.mark.slow
def test_killed_rank_of_an_edge_is_survived(tmp_path):
    """An edge on two processes; one of its ranks is killed, and the edge starts again from its last epoch."""
    expected = Driver(tmp_path / "whole", "processes", devices=2, one_state=True).finish()
    folder = tmp_path / "killed"
    driver = Driver(folder, "processes", devices=2, one_state=True)
    ranks = []
    while not ranks:
        assert driver.process.poll() is None
        ranks = [
            p for p in driver.others() if p.environ().get("LOCAL_RANK") == "1" and "tuner.worker" in str(p.cmdline())
        ]
        time.sleep(0.02)
    time.sleep(1)
    ranks[0].kill()
    assert driver.finish() == expected
    assert_clean(folder, len(expected["edges"]))


def test_second_search_in_a_folder_is_refused(tmp_path):
    tmp_path.joinpath("run").mkdir()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with FileLock(tmp_path / "run" / "lock"):
            os.write(write, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(read, 1)
    with pytest.raises(LockedError, match=f"is in use by process {child} on .*, since 20"):
        toy.tuner(tmp_path / "run").search()
    assert not (tmp_path / "run" / "journal.jsonl").exists()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    toy.tuner(tmp_path / "run", max_epochs=2).search()


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damaged_weights_are_trained_again_from_the_parent(tmp_path, searched, damage):
    """The first edge of the path, whose weights a further edge needs."""
    expected = toy.tuner(searched).search()
    folder = tmp_path / "damaged"
    shutil.copytree(searched, folder)
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text("".join(lines[:-2]))  # the two edges into the last state are to come
    for name in ("005", "006"):
        for file in folder.glob(f"edges/{name}_*/outcome.json"):
            file.unlink()
    needed = Journal.of(searched).read()[1].winners["2-1"]
    (weights,) = folder.glob(f"edges/*_{needed.parent}--2-1/weights.ckpt")
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        weights.write_bytes(content[:600] + bytes([content[600] ^ 1]) + content[601:])
    else:
        weights.unlink()
    with pytest.warns(UserWarning, match=f"The weights of {needed} are damaged or gone; the edge is trained again"):
        result = toy.tuner(folder).search()
    assert toy.fingerprint(result, folder) == toy.fingerprint(expected, searched)
    assert [kind for kind, edge in edges_of(folder) if edge == tuple(needed)] == ["edge", "weights"]
    assert weights.read_bytes() == content


def test_damaged_weights_of_the_result_are_trained_again(searched):
    result = toy.tuner(searched).search()
    content = result.weights.read_bytes()
    result.weights.write_bytes(b"")
    with pytest.warns(UserWarning, match="are damaged or gone"):
        assert toy.tuner(searched).search().path == result.path
    assert result.weights.read_bytes() == content


@pytest.mark.parametrize("executor", ["in_process", "processes"])
def test_full_disk_ends_the_search_and_the_same_command_goes_on(tmp_path, searched, executor):
    """Files above a size cannot be written, which is what a full disk looks like to a writer."""
    expected = toy.tuner(searched).search()
    folder = tmp_path / "full"
    code = (
        "import sys, resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))\n"
        "from tests.helpers import toy\n"
        "if __name__ == '__main__':\n"
        f"    toy.tuner({str(folder)!r}, num_threads=1, executor={executor!r}).search()\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert result.returncode != 0
    assert "OSError" in result.stderr or "EdgeError" in result.stderr
    assert re.search(r"File too large|could not be written", result.stderr)
    found = toy.tuner(folder, num_threads=1).search()
    assert toy.fingerprint(found, folder) == toy.fingerprint(expected, searched)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_error_of_an_edge_elsewhere_says_where_its_traceback_is(tmp_path):
    class Failing(toy.Classifier):
        def training_step(self, batch, batch_idx):
            raise ZeroDivisionError("in the model")

    with pytest.raises(EdgeError, match="→ .*: ZeroDivisionError: in the model The whole traceback is in ") as caught:
        toy.tuner(tmp_path, model=Failing, executor="processes").search()
    log = Path(re.search(r"is in (.*)\.$", str(caught.value))[1])
    assert "in training_step" in log.read_text()
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 1


def test_message_of_ours_comes_without_a_traceback(tmp_path):
    with pytest.raises(
        EdgeError, match="→ .*: `monitor` must be a metric that validation logs, got 'val/no'"
    ) as caught:
        toy.tuner(tmp_path, monitor="val/no", executor="processes").search()
    assert "traceback" not in str(caught.value)


def test_edge_that_dies_again_and_again_ends_the_search(tmp_path):
    class Dying(toy.Classifier):
        def training_step(self, batch, batch_idx):
            os.kill(os.getpid(), signal.SIGKILL)

    options = ExecutorOptions(name="processes", num_workers=1, max_restarts=2)
    with pytest.raises(EdgeError, match="was ended by signal SIGKILL before it had a result. This was try 3; see "):
        toy.tuner(tmp_path, model=Dying, executor=options).search()


def test_search_keeps_to_the_checkpoints_that_were_announced(tmp_path):
    """A metric that never settles makes every epoch a plausible knee."""
    most = 0

    class Counting(Scripted):
        def __init__(self, lr=0.1):
            super().__init__([0.5 + 0.1 * (-1) ** n for n in range(60)], lr=lr)

        def on_train_epoch_start(self):
            nonlocal most
            most = max(most, len(list(tmp_path.glob("run/edges/*/resume/*.ckpt"))))

    tuner = toy.tuner(
        tmp_path / "run", model=Counting, data=Points, monitor="val/acc", knee={"patience": 50},
        graph=toy.TransitionGraph({"a": {"model.lr": 0.1}}, [("start", "a")]),
        trainer=partial(Trainer, accelerator="cpu", logger=False, max_epochs=40),
    )  # fmt: skip
    tuner.search()
    assert most == MAX_CHECKPOINTS


def test_losing_weights_go_as_soon_as_they_have_lost(tmp_path):
    kept = []

    class Watching(toy.Classifier):
        def on_train_start(self):
            kept.append({file.parent.name.partition("_")[2] for file in tmp_path.glob("edges/*/weights.ckpt")})

    result = toy.tuner(tmp_path, model=Watching).search()
    winner = max((Edge("start", "2-1"), Edge("1-1", "2-1")), key=lambda edge: result.outcomes[edge].value)
    loser = next(edge for edge in (Edge("start", "2-1"), Edge("1-1", "2-1")) if edge != winner)
    assert f"{loser.parent}--2-1" not in kept[-1]
    assert all(len(names) <= len(toy.graph().states) - 1 for names in kept)


def test_weights_that_cannot_be_trained_again_end_the_search(searched):
    toy.tuner(searched).search().weights.unlink()

    class Diverging(toy.Classifier):
        def log(self, name, value, **options):
            super().log(name, value * float("nan"), **options)

    Diverging.__module__, Diverging.__qualname__ = toy.Classifier.__module__, toy.Classifier.__qualname__

    with (
        pytest.warns(UserWarning, match="are damaged or gone"),
        pytest.raises(EdgeError, match="trained again for its lost weights, it diverged"),
    ):
        toy.tuner(searched, model=Diverging).search()


def test_lazy_model_is_searched_without_an_estimate_of_its_disk(tmp_path, capsys):
    class Lazy(toy.Classifier):
        def __init__(self, lr=0.1):
            super().__init__(lr)
            self.network = torch.nn.LazyLinear(2)

    tuner = toy.tuner(tmp_path, model=Lazy, graph=toy.graph((0.1,), (8,)), progress=True)
    assert weights_size(tuner.spec.recipe, {}, str(tmp_path)) is None
    assert tuner.search().is_complete
    assert "Disk:" not in capsys.readouterr().out
