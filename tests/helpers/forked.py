"""Functions in a process that is forked off this one: it need not import anything again."""

import os
import signal
import sys
import traceback

import torch


def start(function):
    """Call a function in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # As a DataLoader's worker does: a forked process makes torch's pool of threads anew at its first use, which
        # fails where two threads come first at once.
        torch.set_num_threads(1)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def run(function):
    """Call a function in a process of its own; returns its status."""
    return os.waitstatus_to_exitcode(os.waitpid(start(function), 0)[1])
