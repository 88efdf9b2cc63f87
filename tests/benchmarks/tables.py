"""Time and memory to read a day of ECG from a CSV file: `python tests/benchmarks/tables.py [HOURS]`.

The file is synthetic: 24 h of time and one lead at 250 Hz, 21.6 million rows. It is read in a process of its own, which
may take 1 GB of memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from ecg_shock.data.synthetic import synthetic_recordings

FS = 250
LIMIT_GB = 1.0

READ = """
import json, pathlib, re, sys, time
import ecg_shock
started = time.perf_counter()
recording = ecg_shock.read_record(sys.argv[1], fs=250, units="mV")
seconds = time.perf_counter() - started
status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would count what forked this process
peak_gb = int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024 / 1e9
print(json.dumps([recording.duration_s / 3600, recording.leads[0], seconds, peak_gb]))
"""


def main() -> None:
    """Print the size of the file, the time, and the memory against its limit."""
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 24.0
    signal = next(synthetic_recordings(1, fs=FS)).signal[:, 0]
    rows = round(hours * 3600 * FS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.csv"
        with path.open("w", encoding="utf-8") as file:
            file.write("time (s),ECG (mV)\n")
            for first in range(0, rows, len(signal)):
                piece = enumerate(signal[: rows - first].tolist(), first)
                file.write("".join(f"{row / FS:.3f},{mv:.3f}\n" for row, mv in piece))
        size = path.stat().st_size
        done = subprocess.run([sys.executable, "-c", READ, str(path)], check=True, capture_output=True, text=True)
    read_hours, lead, seconds, peak_gb = json.loads(done.stdout)
    print(f"{read_hours:g} h of lead {lead}, {size / 1e6:.0f} MB of CSV")
    print(f"read            {seconds:6.2f} s")
    print(f"largest memory  {peak_gb:6.2f} GB  (limit {LIMIT_GB:g} GB)")


if __name__ == "__main__":
    main()
