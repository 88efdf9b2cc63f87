"""Keep a working process alive: start it, follow it, recycle it, mend its death, and never leave it behind.

The process and its supervisor talk over the process's standard streams, which all systems have and which close by
themselves when one side dies:

    process → supervisor   one JSON object a line on standard output, see `ecg_shock.search.worker`
    supervisor → process   any byte on standard input asks it to stop after its epoch; the end of the stream, which also
                           comes when the supervisor is killed, makes it end at once
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

# What a process ends with: nothing left to do, or more to do in a fresh process. Anything else is a death.
DONE, RECYCLE = 0, 75
MAX_DEATHS = 3
MAX_THREADS = 4  # so small a network does not run faster on more
LOG_TAIL_LINES = 15
END_TIMEOUT_S = 30

_logger = logging.getLogger(__name__)


class WorkerError(ChildProcessError):
    """The working process died again and again, or cannot do its work."""


def supervise(
    command: Sequence[str],
    log: Path,
    *,
    on_message: Callable[[dict[str, Any]], None],
    on_poison: Callable[[str, str], None],
) -> None:
    """Run a command again and again until it says that nothing is left to do.

    Ctrl-C asks the process to stop after its epoch; a second one kills it.

    Parameters
    ----------
    command : sequence of str
        What to start.
    log : Path
        Receives whatever the process writes to standard error.
    on_message : callable
        Called with each message of the process. A message's "trial" is what the process is working on. An exception
        raised here kills the process and is passed on.
    on_poison : callable
        Called with a trial's name and a reason after the process has died `MAX_DEATHS` times in that trial without
        getting any further. It must see to it that the trial is not tried again.

    Raises
    ------
    WorkerError
        If the process dies `MAX_DEATHS` times without saying anything.
    KeyboardInterrupt
        After Ctrl-C, when the process has ended.
    """
    deaths = 0
    while True:
        messages: list[dict[str, Any]] = []

        def note(message: dict[str, Any], messages: list[dict[str, Any]] = messages) -> None:
            messages.append(message)
            on_message(message)

        code = _run_once(command, log, note)
        if code == DONE:
            return
        if code == RECYCLE:
            deaths = 0
            continue
        # A process that announces a trial and dies has got no further; one that ended an epoch or a trial has.
        progressed = any(message["kind"] != "begin" for message in messages)
        deaths = 1 if progressed else deaths + 1
        _logger.warning("the working process died (exit code %d), death %d of %d", code, deaths, MAX_DEATHS)
        if deaths < MAX_DEATHS:
            continue
        if not messages:
            raise WorkerError(
                f"the working process died {deaths} times before it began a trial (exit code {code}). "
                f"The end of {log}:\n{_tail(log)}"
            )
        on_poison(messages[-1]["trial"], f"the process died {deaths} times in this trial, last with exit code {code}")
        deaths = 0


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
            # Ctrl-C reaches all processes of a terminal's group; this one is to hear of it from us alone.
            start_new_session=True,
        )
    if process.stdin is None or process.stdout is None:
        raise WorkerError(f"{command[0]!r} was started without its standard streams")
    try:
        with _first_interrupt_asks(process.stdin) as asked:
            for line in process.stdout:
                on_message(json.loads(line))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=END_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stdin.close()
    if asked.is_set():
        raise KeyboardInterrupt
    return process.returncode


@contextlib.contextmanager
def _first_interrupt_asks(request: IO[bytes]) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a byte on `request`; the second is a KeyboardInterrupt as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread alone
        return

    def ask(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        asked.set()
        _logger.warning("stopping after this epoch; Ctrl-C again stops at once")
        with contextlib.suppress(OSError):
            os.write(request.fileno(), b"s")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:])
