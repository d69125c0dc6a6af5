"""SIGTERM and Ctrl-C: the usual exit status, a line that says how to go on, and no process left behind.

The first process raises `Stopped`, in a loop over batches between two of them, so that what is open is closed and what
was set aside is put back. Where that does not end it soon (the main thread may wait in a library), a second thread ends
it at once, which costs nothing that is in files. The processes that Lightning starts beside the first do not listen:
they take part in the collective operations that the first may be waiting in, until it ends them.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
Advice = Callable[[], str]

GRACE = 3.0  # seconds

_ADVICE = {
    "train": "the same command goes on from its last checkpoint with --resume (in place of --overwrite, --ckpt-path)",
    "compare": "the same command again goes on",
    "demo": "the same command again starts anew",
    "probe": "the same command again starts anew",
}
# As long as `train` has written no checkpoint, what its folder held before is there again, and --resume would go on
# with that.
_ADVICE_BEFORE = "it had written no checkpoint yet: the same command again begins as it did"
_NAMES: dict[int, str] = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
# How the first process ends the others, which end those that load images for them.
_END = getattr(signal, "SIGUSR2", signal.SIGTERM)
# Tells the processes that Lightning starts, with the same command, whom they follow.
_FIRST = "ITRD_DISTILL_FIRST_PROCESS"


class Stopped(BaseException):
    """A signal asks the command to end. No KeyboardInterrupt: of that Lightning makes an exit of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    """Of this process: whether signals are handled here, the one that came, loops over batches that are running."""

    listening = False
    number: int | None = None
    handled = False
    has_checkpoint = False
    loops = 0
    launchers: list = []  # noqa: RUF012
    others: list = []  # noqa: RUF012
    leaving = threading.Lock()


def advice(arguments: list[str]) -> Advice:
    """How to go on with a command that was stopped."""
    command = next((argument for argument in arguments if argument in _ADVICE), "")

    def words() -> str:
        if command == "train" and not _State.has_checkpoint:
            return _ADVICE_BEFORE
        return _ADVICE.get(command, "nothing was changed")

    return words


def go_on_from_here() -> None:
    """The run's first checkpoint stands."""
    _State.has_checkpoint = True


@contextlib.contextmanager
def stoppable(advice: Advice) -> Iterator[None]:
    """While it lasts, SIGTERM and Ctrl-C end the process with status 143 or 130 and a line that ends with `advice`."""
    if _State.listening or threading.current_thread() is not threading.main_thread():
        # Handlers are set once, and by the main thread alone.
        yield
    elif _FIRST in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0:
        _follow(int(os.environ[_FIRST]))
        with _handling(_pass_over, {*_NAMES, _END}), _second_thread([_END], _follow_at_once):
            yield
    else:
        os.environ[_FIRST] = str(os.getpid())
        ended = threading.Event()

        def end_in_time(number: int) -> None:
            _State.number = _State.number or number
            _take_over()
            if not ended.wait(GRACE):
                _leave(number, advice)

        try:
            with _handling(_stop, {*_NAMES}), _second_thread(_NAMES, end_in_time):
                try:
                    yield
                except BaseException:
                    # Others than Stopped, too: with the group, what loads images may have been stopped before.
                    if _State.number is None:
                        raise
                    ended.set()
                    with contextlib.suppress(OSError, ValueError):
                        sys.stdout.flush()
                    _leave(_State.number, advice)
                finally:
                    ended.set()
                    _end_others()
                    del os.environ[_FIRST]
        except Stopped as stopped:
            # It came while the thread was started or ended.
            _leave(stopped.number, advice)


@contextlib.contextmanager
def between_batches() -> Iterator[None]:
    """In a loop over batches a signal waits for the next `look`: an exception that comes anywhere, in a destructor or
    while processes are started, does harm or is lost."""
    if _State.listening:
        from torch.utils.data._utils import signal_handling

        # PyTorch's handler of SIGCHLD raises such ones, and breaks into others; loaders look for the dead without it.
        signal_handling._SIGCHLD_handler_set = True
    _State.loops += 1
    try:
        yield
    finally:
        _State.loops -= 1


