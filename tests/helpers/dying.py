"""Processes that kill themselves at a chosen change of the disk."""

import os
import signal
from pathlib import Path

import torch

_CHANGES = ((os, "fsync"), (os, "replace"), (os, "unlink"), (Path, "unlink"))


def dies_at(step, action, *more):
    """Runs ``action`` in a child that kills itself at its ``step``-th change of the disk; whether it died.

    more: (owner, name) of functions that count as changes too.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, "the action hung"
            return True
        assert os.WEXITSTATUS(status) == 0, "the action failed"
        return False
    torch.set_num_threads(1)  # the threads of a pool do not come along: a child that waits for them hangs
    left = [step]

    def counted(function):
        def wrapper(*args, **options):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return wrapper

    signal.alarm(60)
    try:
        for owner, name in (*_CHANGES, *more):
            setattr(owner, name, counted(getattr(owner, name)))
        action()
    except BaseException:
        os._exit(1)
    os._exit(0)
