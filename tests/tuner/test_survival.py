"""What a search survives: kills of anything, requests to end, damaged files, a full disk, a second driver."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lightning_opplan.planning.options import ExecutorOptions
from lightning_opplan.tuner.executors.lock import FileLock, LockedError
from lightning_opplan.tuner.loop import EdgeError
from tests.helpers import toy
from tests.helpers.config import CONFIG
from tests.helpers.driver import Driver, assert_clean, edges_of, killed_search, result_of
from tests.helpers.scripted import PROJECT

pytestmark = pytest.mark.process


@pytest.fixture
def undisturbed(searched):
    """What the search finds when nothing happens, in this process."""
    return toy.fingerprint(toy.tuner(searched).search(), searched)


@pytest.fixture(scope="module")
def in_two(tmp_path_factory):
    """Folder of a search on two processes that nothing happened to."""
    folder = tmp_path_factory.mktemp("two") / "run"
    Driver(folder, "in_process", devices=2).finish()
    return folder


@pytest.mark.timeout(900)
def test_search_in_processes_survives_random_kills(tmp_path, undisturbed):
    """Of the search, its workers, and the server of these; `python -m tests.helpers.driver` does more."""
    folder = tmp_path / "run"
    assert killed_search(folder, random.Random(1))
    assert result_of(folder) == undisturbed
    assert_clean(folder, len(undisturbed["edges"]))


def test_search_killed_at_random_moments_ends_as_if_undisturbed(tmp_path, undisturbed):
    generator, kills = random.Random(0), 0
    folder = tmp_path / "run"
    for _ in range(4):
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
    assert kills >= 3
    assert_clean(folder, len(undisturbed["edges"]))


def test_two_processes_agree_and_resume_after_a_kill(tmp_path, in_two):
    assert result_of(in_two, 0) == result_of(in_two, 1)
    folder = tmp_path / "killed"
    driver = Driver(folder, "in_process", devices=2)
    assert driver.kill_when(lambda: len(edges_of(folder)) >= 3)
    driver.wait_for_others()
    assert Driver(folder, "in_process", devices=2).finish() == result_of(folder, 1) == result_of(in_two)
    assert_clean(folder, len(result_of(in_two)["edges"]))


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


def test_search_that_is_told_to_end_takes_everything_with_it(tmp_path, undisturbed):
    driver = Driver(tmp_path / "run", "processes")
    while not driver.workers():
        assert driver.process.poll() is None
        time.sleep(0.02)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.process.wait(60) != 0
    driver.wait_for_others()
    assert Driver(tmp_path / "run", "processes").finish() == undisturbed
    assert_clean(tmp_path / "run", len(undisturbed["edges"]))


def test_killed_rank_of_an_edge_is_survived(tmp_path, in_two):
    """An edge on two processes; one of its ranks is killed, and the edge starts again from its last epoch."""
    folder = tmp_path / "killed"
    driver = Driver(folder, "processes", devices=2, one_state=True)
    ranks = []
    while not ranks:
        assert driver.process.poll() is None
        ranks = [
            p
            for p in driver.others()
            if p.environ().get("LOCAL_RANK") == "1" and "executors.worker" in str(p.cmdline())
        ]
        time.sleep(0.02)
    time.sleep(1)
    ranks[0].kill()
    found, expected = driver.finish(), result_of(in_two)
    for kind in ("edges", "weights"):
        assert found[kind] == {edge: expected[kind][edge] for edge in ("start → 1-1",)}
    assert_clean(folder, 1)


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


@pytest.mark.parametrize("executor", ["in_process", "processes"])
def test_full_disk_ends_the_search_and_the_same_command_goes_on(tmp_path, undisturbed, executor):
    """Files above a size cannot be written, which is what a full disk looks like to a writer."""
    folder, script = tmp_path / "full", tmp_path / "script.py"
    script.write_text(
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))\n"
        "from tests.helpers import toy\n"
        "if __name__ == '__main__':\n"
        f"    toy.tuner({str(folder)!r}, executor={executor!r}).search()\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )  # fmt: skip
    assert result.returncode != 0
    assert "OSError" in result.stderr or "EdgeError" in result.stderr
    assert re.search(r"File too large|could not be written", result.stderr)
    assert toy.fingerprint(toy.tuner(folder).search(), folder) == undisturbed


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
