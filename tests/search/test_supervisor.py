"""The supervisor starts, restarts and stops a worker process, and leaves none behind."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from ecg_shock.search.supervisor import MAX_CRASHES, WorkerError, supervise

# A worker without TensorFlow: `say` sends a message, and `count` is the number of earlier starts.
PRELUDE = """
import json, os, pathlib, signal, sys
starts = pathlib.Path({folder!r}) / "starts"
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
def say(kind, trial="0"):
    print(json.dumps({{"kind": kind, "trial": trial}}), flush=True)
"""


@pytest.fixture
def run(tmp_path: Path):
    """Supervise a script; return the messages, the trials that were given up, and the number of starts."""

    def _run(script: str, on_message=lambda message: None):
        heard, given_up = [], []

        def hear(message: dict) -> None:
            heard.append((message["kind"], message["trial"]))
            on_message(message)

        code = PRELUDE.format(folder=str(tmp_path)) + textwrap.dedent(script)
        supervise(
            [sys.executable, "-c", code],
            tmp_path / "worker.log",
            on_message=hear,
            on_give_up=lambda trial, reason: given_up.append((trial, reason)),
        )
        return heard, given_up, len((tmp_path / "starts").read_text())

    return _run


def test_recycles_until_done(run):
    """A process is followed by a new one until one has nothing left to do."""
    heard, given_up, starts = run("say('end', str(count)); sys.exit(75 if count < 3 else 0)")
    assert heard == [("end", str(index)) for index in range(4)]
    assert (given_up, starts) == ([], 4)


def test_a_killed_process_is_restarted(run):
    """After SIGKILL in a trial the process is restarted."""
    heard, given_up, starts = run("""
        say("begin")
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        say("end")
        """)
    assert heard == [("begin", "0"), ("begin", "0"), ("end", "0")]
    assert (given_up, starts) == ([], 2)


def test_a_trial_that_kills_its_process_is_given_up(run):
    """After the allowed number of crashes without progress the trial is given up, and the work continues."""
    heard, given_up, starts = run(f"""
        if count < {MAX_CRASHES}:
            say("begin", "bad")
            os._exit(9)
        say("end", "good")
        """)
    assert [trial for trial, _ in given_up] == ["bad"]
    assert "exit code 9" in given_up[0][1]
    assert heard[-1] == ("end", "good")
    assert starts == MAX_CRASHES + 1


def test_crashes_after_progress_do_not_count(run):
    """A process that crashes after each epoch is restarted as long as it makes progress."""
    _, given_up, starts = run(f"""
        say("begin")
        if count < {3 * MAX_CRASHES}:
            say("epoch")
            os._exit(1)
        """)
    assert (given_up, starts) == ([], 3 * MAX_CRASHES + 1)


def test_a_process_that_cannot_start_is_an_error_with_its_log(run):
    """A process that crashes before any trial is not restarted forever, and the error shows its log."""
    with pytest.raises(WorkerError, match="no recordings here"):
        run("sys.exit('no recordings here')")


def test_first_ctrl_c_stops_after_the_epoch(run):
    """After Ctrl-C the process ends its epoch, and then the supervisor ends."""
    with pytest.raises(KeyboardInterrupt):
        run(
            """
            say("begin")
            os.read(0, 1)
            say("epoch")
            sys.exit(75)
            """,
            on_message=lambda message: message["kind"] == "begin" and os.kill(os.getpid(), signal.SIGINT),
        )


def test_second_ctrl_c_kills(run, tmp_path: Path):
    """The second Ctrl-C kills the process before the supervisor returns."""
    pids = []

    def interrupt(message: dict) -> None:
        pids.append(int(message["trial"]))
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(
            """
            say("begin", str(os.getpid()))
            os.read(0, 1)
            say("begin", str(os.getpid()))
            signal.pause()
            """,
            on_message=interrupt,
        )
    assert len(pids) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_an_error_in_the_callback_leaves_no_process(run):
    """An error in `on_message` is passed on, and the process is killed."""
    pids = []

    def fail(message: dict) -> None:
        pids.append(int(message["trial"]))
        raise ValueError("cannot follow")

    with pytest.raises(ValueError, match="cannot follow"):
        run("say('begin', str(os.getpid())); signal.pause()", on_message=fail)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
