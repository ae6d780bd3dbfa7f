"""Has TERM come at the worst moment: while the thread that accepts holds a lock that every start of a thread takes.

Python runs handlers of signals between any two steps of the main thread. Where that is the one that accepts, a handler that starts
a thread waits for ever: the new thread wants the lock, which the main thread holds. Before Python 3.13 that is
_shutdown_locks_lock, taken by Thread._stop when a thread is found to have ended.
"""

import os
import signal
import sys
import threading

maintain = threading._maintain_shutdown_locks  # called with the lock held


def interrupted():
    if sys._getframe(1).f_code.co_name == "_stop":
        threading._maintain_shutdown_locks = maintain
        os.kill(os.getpid(), signal.SIGTERM)
    maintain()


threading._maintain_shutdown_locks = interrupted
