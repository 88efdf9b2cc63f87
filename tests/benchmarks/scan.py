"""A day of ECG from disk to episodes, and a stream of it: `python tests/benchmarks/scan.py`.

The day is synthetic: 24 h of two leads at 250 Hz, a WFDB record of format 16, 86 MB. The scan is a whole process of its
own, with the default step of 1 s: 86,396 windows. It may take 1.5 times the network's own time, which is the bare
LiteRT invocation times the windows, over the cores; and 1 GB. The bare invocation is timed before each scan, and the
least ratio counts, as others may be busy on the machine. The stream takes an hour of the day in pieces of one second;
the limit is 1 ms for 99 of 100.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import wfdb
from advice import WINDOW, bare_litert, matrix_gflops, median_us

import ecg_shock
from ecg_shock.data.synthetic import synthetic_recordings

HOURS = 24
FS = 250
LIMIT, LIMIT_GB, LIMIT_PUSH_MS = 1.5, 1.0, 1.0  # times the network's own time; the largest memory; a second's push
RUNS = 5
BARE_ROUNDS = 20

SCAN = """
import json, pathlib, re, sys, time
started = time.perf_counter()
import ecg_shock
result = ecg_shock.scan(sys.argv[1])
seconds = time.perf_counter() - started
status = pathlib.Path("/proc/self/status").read_text()  # ru_maxrss would count what forked this process
peak_gb = int(re.search(r"VmHWM:\\s*(\\d+) kB", status)[1]) * 1024 / 1e9
print(json.dumps([seconds, peak_gb, len(result.start_s), len(result.episodes)]))
"""


def write_day(folder: Path) -> Path:
    """Write the record; the second lead is the first one upside down."""
    people = [recording.signal[:, 0] for recording in synthetic_recordings(30, fs=FS)]
    hour = np.concatenate(people)
    signal = np.tile(hour, HOURS)[: HOURS * 3600 * FS]
    digital = np.round(np.nan_to_num(signal) * 200).astype(np.int16)
    wfdb.wrsamp(
        "day", fs=FS, units=["mV", "mV"], sig_name=["II", "V5"], d_signal=np.stack([digital, -digital], axis=1),
        fmt=["16", "16"], adc_gain=[200.0, 200.0], baseline=[0, 0], write_dir=str(folder),
    )  # fmt: skip
    return folder / "day"


def main() -> None:
    """Print one line for each limit."""
    cores = len(os.sched_getaffinity(0))
    print(f"machine: {matrix_gflops():.0f} GFLOP/s of matrix multiplication, {cores} cores")
    bare = bare_litert(ecg_shock.Advisor())
    window = np.random.default_rng(0).standard_normal((1, 1, WINDOW, 1)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        record = write_day(Path(folder))
        runs = []
        for _ in range(RUNS):
            bare_us = median_us({"bare LiteRT": (bare, window)}, BARE_ROUNDS)["bare LiteRT"]
            done = subprocess.run([sys.executable, "-c", SCAN, str(record)], check=True, capture_output=True, text=True)
            seconds, peak_gb, windows, episodes = json.loads(done.stdout)
            network_s = 1e-6 * bare_us * windows / cores
            runs.append((seconds / network_s, seconds, network_s, peak_gb))
        ratio, seconds, network_s, peak_gb = min(runs)
        print(f"{HOURS} h at {FS} Hz: {windows:.0f} windows, {episodes:.0f} episodes")
        print(f"network's own time   {network_s:6.2f} s")
        print(f"disk to episodes     {seconds:6.2f} s    {ratio:.2f} x the network's own time  (limit {LIMIT:g} x)")
        print(f"largest memory       {peak_gb:6.2f} GB   (limit {LIMIT_GB:g} GB)")
        signal = ecg_shock.read_record(record).signal[: 3600 * FS, 0].astype(float)
    stream = ecg_shock.Stream(FS)
    stream.push(signal[: 10 * FS])
    took_ms = []
    for i in range(10 * FS, len(signal), FS):
        started = time.perf_counter()
        stream.push(signal[i : i + FS])
        took_ms.append(1000 * (time.perf_counter() - started))
    p99 = float(np.percentile(took_ms, 99))
    print(f"push of one second   {np.median(took_ms):6.3f} ms   median of {len(took_ms)}")
    print(f"                     {p99:6.3f} ms   99th percentile  (limit {LIMIT_PUSH_MS:g} ms)")


if __name__ == "__main__":
    main()
