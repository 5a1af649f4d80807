"""Functions in a process that is forked off this one: it need not import anything again."""

import os
import signal
import sys
import traceback


def start(function):
    """Call a function in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def run(function):
    """Call a function in a process of its own; returns its status."""
    return os.waitstatus_to_exitcode(os.waitpid(start(function), 0)[1])
