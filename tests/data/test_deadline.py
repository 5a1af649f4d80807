import os
import signal
import threading
import time

import pytest

from lightning_opplan.data import deadline


def test_result_and_errors_come_through():
    assert deadline.run(lambda: 7, seconds=5) == 7
    with pytest.raises(ZeroDivisionError):
        deadline.run(lambda: 1 / 0, seconds=5)
    assert deadline.run(lambda: 8, seconds=5) == 8


def test_one_that_hangs_is_left_behind():
    released = threading.Event()
    with pytest.raises(deadline.StalledError, match=r"no progress for 0.1 s"):
        deadline.run(released.wait, seconds=0.1)
    assert deadline.run(lambda: 7, seconds=5) == 7
    released.set()


def test_what_an_interrupted_wait_leaves_is_not_the_next_result():
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            deadline.run(lambda: time.sleep(0.3) or "old", seconds=5)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert [deadline.run(lambda n=n: n, seconds=5) for n in range(3)] == [0, 1, 2]


def test_slow_work_is_waited_for_as_long_as_it_makes_progress():
    def work():
        for _ in range(8):
            time.sleep(0.05)
            deadline.progress()
        return "done"

    assert deadline.run(work, seconds=0.2) == "done"


def test_threads_end_with_those_they_work_for():
    def use():
        deadline.run(lambda: None, seconds=5)

    def helpers():
        return {thread for thread in threading.enumerate() if thread.name == "decoding"}

    use()
    before = helpers()
    for _ in range(20):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
    end = time.monotonic() + 10
    while not helpers() <= before and time.monotonic() < end:
        time.sleep(0.01)
    assert helpers() <= before


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_forked_process_gets_a_thread_of_its_own():
    deadline.run(lambda: None, seconds=5)
    child = os.fork()
    if child == 0:
        os._exit(deadline.run(lambda: 3, seconds=5))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
