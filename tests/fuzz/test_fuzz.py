"""Whatever is fed to the package, it answers, or refuses by ValueError, TypeError or OSError: 20,000 mutated inputs.

To try a case again: ``python tests/fuzz/cases.py TARGET SEED INDEX INDEX+1``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

SEED = 5
# Cases for each target of cases.py; those that take longest to try first.
COUNTS = {
    "keras": 100,
    "litert": 900,
    "wfdb": 2000,
    "predict": 3000,
    "predict_many": 2000,
    "stream": 1500,
    "scan": 1500,
    "edf": 2000,
    "npy": 3000,
    "csv": 3000,
    "toml": 2500,
}
MIN_CASES = 20_000
PROCESSES = 2
PROCESS_LIMIT_S = 300  # for what the limit of a single case does not catch
MAX_DEATHS = 5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the limits of a process are those of Unix"),
]


def outcomes(target: str) -> list[str]:
    """Try all cases of a target, going on behind those that end the process."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    found: list[str] = []
    deaths = 0
    while len(found) < COUNTS[target] and deaths < MAX_DEATHS:
        arguments = [target, str(SEED), str(len(found)), str(COUNTS[target])]
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("cases.py")), *arguments],
            capture_output=True,
            timeout=PROCESS_LIMIT_S,
            env=environment,
        )
        lines = done.stdout.decode().splitlines()
        assert [int(line.split("\t")[0]) for line in lines] == list(range(len(found), len(found) + len(lines)))
        found += [line.split("\t")[1] for line in lines]
        if len(found) < COUNTS[target]:
            found.append(f"FAULT died with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}")
            deaths += 1
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Future[list[str]]]]:
    """Start all targets, on two processes."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        yield {target: pool.submit(outcomes, target) for target in COUNTS}


@pytest.mark.parametrize("target", COUNTS)
def test_only_allowed_errors_come_out(target: str, running: dict[str, Future[list[str]]]) -> None:
    """No other exception, no broken promise, no crash, no hang and no gigabyte; and some inputs are still taken."""
    found = running[target].result()
    faults = [f"{target} {SEED} {index}: {end}" for index, end in enumerate(found) if end.startswith("FAULT")]
    print(target, Counter(end.split(":")[0] for end in found).most_common())
    assert faults == []
    assert found.count("returned") >= 0.01 * len(found)
    assert len(found) == COUNTS[target]


def test_enough_is_tried(running: dict[str, Future[list[str]]]) -> None:
    """Over all targets, 20,000 cases and more ran to their end."""
    assert sum(len(future.result()) for future in running.values()) >= MIN_CASES


def test_a_fault_would_be_seen() -> None:
    """The process reports an exception that is not allowed, and a killed one costs its own case alone."""
    script = Path(__file__).with_name("cases.py")
    probe = f"""
import os, runpy, signal, sys
names = runpy.run_path({str(script)!r})
def attempt(rng):
    number = int(rng.integers(4))
    if number == 0: raise KeyError("odd")
    if number == 1: raise ValueError
    if number == 2: os.kill(os.getpid(), signal.SIGSEGV)
names["TARGETS"]["keras"] = lambda folder: attempt
names["main"]("keras", "0", sys.argv[1], "40", "")
"""
    ends: list[str] = []
    codes = []
    while len(ends) < 40:
        done = subprocess.run([sys.executable, "-c", probe, str(len(ends))], capture_output=True, text=True)
        ends += [line.split("\t")[1].split(":")[0] for line in done.stdout.splitlines()]
        codes.append(done.returncode)
        if done.returncode:
            ends.append("died")
    assert set(ends) == {"FAULT KeyError", "ValueError", "returned", "died"}
    assert codes[-1] == 0 or ends[-1] == "died"
    assert ends.count("died") == sum(code != 0 for code in codes)
