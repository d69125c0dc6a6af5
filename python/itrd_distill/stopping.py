"""SIGTERM and Ctrl-C: the usual exit status, a line that says how to go on, and no process left behind.

The first process raises `Stopped` in its main thread, so that what is open is closed and what was set aside is put
back. Where that does not end it in time (the main thread may wait in a library, and an exception in a destructor is
lost), a second thread does. The processes that Lightning starts beside the first one do not listen: they take part in
the collective operations that the first may be waiting in, until it ends them. No handler waits for another process.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

GRACE = 5.0  # seconds

_ADVICE = {
    "train": "the same command goes on from its last checkpoint with --resume (in place of --overwrite)",
    "compare": "the same command again goes on",
    "demo": "the same command again starts anew",
    "probe": "the same command again starts anew",
}
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# Tells the processes that Lightning starts with the same command whom they follow.
_FIRST = "ITRD_DISTILL_FIRST_PROCESS"


def advice(arguments: list[str]) -> str:
    """How to go on with a command that was stopped."""
    return next((_ADVICE[argument] for argument in arguments if argument in _ADVICE), "nothing was changed")


class Stopped(BaseException):
    """A signal asks the command to end. No KeyboardInterrupt: of that Lightning makes an exit of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(_NAMES[number])
        self.number = number


class _Stopping:
    """What is to be known when a signal comes."""

    listening = False
    launchers: list = []  # noqa: RUF012
    leaving = threading.Lock()


@contextlib.contextmanager
def stoppable(advice: str) -> Iterator[None]:
    """While it lasts, SIGTERM and Ctrl-C end the process with status 143 or 130 and a line that ends with `advice`."""
    if threading.current_thread() is not threading.main_thread():
        # Signals are the main thread's.
        yield
    elif _FIRST in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0:
        with _handling(signal.SIG_IGN):
            _follow(int(os.environ[_FIRST]))
            yield
    else:
        os.environ[_FIRST] = str(os.getpid())
        with _handling(_Once()) as once, _second_thread(advice) as ended:
            try:
                yield
            except BaseException:
                # Others than Stopped, too: what it interrupted may have failed at being closed.
                if once.number is None:
                    raise
                ended.set()
                with contextlib.suppress(OSError, ValueError):
                    sys.stdout.flush()
                _leave(once.number, advice)
            finally:
                once.number = once.number or 0
                _end_others()
                del os.environ[_FIRST]


def adopt(trainer) -> None:
    """Called with every Trainer of Lightning: the processes that it starts are ended with this one."""
    if _Stopping.listening:
        _Stopping.launchers.append(trainer.strategy.launcher)
        # Its own handler of SIGTERM, which goes before others, is a broadcast, in which processes wait for ever.
        trainer._signal_connector._sigterm_notifier_fn = _leave_it_to_us


def _leave_it_to_us(number: int, frame: FrameType | None) -> None:
    pass


class _Once:
    """Raises at the first signal; a further one must not break into the end."""

    number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            raise Stopped(number)


@contextlib.contextmanager
def _handling(handler) -> Iterator:
    before = {number: signal.signal(number, handler) for number in _NAMES}
    _Stopping.listening = True
    try:
        yield handler
    finally:
        _Stopping.listening = False
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextlib.contextmanager
def _second_thread(advice: str) -> Iterator[threading.Event]:
    """A thread that hears of signals even while the main one is deep in a library; the event keeps it from acting."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    ended = threading.Event()

    def listen() -> None:
        with heard:
            while (number := heard.recv(1)) and number[0] not in _NAMES:
                pass
        if number and not ended.wait(GRACE):
            _leave(number[0], advice)

    threading.Thread(target=listen, daemon=True, name="stopping").start()
    try:
        yield ended
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        told.close()


def _leave(number: int, advice: str) -> None:
    # Held for good: of the two threads the first to come here ends the process.
    _Stopping.leaving.acquire()
    _end_others()
    if all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        os.write(2, f"itrd-distill: stopped by {_NAMES[number]}; {advice}\n".encode())
    # At once, for there is nothing left to do: what Python does at an end may wait for the processes that are gone.
    os._exit(128 + number)


def _end_others() -> None:
    """Kill what works for this process: they hold nothing that is not in files, and would wait for it for ever."""
    for launcher in _Stopping.launchers:
        processes = list(getattr(launcher, "procs", ()))
        if processes:
            # Lightning looks into this list, and would kill this process too where it finds one that failed.
            launcher.procs.clear()
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
    _Stopping.launchers.clear()
    for process in multiprocessing.active_children():
        process.kill()


def _follow(first: int) -> None:
    """End this process when the first one has gone, however that was."""

    def watch() -> None:
        while os.getppid() == first:
            time.sleep(0.2)
        _end_others()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="following").start()


def _after_fork() -> None:
    """A process that is forked off, as those that load images, leaves signals to the one that it works for."""
    if _Stopping.listening:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
