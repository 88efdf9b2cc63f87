"""Read one lead of a long recording in pieces, to save memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ecg_shock.data.lead_labels import choose_lead
from ecg_shock.data.readers import check_arguments, check_text_options, find_recording, open_file, read_record
from ecg_shock.data.recordings import Recording, strip_samples
from ecg_shock.data.signal_files import SignalFile, check_agreement, choose_channel

PIECE_S = 3600.0  # one hour at 250 Hz takes 3.6 MB, and five times as much while it is read


class Lead:
    """One lead of a recording in memory.

    Parameters
    ----------
    recording : Recording
        The recording.
    lead : str
        Name of the lead.
    source : str, optional
        Value of the attribute `source`.

    Attributes
    ----------
    name, lead : str
        Name of the record and of the lead.
    fs : float
        Sampling rate in Hz.
    n_samples : int
        Number of samples.
    source : str
        Absolute path of the file, or of the record's header; empty for a recording in memory.
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
            Index of the first sample, and of the sample after the last.

        Returns
        -------
        numpy.ndarray
            Shape (last - first,), float32, mV, NaN where invalid.
        """
        return self._signal[first:last]

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the whole lead in pieces of one hour, in order of time.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        step = self._piece_samples()
        for first in range(0, self.n_samples, step):
            yield self.read(first, min(first + step, self.n_samples))

    def strip(self, start_s: float, length_s: float) -> Recording:
        """Read a strip for `ecg_shock.predict`; see `Recording.strip`."""
        first, last = strip_samples(start_s, length_s, self.fs, self.n_samples)
        return Recording(self.read(first, last)[:, None], fs=self.fs, leads=(self.lead,), name=self.name)

    def _piece_samples(self) -> int:
        return max(1, round(min(PIECE_S * self.fs, self.n_samples)))


class FileLead(Lead):
    """One lead of a WFDB, EDF or BDF recording that stays on disk.

    Parameters
    ----------
    file : SignalFile
        The recording.
    channel : int
        Column of the lead.
    """

    def __init__(self, file: SignalFile, channel: int) -> None:
        described = file.channels[channel]
        self.name, self.lead = file.path.stem, described.name
        self.fs, self.n_samples = float(described.fs), described.n_samples
        self.source = str(file.path.resolve())
        self._file, self._channel = file, channel

    def read(self, first: int, last: int) -> np.ndarray:
        """Read samples; see `Lead.read`."""
        return self._file.read([self._channel], first, last)[:, 0]

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield the lead in pieces, and check it against the header's checksum at the end; see `Lead.pieces`."""
        for piece in self._file.pieces([self._channel], self._piece_samples()):
            yield piece[:, 0]


def open_lead(
    recording: str | Path | Recording,
    *,
    fs: float | None = None,
    units: str | None = None,
    lead: str | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> Lead:
    """Open one lead of a recording of any length.

    Parameters
    ----------
    recording : str, pathlib.Path or Recording
        A path as for `ecg_shock.read_record`, or a recording in memory. WFDB, EDF and BDF recordings stay on disk.
    fs, units
        As for `read_record`.
    lead : str, optional
        Name of the lead. By default, the first lead whose name says that it is an ECG, or the only lead.
    delimiter, decimal
        As for `read_record`.

    Returns
    -------
    Lead
        The lead, with its sampling rate and length.

    Raises
    ------
    OSError, TypeError, ValueError
        As for `read_record`. ValueError is also raised if no name says which of several leads is the ECG.

    Examples
    --------
    >>> lead = open_lead(Recording(np.zeros((500, 1)), fs=250.0, leads=("II",)))
    >>> lead.duration_s, [len(piece) for piece in lead.pieces()]
    (2.0, [500])
    """
    source, where = "", "the recording"
    if not isinstance(recording, Recording):
        check_arguments(fs, units)
        path = find_recording(recording)
        check_text_options(path, delimiter, decimal)
        file = open_file(path, units)
        if file is not None:
            channel = choose_channel(file, lead)
            check_agreement(file, [channel], fs, units)
            file.warn([channel])
            return FileLead(file, channel)
        source, where = str(path.resolve()), str(path)
        leads = None if lead is None else [lead]
        recording = read_record(path, fs=fs, units=units, leads=leads, delimiter=delimiter, decimal=decimal)
    return Lead(recording, recording.leads[choose_lead(recording.leads, lead, where)], source)
