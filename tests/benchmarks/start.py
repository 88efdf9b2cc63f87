"""Time from nothing to advice against its limits: `python tests/benchmarks/start.py`.

Whole processes: importing the package (limit 0.3 s above the bare interpreter), and the first advice (limit 0.6 s).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 7
IMPORT_LIMIT_S, ADVICE_LIMIT_S = 0.3, 0.6
STRIP = "0.5 * np.sin(np.arange(1250) / 10)"


def seconds(code: str) -> float:
    """Return the median wall-clock time of a process that runs this code."""
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Print one line for each limit."""
    bare = seconds("pass")
    imported = seconds("import ecg_shock") - bare
    advised = seconds(f"import numpy as np, ecg_shock; ecg_shock.predict({STRIP}, fs=250)")
    print(f"bare interpreter    {bare:.3f} s")
    print(f"import ecg_shock   +{imported:.3f} s  {imported / IMPORT_LIMIT_S:.2f} of the limit")
    print(f"first advice        {advised:.3f} s  {advised / ADVICE_LIMIT_S:.2f} of the limit")


if __name__ == "__main__":
    main()
