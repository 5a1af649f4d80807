import contextlib
import os
import re
import signal
import time

import pytest

from lightning_opplan.tuner.executors.lock import FileLock, LockedError
from tests.helpers import forked


@pytest.fixture
def holder(tmp_path):
    """The number of a process that holds the lock until it is killed."""
    read, write = os.pipe()

    def hold():
        with FileLock(tmp_path / "lock"):
            os.write(write, b"x")
            time.sleep(300)

    child = forked.start(hold)
    os.read(read, 1)
    yield child
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


def test_second_holder_is_refused_and_the_first_named(tmp_path, holder):
    with pytest.raises(LockedError, match=f"{re.escape(str(tmp_path))}' is in use by process {holder} on "):
        FileLock(tmp_path / "lock").__enter__()


def test_lock_dies_with_its_holder(tmp_path, holder):
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
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
    os.kill(holder, signal.SIGTERM)
    with FileLock(tmp_path / "lock", timeout=30):
        assert (tmp_path / "lock").exists()
