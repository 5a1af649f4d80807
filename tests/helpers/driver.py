"""Searches whose processes are killed at random, to be counted by tests or by hand.

python -m tests.helpers.driver --kills 100
python -m tests.helpers.driver --kills 20 --script tests.helpers.budgeted    # a search with a budget, and its delivery
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.helpers.scripted import PROJECT

MARK = "OPPLAN_TEST_MARK"


@dataclass
class Driver:
    """A search in a process of its own; it and all that it starts are known by a mark in their environment."""

    folder: Path
    executor: str = "processes"
    devices: int = 1
    one_state: bool = False
    script: str = "tests.helpers.toy"
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self):
        command = [sys.executable, "-W", "ignore", "-m", self.script, str(self.folder), str(self.devices)]
        command += [self.executor, *(["--one-state"] if self.one_state else [])]
        self._errors = self.folder.with_name(f"{self.folder.name}.stderr")
        with self._errors.open("wb") as stream:
            self.process = subprocess.Popen(
                command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=stream, start_new_session=True,
                env={**os.environ, MARK: self.mark},
            )  # fmt: skip

    @property
    def errors(self):
        """The end of what it printed as errors."""
        return self._errors.read_text(errors="replace")[-3000:]

    def others(self):
        """The living processes that the search has started."""
        found = []
        for process in psutil.process_iter(["pid"]):
            try:
                is_ours = process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
            except (psutil.Error, OSError):
                continue
            if is_ours and process.pid != self.process.pid:
                found.append(process)
        return found

    def workers(self):
        return [process for process in self.others() if kind_of(process) == "worker"]

    def wait_for_others(self, seconds=20.0):
        """Seconds until all that the search has started has ended; fails if it does not."""
        started = time.monotonic()
        while left := self.others():
            assert time.monotonic() - started < seconds, [process.cmdline() for process in left]
            time.sleep(0.05)
        return time.monotonic() - started

    def finish(self, timeout=300):
        assert self.process.wait(timeout) == 0, self.errors
        self.wait_for_others()
        return result_of(self.folder)

    def kill_when(self, ready, timeout=120, delay=0.0):
        """Kill all of it at once when something has happened, or soon after; returns whether it came to that."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and not ready() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        is_alive = self.process.poll() is None
        if is_alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return is_alive


def result_of(folder, rank=0):
    """What a rank of a search found, see `toy.fingerprint`."""
    return json.loads((folder / f"result-{rank}.json").read_text())


def kind_of(process):
    """What a process of a search is."""
    try:
        words = " ".join(process.cmdline())
        if "resource_tracker" in words:
            return "resource tracker"
        # The server and what it forks off look alike; only the latter lead a group.
        return "worker" if os.getpgid(process.pid) == process.pid else "server"
    except (psutil.Error, OSError):
        return "ended"


def edges_of(folder):
    """Type and edge of each line of a journal but the first."""
    file = folder / "journal.jsonl"
    lines = file.read_text().splitlines()[1:] if file.exists() else []
    lines = [json.loads(line) for line in lines if line.endswith("}")]
    return [(line["type"], tuple(line["edge"])) for line in lines]


def assert_clean(folder, num_edges):
    """Every edge has been trained once, and nothing temporary is left."""
    lines = edges_of(folder)
    assert len(lines) == len(set(lines)) == num_edges
    assert {kind for kind, _ in lines} == {"edge"}
    assert not left_of(folder)


def left_of(folder):
    """What is there for the sake of going on."""
    names = ("lock", "resume")
    found = [file for file in folder.rglob("*") if file.suffix in (".tmp", ".lock") or file.name in names]
    return sorted(file.relative_to(folder) for file in found)


def killed_search(folder, generator, *, executor="processes", longest=14.0, script="tests.helpers.toy"):
    """Kill the search or something that it started at random moments until it ends; returns what was killed."""
    victims = []
    while True:
        driver = Driver(folder, executor, script=script)
        while driver.process.poll() is None:
            at_work = generator.random() < 0.7  # the other moments are mostly those of imports
            while at_work and driver.process.poll() is None and not driver.workers():
                time.sleep(0.02)
            deadline = time.monotonic() + generator.uniform(0, 1 if at_work else longest)
            while driver.process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            if driver.process.poll() is not None:
                break
            others = driver.others()
            if others and generator.random() < 0.5:
                victim = generator.choice(driver.workers() or others)
                victims.append(kind_of(victim))
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                    victim.kill()
            else:
                victims.append("driver")
                driver.process.send_signal(signal.SIGKILL)
                driver.process.wait()
        if driver.process.returncode == 0:
            driver.wait_for_others()
            return victims
        assert driver.process.returncode == -signal.SIGKILL, driver.errors
        driver.wait_for_others()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--script", default="tests.helpers.toy")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        expected = Driver(whole, script=options.script).finish()
        victims, searches = [], 0
        while len(victims) < options.kills:
            folder = Path(place, f"killed-{searches}")
            killed = killed_search(folder, generator, script=options.script)
            assert result_of(folder) == expected
            for part in ("", "deliver"):  # nothing was trained twice
                assert sorted(edges_of(folder / part)) == sorted(edges_of(whole / part))
            assert left_of(folder) == left_of(whole)  # arms keep what they go on from
            victims, searches = victims + killed, searches + 1
            counts = {kind: victims.count(kind) for kind in sorted(set(victims))}
            print(f"{searches} searches, {len(victims)} kills: {counts}; all ended as undisturbed", flush=True)


if __name__ == "__main__":
    main()
