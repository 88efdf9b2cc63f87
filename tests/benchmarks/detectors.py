"""Time the classical detectors against the network: `python tests/benchmarks/detectors.py`.

On one core (where Python can choose it), the same made-up windows, and by turns, so that a busy machine slows all. The
limit of the cheap ones, which are all but sample entropy, is 0.3 ms a window.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

from ecg_shock.data.datasets import DataConfig, load_windows
from ecg_shock.evaluation.detectors import DETECTORS
from ecg_shock.inference.advisor import Advisor

WINDOWS = 512
LIMIT_MS = 0.3
NO_LIMIT = ("SampEn",)  # compares every pair of samples
NETWORK = "network"


def main() -> None:
    """Print one line for each detector and the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed; the median counts")
    rounds = parser.parse_args().rounds
    if hasattr(os, "sched_setaffinity"):  # not on macOS and Windows; the network takes all cores otherwise
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    windows = load_windows(DataConfig(databases=("synthetic",)))
    ecg = windows.ecg[np.linspace(0, len(windows) - 1, WINDOWS).round().astype(int)]
    runners: dict[str, Callable[[np.ndarray], np.ndarray]] = {NETWORK: Advisor().probabilities}
    runners |= {detector.name: detector.feature for detector in DETECTORS}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds + 1):
        for name, run in runners.items():
            started = time.perf_counter()
            run(ecg)
            times[name].append(1000 * (time.perf_counter() - started) / WINDOWS)
    medians = {name: float(np.median(values[1:])) for name, values in times.items()}
    print(f"{WINDOWS} windows of {windows.window_s:g} s, medians of {rounds} rounds")
    print(f"{'':12}{'ms a window':>12}{'of the network':>16}{'of the limit':>14}")
    for name, ms in medians.items():
        limit = "" if name in (NETWORK, *NO_LIMIT) else f"{ms / LIMIT_MS:14.3f}"
        print(f"{name:12}{ms:12.4f}{ms / medians[NETWORK]:16.3f}{limit}")


if __name__ == "__main__":
    main()
