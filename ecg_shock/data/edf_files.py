"""EDF and EDF+ files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ecg_shock.data.reading import (
    WHAT_TO_DO,
    build_recording,
    check_agreement,
    choose_voltage_leads,
    lead_names,
    reading,
)
from ecg_shock.data.recordings import MV_PER_UNIT, Recording


def first_edf_lead(path: Path) -> str | None:
    """Return the name of the first voltage channel of an EDF file, or None if there is none."""
    import edfio

    with _reading_edf(path):
        signals = edfio.read_edf(path, header_encoding="latin-1").signals
        names = lead_names([signal.label for signal in signals])
        return next((name for name, s in zip(names, signals, strict=True) if s.physical_dimension in MV_PER_UNIT), None)


def read_edf(path: Path, fs: float | None, units: str | None, leads: Sequence[str] | None) -> Recording:
    """Read the voltage channels of an EDF file; see `ecg_shock.data.readers.read_record`."""
    import edfio

    with _reading_edf(path):
        edf = edfio.read_edf(path, header_encoding="latin-1")
        continuous = edf.is_continuous
        names = lead_names([signal.label for signal in edf.signals])
        found_units = [signal.physical_dimension for signal in edf.signals]
        rates = [float(signal.sampling_frequency) for signal in edf.signals]
        ranges = np.array([[*signal.physical_range, *signal.digital_range] for signal in edf.signals])
    if not continuous:
        raise ValueError(f"{path} is a discontinuous EDF+ file; save its continuous segments one by one")
    if not np.isfinite(ranges).all():
        raise ValueError(f"{path} has the physical and digital ranges {ranges.tolist()}. {WHAT_TO_DO}")
    chosen = choose_voltage_leads(path, names, found_units, leads)
    check_agreement(path, [rates[i] for i in chosen], [found_units[i] for i in chosen], fs, units)
    with _reading_edf(path):
        signal = np.stack([edf.signals[i].data * MV_PER_UNIT[found_units[i]] for i in chosen], axis=1)
    return build_recording(path, signal, rates[chosen[0]], [names[i] for i in chosen])


@contextmanager
def _reading_edf(path: Path) -> Iterator[None]:
    with reading(path, "EDF"), warnings.catch_warnings():
        # edfio mends a truncated file or a missing calibration, and says so in a warning alone.
        warnings.simplefilter("error", UserWarning)
        yield
