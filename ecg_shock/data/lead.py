"""One lead of a long recording, piece by piece, so that a day of ECG need not be in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.edf_files import first_edf_lead
from ecg_shock.data.readers import find_recording, read_record
from ecg_shock.data.reading import lead_names, reading
from ecg_shock.data.recordings import MV_PER_UNIT, Recording
from ecg_shock.data.wfdb_files import check_checksum, read_wfdb_header, warn_of_missing_gains

PIECE_S = 3600.0  # a lead of an hour at 250 Hz has 3.6 MB, and five times that while it is read


class Lead:
    """One lead of a recording in memory.

    Parameters
    ----------
    recording : Recording
        The recording.
    lead : str
        Name of the lead.

    Attributes
    ----------
    name, lead : str
        Name of the record and of the lead.
    fs : float
        Sampling rate in Hz.
    n_samples : int
        Length of the recording.
    source : str
        Absolute path of the file, or of the record's header; empty if it was never in one.
    """

    def __init__(self, recording: Recording, lead: str, source: str = "") -> None:
        self.name, self.lead, self.fs, self.source = recording.name, lead, recording.fs, source
        self.n_samples = len(recording.signal)
        self._signal = recording.signal[:, recording.leads.index(lead)]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.fs

    def read(self, first: int, last: int) -> np.ndarray:
        """Read samples.

        Parameters
        ----------
        first, last : int
            The first sample, and the one after the last.

        Returns
        -------
        numpy.ndarray
            Shape (last - first,), float32, mV, NaN where invalid.
        """
        return self._signal[first:last]

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the whole lead in order of time, in pieces of an hour.

        Raises
        ------
        ValueError
            If the file turns out to be damaged.
        """
        for first, last in self._bounds():
            yield self.read(first, last)

    def _bounds(self) -> Iterator[tuple[int, int]]:
        step = max(1, round(min(PIECE_S * self.fs, self.n_samples)))
        for first in range(0, self.n_samples, step):
            yield first, min(first + step, self.n_samples)


class WfdbLead(Lead):
    """One lead of a WFDB record that stays on disk.

    Parameters
    ----------
    path : pathlib.Path
        The header.
    header : wfdb.Record
        What `read_wfdb_header` returns for it.
    channel : int
        Number of the signal, which has one sample a frame.
    lead : str
        Its name.
    """

    def __init__(self, path: Path, header: Any, channel: int, lead: str) -> None:
        self.name, self.lead, self.fs, self.n_samples = path.stem, lead, float(header.fs), header.sig_len
        self.source = str(path.resolve())
        self._path, self._header, self._channel = path, header, channel

    def read(self, first: int, last: int) -> np.ndarray:
        """Read samples; see `Lead.read`."""
        return self._read(first, last)[0]

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the whole lead, and check it against the header's checksum at the end; see `Lead.pieces`."""
        total = 0
        for first, last in self._bounds():
            piece, added = self._read(first, last)
            total += added
            yield piece
        check_checksum(self._path, self._header, self._channel, self.lead, total)

    def _read(self, first: int, last: int) -> tuple[np.ndarray, int]:
        """Return samples in mV, and the sum of what the file holds for them."""
        import wfdb

        with reading(self._path, "a WFDB record"):
            record = wfdb.rdrecord(
                str(self._path.absolute().with_suffix("")),
                sampfrom=first,
                sampto=last,
                channels=[self._channel],
                physical=False,
            )
            total = int(record.d_signal.sum(dtype=np.int64))
            mv = record.dac()[:, 0] * MV_PER_UNIT[self._header.units[self._channel]]
        return mv.astype(np.float32), total


def open_lead(
    recording: str | Path | Recording,
    *,
    fs: float | None = None,
    units: str | None = None,
    lead: str | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> Lead:
    """Open one lead of a recording, of whatever length.

    Parameters
    ----------
    recording : str, pathlib.Path or Recording
        A path as `ecg_shock.read_record` takes it, or a recording in memory. WFDB records stay on disk; of EDF and
        NumPy files the one lead is read.
    fs, units
        As for `read_record`.
    lead : str, optional
        Name of the lead; the first one if not given.
    delimiter, decimal
        As for `read_record`.

    Returns
    -------
    Lead
        With its rate and length.

    Raises
    ------
    OSError, TypeError, ValueError
        As `read_record` does, or if there is no such lead.

    Examples
    --------
    >>> lead = open_lead(Recording(np.zeros((500, 1)), fs=250.0, leads=("II",)))
    >>> lead.duration_s, [len(piece) for piece in lead.pieces()]
    (2.0, [500])
    """
    source = ""
    if not isinstance(recording, Recording):
        path = find_recording(recording)
        source = str(path.resolve())
        if path.suffix == ".hea" and fs is None and units is None:
            header = read_wfdb_header(path)
            names = lead_names(header.sig_name)
            voltages = [name for name, unit in zip(names, header.units, strict=True) if unit in MV_PER_UNIT]
            chosen = lead if lead is not None else next(iter(voltages), None)
            if chosen in voltages and header.samps_per_frame[names.index(chosen)] == 1:
                warn_of_missing_gains(path, [names.index(chosen)])
                return WfdbLead(path, header, names.index(chosen), chosen)
        if lead is None:
            lead = _first_lead(path)
        leads = None if lead is None else [lead]
        recording = read_record(path, fs=fs, units=units, leads=leads, delimiter=delimiter, decimal=decimal)
    chosen = recording.leads[0] if lead is None else lead
    if chosen not in recording.leads:
        raise ValueError(f"lead={lead!r} is not in this recording; choose from {recording.leads!r}")
    return Lead(recording, chosen, source)


def _first_lead(path: Path) -> str | None:
    """Return the first lead of a file that need not be read whole for it, or None for any other file."""
    if path.suffix.lower() == ".npy":
        return "1"
    return first_edf_lead(path) if path.suffix.lower() == ".edf" and path.is_file() and path.stat().st_size else None
