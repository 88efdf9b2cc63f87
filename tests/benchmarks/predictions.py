"""Time and memory to read and evaluate a million predictions, against their limits.

`python tests/benchmarks/predictions.py [WINDOWS]` makes a file of that many windows, reads it, evaluates it and writes
its tables, and prints seconds (limit 60 s) and peak memory (limit 2 GB) of that in a process of its own.
"""

from __future__ import annotations

import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ecg_shock.rhythms import RHYTHMS

WINDOWS = 1_000_000
PATIENTS = 1000
DURATIONS_S = (2.0, 3.0, 4.0, 5.0, 8.0, 10.0)
LIMIT_S, LIMIT_BYTES = 60.0, 2e9
CLASSES = {"vf": ("coarse_vf", "fine_vf"), "vt": ("rapid_vt", "other_vt")}
COLUMNS = (
    *("database", "record", "lead", "patient", "start_s", "duration_s", "rhythm", "aha_class"),
    *("probability", "shock", "fold", "rate_bpm", "amplitude_mv"),
)


def write(path: Path, windows: int) -> None:
    """Write random predictions, a twentieth of them wrong."""
    rng = np.random.default_rng(0)
    names = list(RHYTHMS)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for i in range(windows):
            patient, duration_s = i % PATIENTS, DURATIONS_S[i // PATIENTS % len(DURATIONS_S)]
            rhythm = names[rng.integers(len(names))]
            rare = bool(rng.random() < 0.2)
            probability = rng.random() * 0.5 + (0.5 if (rhythm in CLASSES) != (rng.random() < 0.05) else 0.0)
            row = (
                *(f"database-{patient % 7}", f"record-{patient}", "II", f"database-{patient % 7}/patient-{patient}"),
                *(i // PATIENTS * 10.0 + 1 / 3, duration_s, rhythm, CLASSES.get(rhythm, (RHYTHMS[rhythm],) * 2)[rare]),
                *(probability, str(probability >= 0.5).lower(), patient % 5),
                100 + 200 * rng.random() if rhythm == "vt" else "",
                0.5 * rng.random() if rhythm == "vf" else "",
            )
            writer.writerow(row)


def evaluate_file(path: Path) -> None:
    """Read, evaluate and lay out the file, and print how long it took and the most memory it needed."""
    from ecg_shock import validate
    from ecg_shock.report.tables import to_json, to_markdown

    started = time.perf_counter()
    validation = validate(path)
    read_and_evaluated_s = time.perf_counter() - started
    pages = len(to_markdown(validation)) + len(to_json(validation))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    windows = sum(performance.windows for performance in validation.performances)
    print(f"{windows:,} windows, {path.stat().st_size / 1e6:.0f} MB of CSV, {pages:,} characters of tables")
    print(
        f"read and evaluated {read_and_evaluated_s:6.2f} s; with tables {seconds:.2f} s, "
        f"{seconds / LIMIT_S:.3f} of the limit"
    )
    print(f"peak memory        {peak / 1e9:6.2f} GB, {peak / LIMIT_BYTES:.3f} of the limit")


def main() -> None:
    """Make the file, and evaluate it in a process that has done nothing else."""
    if len(sys.argv) > 2 and sys.argv[1] == "--evaluate":
        evaluate_file(Path(sys.argv[2]))
        return
    windows = int(sys.argv[1]) if len(sys.argv) > 1 else WINDOWS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.csv"
        write(path, windows)
        subprocess.run([sys.executable, __file__, "--evaluate", str(path)], check=True)  # noqa: S603


if __name__ == "__main__":
    main()
