"""Supervise a worker process: start it, pass on its messages, restart it if it crashes, and stop it on Ctrl-C.

Supervisor and worker communicate over the standard streams of the worker process:

    worker → supervisor   one JSON object per line on standard output, see `ecg_shock.search.worker`
    supervisor → worker   any byte on standard input asks the worker to stop after the current epoch; when the stream is
                          closed, for example because the supervisor was killed, the worker exits at once
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

# Exit codes: nothing is left to do, or a new process has to continue. Any other exit code counts as a crash.
DONE, RECYCLE = 0, 75
MAX_CRASHES = 3
MAX_THREADS = 4  # with more threads such small networks are not faster
LOG_TAIL_LINES = 15
END_TIMEOUT_S = 30

_logger = logging.getLogger(__name__)


class WorkerError(ChildProcessError):
    """Raised if the worker process crashed repeatedly, or reported an error that stops the search."""


def supervise(
    command: Sequence[str],
    log: Path,
    *,
    on_message: Callable[[dict[str, Any]], None],
    on_give_up: Callable[[str, str], None],
) -> None:
    """Run a command repeatedly until its exit code is `DONE`.

    Ctrl-C asks the process to stop after the current epoch; a second Ctrl-C kills it.

    Parameters
    ----------
    command : sequence of str
        The command and its arguments.
    log : Path
        File to which the standard error of the process is appended.
    on_message : callable
        Called with each message of the process, whose "trial" names the current trial. If it raises an exception, the
        process is killed and the exception is passed on.
    on_give_up : callable
        Called with the name of a trial and a reason after the process has crashed `MAX_CRASHES` times in that trial
        without progress. It must prevent the trial from being started again.

    Raises
    ------
    WorkerError
        If the process crashes `MAX_CRASHES` times before its first message.
    KeyboardInterrupt
        After Ctrl-C, when the process has ended.
    """
    crashes = 0
    while True:
        messages: list[dict[str, Any]] = []

        def receive(message: dict[str, Any], messages: list[dict[str, Any]] = messages) -> None:
            messages.append(message)
            on_message(message)

        code = _run_once(command, log, receive)
        if code == DONE:
            return
        if code == RECYCLE:
            crashes = 0
            continue
        # The beginning of a trial is not progress, but the end of an epoch or of a trial is.
        progressed = any(message["kind"] != "begin" for message in messages)
        crashes = 1 if progressed else crashes + 1
        _logger.warning("the worker process crashed (exit code %d): crash %d of at most %d", code, crashes, MAX_CRASHES)
        if crashes < MAX_CRASHES:
            continue
        if not messages:
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
            message = f"the worker process crashed {crashes} times before it began a trial (exit code {code})"
            raise WorkerError("\n".join([f"{message}. {log} ends with:", *tail]))
        trial, reason = messages[-1]["trial"], f"the process crashed {crashes} times in this trial (exit code {code})"
        on_give_up(trial, reason)
        crashes = 0


def _run_once(command: Sequence[str], log: Path, on_message: Callable[[dict[str, Any]], None]) -> int:
    threads = str(min(MAX_THREADS, os.cpu_count() or 1))
    environment = {
        "TF_NUM_INTRAOP_THREADS": threads,
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": threads,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            # In its own session the process does not receive Ctrl-C from the terminal.
            start_new_session=True,
        )
    if process.stdin is None or process.stdout is None:
        raise WorkerError(f"{command[0]!r} was started without its standard streams")
    try:
        with _stop_on_interrupt(process.stdin) as requested:
            for line in process.stdout:
                on_message(json.loads(line))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
    if requested.is_set():
        raise KeyboardInterrupt
    return process.returncode


@contextlib.contextmanager
def _stop_on_interrupt(request: IO[bytes]) -> Iterator[threading.Event]:
    """At the first Ctrl-C write a byte to `request` and set the event; at the second raise KeyboardInterrupt."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread receives signals
        return

    def request_stop(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        requested.set()
        _logger.warning("stopping after this epoch; press Ctrl-C again to stop at once")
        with contextlib.suppress(OSError):
            os.write(request.fileno(), b"s")

    before = signal.signal(signal.SIGINT, request_stop)
    try:
        yield requested
    finally:
        signal.signal(signal.SIGINT, before)
