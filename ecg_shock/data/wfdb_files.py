"""WFDB records: header and signal files."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.reading import (
    WHAT_TO_DO,
    build_recording,
    check_agreement,
    choose_voltage_leads,
    lead_names,
    reading,
)
from ecg_shock.data.recordings import MV_PER_UNIT, Recording, check_fs

logger = logging.getLogger(__name__)

# WFDB signal formats of a fixed size (https://wfdb.io/spec/signal-files.html), so that a header's claim
# can be compared with the size of the file before anything is allocated.
WFDB_BYTES_PER_SAMPLE = {"80": 1.0, "212": 1.5, "16": 2.0, "24": 3.0, "32": 4.0}
WFDB_CHECKSUM_MODULUS = 2**16  # the header stores the sum of all samples in 16 bits
WFDB_HEADER_MAX_BYTES = 2**20  # real headers have a few kB


def read_wfdb_header(path: Path) -> Any:
    """Read the header of a single-segment WFDB record and hold its claims against the files it names.

    Parameters
    ----------
    path : pathlib.Path
        The ``.hea`` file.

    Returns
    -------
    wfdb.Record
        With `sig_len` set even where the header leaves it out.

    Raises
    ------
    OSError
        If the header or a file it names is missing.
    ValueError
        If the header cannot be parsed, names files outside its folder, claims another size than its files
        have, or uses a feature that is not supported. The message names the file and what to do.
    """
    import wfdb

    if path.stat().st_size > WFDB_HEADER_MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, too many for a WFDB header. {WHAT_TO_DO}")
    lines = _header_lines(path)
    for line in lines[1:]:
        if "/" in line.split()[0] or "\\" in line.split()[0]:
            raise ValueError(
                f"{path} points to {line.split()[0]!r}, outside its folder; move the file beside the header, "
                "and name it there without a folder"
            )
    with reading(path, "a WFDB header"):
        header = wfdb.rdheader(str(path.absolute().with_suffix("")))
        several_segments = isinstance(header, wfdb.MultiRecord)
    if several_segments:
        raise ValueError(f"{path} is a record of several segments; read its segments one by one")
    if header.n_sig == 0 or header.n_sig != len(lines) - 1:
        raise ValueError(f"{path} promises {header.n_sig} signals and describes {len(lines) - 1}. {WHAT_TO_DO}")
    check_fs(header.fs, f"{path}: ")
    if not np.isfinite(header.adc_gain).all():
        raise ValueError(f"{path} has the gains {header.adc_gain}. {WHAT_TO_DO}")
    if any(header.skew[i] for i in range(header.n_sig)):
        raise ValueError(f"{path} has skewed signals, which are not supported; rewrite it with wfdb's xform")
    for name in dict.fromkeys(header.file_name):
        _check_signal_file(path, header, name)
    return header


def find_wfdb_header(path: Path) -> Path | None:
    """Return the header of the WFDB record that a path means, or None if it means none."""
    if path.suffix == ".hea":
        candidates = [path]
    elif path.suffix in (".dat", ".mat"):
        candidates = [path.with_suffix(".hea")]
    else:
        candidates = [Path(f"{path}.hea")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _header_lines(path: Path) -> list[str]:
    """Return the record line and the signal lines."""
    lines = [line.strip() for line in path.read_bytes().splitlines()]
    lines = [line for line in lines if line and not line.startswith(b"#")]
    if not lines:
        raise ValueError(f"{path} is an empty WFDB header. {WHAT_TO_DO}")
    try:
        return [line.decode("ascii") for line in lines]
    except UnicodeDecodeError as error:
        # The WFDB library drops such characters without a word, and so reads µV as V.
        raise ValueError(f"{path} is no plain ASCII: {error}. Write uV for microvolts, or fetch it again.") from None


def _check_signal_file(path: Path, header: Any, name: str) -> None:
    """Hold the size of a signal file against the header, and set the header's `sig_len` where it has none."""
    channels = [i for i in range(header.n_sig) if header.file_name[i] == name]
    formats = {(header.fmt[i], header.byte_offset[i] or 0) for i in channels}
    (fmt, offset), *others = formats
    if others or fmt not in WFDB_BYTES_PER_SAMPLE:
        raise ValueError(
            f"{path} gives {name!r} the formats {sorted(formats)}; allowed is one of {tuple(WFDB_BYTES_PER_SAMPLE)}"
        )
    signal_file = path.parent / name
    if not signal_file.is_file():
        raise FileNotFoundError(f"{signal_file} is missing, which {path.name} names; copy it there")
    samples_per_frame = sum(header.samps_per_frame[i] for i in channels)
    if samples_per_frame == 0:
        raise ValueError(f"{path} claims 0 samples per frame. {WHAT_TO_DO}")
    size = signal_file.stat().st_size
    if header.sig_len is None:
        header.sig_len = int((size - offset) / WFDB_BYTES_PER_SAMPLE[fmt]) // samples_per_frame
    expected = offset + math.ceil(header.sig_len * samples_per_frame * WFDB_BYTES_PER_SAMPLE[fmt])
    if size != expected or header.sig_len < 1:
        raise ValueError(
            f"{signal_file} has {size} bytes, but its header promises {header.sig_len} samples in {expected} "
            f"bytes. {WHAT_TO_DO}"
        )


def read_wfdb(path: Path, fs: float | None, units: str | None, leads: Sequence[str] | None) -> Recording:
    """Read the voltage channels of a WFDB record, given its header; see `ecg_shock.data.readers.read_record`."""
    import wfdb

    header = read_wfdb_header(path)
    names = lead_names(header.sig_name)
    chosen = choose_voltage_leads(path, names, header.units, leads)
    rates = [header.fs * header.samps_per_frame[i] for i in chosen]
    check_agreement(path, rates, [header.units[i] for i in chosen], fs, units)
    with reading(path, "a WFDB record"):
        record = wfdb.rdrecord(
            str(path.absolute().with_suffix("")), channels=chosen, physical=False, smooth_frames=False
        )
        columns = record.dac(expanded=True)
    for channel, digital in zip(chosen, record.e_d_signal, strict=True):
        check_checksum(path, header, channel, names[channel], int(digital.sum(dtype=np.int64)))
    warn_of_missing_gains(path, chosen)
    signal = np.stack([column * MV_PER_UNIT[header.units[i]] for column, i in zip(columns, chosen, strict=True)], 1)
    return build_recording(path, signal, rates[0], [names[i] for i in chosen])


def check_checksum(path: Path, header: Any, channel: int, name: str, total: int) -> None:
    """Raise ValueError if the sum of a WFDB signal's digital samples is not what the header at `path` says."""
    checksum = header.checksum[channel]
    if checksum and (total - checksum) % WFDB_CHECKSUM_MODULUS:
        raise ValueError(
            f"{path.parent / header.file_name[channel]}: the samples of {name!r} do not add up "
            f"to the checksum {checksum} in {path.name}. {WHAT_TO_DO}"
        )


def warn_of_missing_gains(path: Path, channels: list[int]) -> None:
    """Log which of these signals the header at `path` gives no gain."""
    lines = _header_lines(path)[1:]
    for channel in channels:
        gain = (lines[channel].split() + [""])[2]  # as in 200(1024)/mV
        if re.match(r"-?[0.]*(?![0-9.])", gain):
            logger.warning("%s: signal %d is not calibrated; taken as 200 units/mV", path, channel)
