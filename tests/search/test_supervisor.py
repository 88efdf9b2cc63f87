"""The supervisor: it follows, recycles, mends and stops a process, and leaves none behind."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from ecg_shock.search.supervisor import MAX_DEATHS, WorkerError, supervise

# A worker without TensorFlow: `say` is the protocol, `count` how often it was started before.
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
    """Supervise a script, and return the messages heard, the trials given up, and the number of starts."""

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
            on_poison=lambda trial, reason: given_up.append((trial, reason)),
        )
        return heard, given_up, len((tmp_path / "starts").read_text())

    return _run


def test_recycles_until_done(run):
    """A process that asks for a fresh one gets it until one says that nothing is left."""
    heard, given_up, starts = run("say('end', str(count)); sys.exit(75 if count < 3 else 0)")
    assert heard == [("end", str(index)) for index in range(4)]
    assert (given_up, starts) == ([], 4)


def test_a_killed_process_is_started_again(run):
    """SIGKILL in the middle of a trial costs a restart, nothing else."""
    heard, given_up, starts = run("""
        say("begin")
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        say("end")
        """)
    assert heard == [("begin", "0"), ("begin", "0"), ("end", "0")]
    assert (given_up, starts) == ([], 2)


def test_a_trial_that_kills_its_process_is_given_up(run):
    """After the allowed number of deaths without progress the trial is named, and the work goes on."""
    heard, given_up, starts = run(f"""
        if count < {MAX_DEATHS}:
            say("begin", "bad")
            os._exit(9)
        say("end", "good")
        """)
    assert [trial for trial, _ in given_up] == ["bad"]
    assert "exit code 9" in given_up[0][1]
    assert heard[-1] == ("end", "good")
    assert starts == MAX_DEATHS + 1


def test_deaths_with_progress_between_are_forgiven(run):
    """A process that dies after each epoch is restarted for as long as it gets further."""
    _, given_up, starts = run(f"""
        say("begin")
        if count < {3 * MAX_DEATHS}:
            say("epoch")
            os._exit(1)
        """)
    assert (given_up, starts) == ([], 3 * MAX_DEATHS + 1)


def test_a_process_that_cannot_start_is_an_error_with_its_log(run):
    """A process that dies before any trial is not restarted for ever, and what it wrote is shown."""
    with pytest.raises(WorkerError, match="no recordings here"):
        run("sys.exit('no recordings here')")


def test_ctrl_c_asks_first(run):
    """Ctrl-C lets the process end its epoch and say so, and then ends the supervisor."""
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
    """A process that does not listen is killed by the second Ctrl-C, and is gone when the supervisor returns."""
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


def test_an_error_while_following_leaves_no_process(run):
    """When the follower fails, its error is passed on and the process is gone."""
    pids = []

    def fail(message: dict) -> None:
        pids.append(int(message["trial"]))
        raise ValueError("cannot follow")

    with pytest.raises(ValueError, match="cannot follow"):
        run("say('begin', str(os.getpid())); signal.pause()", on_message=fail)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
