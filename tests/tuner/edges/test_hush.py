import logging
import threading

from lightning_opplan.tuner.edges.hush import hushed


def test_loggers_are_as_before_whatever_the_order_in_which_threads_end():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    first_ends, is_inside = threading.Event(), threading.Event()

    def first() -> None:
        with hushed():
            is_inside.set()
            first_ends.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert is_inside.wait(10)
    with hushed():
        first_ends.set()
        thread.join(10)
        assert logger.level == logging.WARNING
    assert logger.level == before == logging.INFO
