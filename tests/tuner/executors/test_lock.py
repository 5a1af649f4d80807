import os
import re
import signal
import subprocess
import sys

import pytest

from lightning_opplan.tuner.executors.lock import FileLock, LockedError
from tests.helpers.scripted import PROJECT

pytestmark = pytest.mark.process

HOLD = """
import sys, time
from lightning_opplan.tuner.executors.lock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(300)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_second_holder_is_refused_and_the_first_named(tmp_path, holder):
    with pytest.raises(LockedError, match=f"{re.escape(str(tmp_path))}' is in use by process {holder.pid} on "):
        FileLock(tmp_path / "lock").__enter__()


def test_lock_dies_with_its_holder(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with FileLock(tmp_path / "lock"):
        pass
    assert not list(tmp_path.iterdir())


def test_lock_is_not_inherited_by_forked_processes(tmp_path):
    read, write = os.pipe()
    with FileLock(tmp_path / "lock"):
        child = os.fork()
        if child == 0:
            os.read(read, 1)  # outlives the holder's lock
            os._exit(0)
    with FileLock(tmp_path / "lock"):
        pass
    os.write(write, b"x")
    os.waitpid(child, 0)


def test_waiting_ends_as_soon_as_the_lock_is_free(tmp_path, holder):
    holder.send_signal(signal.SIGTERM)
    with FileLock(tmp_path / "lock", timeout=30):
        assert (tmp_path / "lock").exists()
