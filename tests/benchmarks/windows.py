"""Time from recordings to windows against its limits: `python tests/benchmarks/windows.py [DATA]`.

All three public databases, 5-s windows, all leads: the first time in an empty cache (limit 60 s) and from the cache
(limit 2 s).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from ecg_shock.data.datasets import DataConfig, load_windows

LIMITS_S = {"first time": 60.0, "from the cache": 2.0}


def main() -> None:
    """Print one line for each limit."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ECG_SHOCK_CACHE"] = cache
        for name, limit_s in LIMITS_S.items():
            started = time.perf_counter()
            windows = load_windows(DataConfig(), folder, leads="all")
            seconds = time.perf_counter() - started
            print(f"{name:<15} {seconds:6.2f} s  {seconds / limit_s:6.3f} of the limit  {len(windows):,} windows")


if __name__ == "__main__":
    main()