def look() -> None:
    """Raise Stopped if a signal has come."""
    if _State.number is not None:
        raise Stopped(_State.number)


def looking(batches: Iterable[T]) -> Iterator[T]:
    """The batches, with a look before each."""
    with between_batches():
        for batch in batches:
            look()
            yield batch


def adopt(trainer) -> None:
    """Called with every Trainer of Lightning: the processes that it starts are ended with this one."""
    if _State.listening:
        launcher = trainer.strategy.launcher
        _State.launchers.append(launcher)
        if hasattr(launcher, "_call_children_scripts") and hasattr(signal, "pthread_sigmask"):
            launcher._call_children_scripts = _deaf_to_ctrl_c(launcher._call_children_scripts)
        # Its own handler of SIGTERM, which goes before others, is a broadcast, in which processes wait for ever.
        trainer._signal_connector._sigterm_notifier_fn = lambda number, frame: None


def _deaf_to_ctrl_c(start: Callable[[], None]) -> Callable[[], None]:
    """Processes started with a signal blocked never hear it, not even while Python itself begins in them."""

    def started() -> None:
        # Meanwhile the second thread hears it for this process.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return started


def _stop(number: int, frame: FrameType | None) -> None:
    _State.number = _State.number or number
    # A further signal must not break into the end.
    first, _State.handled = not _State.handled, True
    if first and not _State.loops:
        raise Stopped(number)


def _pass_over(number: int, frame: FrameType | None) -> None:
    # The group's signal ends the processes that load images, too, and what is raised for that is nobody's concern.
    sys.excepthook = lambda *_: None


@contextlib.contextmanager
def _handling(handler: Callable, numbers: Collection[int]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    _State.listening, _State.number, _State.handled, _State.has_checkpoint = True, None, False, False
    try:
        yield
    finally:
        _State.listening = False
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextlib.contextmanager
def _second_thread(numbers: Collection[int], act: Callable[[int], None]) -> Iterator[None]:
    """A thread that hears of signals, and acts at the first, even while the main one waits in a library."""
    heard, told = socket.socketpair()
    told.setblocking(False)
    before = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)

    def listen() -> None:
        # Other signals that have a handler are heard as well.
        while (number := heard.recv(1)) and number[0] not in numbers:
            pass
        if number:
            act(number[0])

    thread = threading.Thread(target=listen, daemon=True, name="signals")
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        told.close()  # which ends the thread
        thread.join(1)
        # Not before: Python complains of signals that it cannot write down.
        heard.close()


def _leave(number: int, advice: Advice) -> None:
    # Held for good: of the two threads the first to come here ends the process.
    _State.leaving.acquire()
    _end_others()
    if all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
        os.write(2, f"itrd-distill: stopped by {_NAMES[number]}; {advice()}\n".encode())
    # At once, for there is nothing left to do: what Python does at an end may wait for the processes that are gone.
    os._exit(128 + number)


def _take_over() -> None:
    """Lightning looks after the processes it has started, and would kill this one too where one of them has failed."""
    for launcher in _State.launchers:
        processes = getattr(launcher, "procs", [])
        _State.others += processes
        processes.clear()


def _end_others() -> None:
    """Kill what works for this process: they hold nothing that is not in files, and would wait for it for ever."""
    _take_over()
    for process in _State.others:
        process.send_signal(_END)
    for process in _State.others:
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _State.launchers.clear()
    _State.others.clear()
    loaders = multiprocessing.active_children()
    with _no_accidents():
        for process in loaders:
            process.kill()
        for process in loaders:
            process.join(1)


@contextlib.contextmanager
def _no_accidents() -> Iterator[None]:
    """Torch handles SIGCHLD, and raises, wherever the program is, when a process of a loader has been killed."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def _follow(first: int) -> None:
    """End this process when the first one has gone, however that was."""

    def watch() -> None:
        while os.getppid() == first:
            time.sleep(0.2)
        _follow_at_once()

    threading.Thread(target=watch, daemon=True, name="following").start()


def _follow_at_once(number: int = 0) -> None:
    _end_others()
    os._exit(1)


def _after_fork() -> None:
    """A process that is forked off, as those that load images are, leaves signals to the one that it works for."""
    if _State.listening:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
