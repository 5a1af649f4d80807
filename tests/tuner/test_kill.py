"""Searches in processes of their own, killed without warning."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import PROJECT


def start(folder, devices=1):
    command = [sys.executable, "-W", "ignore", "-m", "tests.tuner.toy", str(folder), str(devices)]
    return subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, text=True
    )


def finish(folder, devices=1):
    process = start(folder, devices)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return [json.loads((Path(folder) / f"result-{rank}.json").read_text()) for rank in range(devices)]


def kill_when(process, folder, ready, timeout=120):
    """Send SIGKILL to the whole group once something has happened; returns whether it came to that."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and not ready(folder) and time.monotonic() < deadline:
        time.sleep(0.005)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def journal_edges(folder):
    file = Path(folder) / "journal.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [tuple(json.loads(line)["edge"]) for line in lines[1:] if line.endswith("}")]


@pytest.mark.slow
def test_search_killed_at_random_moments_ends_as_if_undisturbed(tmp_path):
    (expected,) = finish(tmp_path / "whole")
    generator, kills = random.Random(0), 0
    folder = tmp_path / "killed"
    for _ in range(12):
        process = start(folder)
        before, pause = len(journal_edges(folder)), generator.uniform(0, 0.3)

        def ready(place, before=before, pause=pause):
            if len(journal_edges(place)) > before or list(Path(place).glob("edges/*/resume/*")):
                time.sleep(pause)
                return True
            return False

        kills += kill_when(process, folder, ready)
        if (folder / "result-0.json").exists():
            break
    (result,) = finish(folder)
    assert kills >= 5
    assert result == expected
    edges = journal_edges(folder)
    assert len(edges) == len(set(edges)) == len(expected["edges"])
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
def test_two_processes_agree_and_resume_after_a_kill(tmp_path):
    expected = finish(tmp_path / "whole", devices=2)
    assert expected[0] == expected[1]
    folder = tmp_path / "killed"
    process = start(folder, devices=2)
    assert kill_when(process, folder, lambda place: len(journal_edges(place)) >= 3)
    assert finish(folder, devices=2) == expected
    edges = journal_edges(folder)
    assert len(edges) == len(set(edges)) == len(expected[0]["edges"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, {1, 130})], ids=["term", "ctrl-c"]
)
def test_stopped_search_says_so_by_its_status(tmp_path, number, status):
    import yaml

    from tests.test_cli import CONFIG

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
    assert journal_edges(tmp_path / "run") == []
