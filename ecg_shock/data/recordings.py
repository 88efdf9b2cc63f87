"""Recordings: what was recorded, in mV, with its labelled episodes, and the readers of each file format."""

from __future__ import annotations

import csv
import logging
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.manifests import data_dir, resource_dir

logger = logging.getLogger(__name__)

# The three spellings of microvolt are ASCII, the micro sign and the Greek letter.
MV_PER_UNIT = {"mV": 1.0, "uV": 1e-3, "\u00b5V": 1e-3, "\u03bcV": 1e-3, "V": 1e3}

# WFDB signal formats of a fixed size (https://wfdb.io/spec/signal-files.html), so that a header's claim
# can be compared with the size of the file before anything is allocated.
WFDB_BYTES_PER_SAMPLE = {"80": 1.0, "212": 1.5, "16": 2.0, "24": 3.0, "32": 4.0}
WFDB_CHECKSUM_MODULUS = 2**16  # the header stores the sum of all samples in 16 bits
WFDB_HEADER_MAX_BYTES = 2**20  # real headers have a few kB

CSV_DELIMITERS = "\t;,"
# First words of a name, so that "time_s" and "Time (ms)" count too.
CSV_TIME_COLUMNS = frozenset({"time", "t", "timestamp", "seconds", "sample", "samples", "index"})

CSV_TIME_STEP_TOLERANCE = 0.5  # 1/360 s written to three decimals has steps of 0.002 and 0.003 s

WHAT_TO_DO = "Compare it with its source, and copy or download it again."


@dataclass(frozen=True)
class Episode:
    """A labelled segment of a recording.

    Parameters
    ----------
    start_s, end_s : float
        Seconds from the start of the recording; `end_s` is exclusive.
    rhythm : str
        A name of `ecg_shock.rhythms.RHYTHMS`, or of `ecg_shock.rhythms.UNUSABLE`.
    code : str
        The label as the database writes it.
    """

    start_s: float
    end_s: float
    rhythm: str
    code: str = ""


@dataclass(frozen=True, eq=False)
class Recording:
    """An ECG recording in mV.

    Parameters
    ----------
    signal : numpy.ndarray
        Shape (n_samples, n_leads), float, mV; NaN where the recorder had no valid sample.
    fs : float
        Sampling rate in Hz.
    leads : tuple of str
        One name for each column of `signal`.
    name, database, patient : str
        The WFDB record name (or file name), the database it belongs to, and the patient that splits keep
        apart.
    episodes : tuple of Episode
        Labelled segments in order of time; empty where nothing is labelled.
    beats_s : numpy.ndarray
        Times of the annotated beats in seconds, shape (n_beats,).
    beat_codes : tuple of str
        The WFDB code of each beat, such as ``"N"`` or ``"V"``.

    Raises
    ------
    TypeError
        If the signal is no array of floats, or the rate no number.
    ValueError
        If the signal is empty or not two-dimensional, the rate is not above 0, the number of leads or beat
        codes does not fit, or episodes overlap.

    Examples
    --------
    >>> Recording(np.zeros((500, 2), np.float32), fs=250, leads=("II", "V5")).duration_s
    2.0
    """

    signal: np.ndarray
    fs: float
    leads: tuple[str, ...]
    name: str = ""
    database: str = ""
    patient: str = ""
    episodes: tuple[Episode, ...] = ()
    beats_s: np.ndarray = field(default_factory=lambda: np.empty(0))
    beat_codes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.signal, np.ndarray) or not np.issubdtype(self.signal.dtype, np.floating):
            kind = getattr(self.signal, "dtype", type(self.signal).__name__)
            raise TypeError(f"signal is {kind}; give a float array in mV, shape (n_samples, n_leads)")
        if self.signal.ndim != 2 or self.signal.size == 0:
            raise ValueError(f"signal has shape {self.signal.shape}; give (n_samples, n_leads), at least (1, 1)")
        _check_fs(self.fs)
        if len(self.leads) != self.signal.shape[1]:
            raise ValueError(
                f"leads {self.leads!r} name {len(self.leads)} of {self.signal.shape[1]} columns; name each"
            )
        if len(self.beats_s) != len(self.beat_codes):
            raise ValueError(f"{len(self.beats_s)} beats_s but {len(self.beat_codes)} beat_codes; give one each")
        for episode, following in zip(self.episodes, self.episodes[1:], strict=False):
            if episode.end_s > following.start_s:
                raise ValueError(f"{episode!r} overlaps {following!r}; give episodes in order, without overlap")

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.signal) / self.fs

    def strip(self, start_s: float, length_s: float, lead: str | None = None) -> Recording:
        """Cut a strip of one lead, as `ecg_shock.predict` takes it.

        Parameters
        ----------
        start_s, length_s : float
            Where the strip begins and how long it is, in seconds.
        lead : str, optional
            Name of the lead; the first one if not given.

        Returns
        -------
        Recording
            One lead, without episodes and beats.

        Raises
        ------
        ValueError
            If the strip does not lie within the recording, or there is no such lead.

        Examples
        --------
        >>> recording = Recording(np.zeros((5000, 2)), fs=250, leads=("II", "V5"))
        >>> recording.strip(3, 5, lead="V5").duration_s
        5.0
        """
        lead = self.leads[0] if lead is None else lead
        if lead not in self.leads:
            raise ValueError(f"lead={lead!r} is not in this recording; choose from {self.leads!r}")
        outside = f"a strip from {start_s:g} s of {length_s:g} s is not within the recording, of {self.duration_s:g} s"
        if not (math.isfinite(start_s) and math.isfinite(length_s)):
            raise ValueError(outside)
        first, samples = round(start_s * self.fs), round(length_s * self.fs)
        if first < 0 or samples < 1 or round((start_s + length_s) * self.fs) > len(self.signal):
            raise ValueError(outside)
        first = max(min(first, len(self.signal) - samples), 0)  # both rounded up, a strip would end after the recording
        column = self.leads.index(lead)
        return Recording(
            signal=self.signal[first : first + samples, column : column + 1],
            fs=self.fs,
            leads=(lead,),
            name=self.name,
            database=self.database,
            patient=self.patient,
        )


def read_record(
    path: str | Path,
    *,
    fs: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
) -> Recording:
    """Read an ECG recording, in whatever format it lies there.

    ============  ========================================================================================
    Format        What is read
    ============  ========================================================================================
    WFDB          A record with its header beside it: the path of the record without suffix, of its
                  ``.hea``, its ``.dat`` or, as in the PhysioNet challenges, its ``.mat``.
    EDF, EDF+     ``.edf``; annotations are ignored.
    CSV           ``.csv``, ``.tsv`` or ``.txt``: a column a lead, a row of names on top or none, separated by
                  comma, semicolon or tab, decimal point, an empty cell or ``nan`` for a missing sample.
    NumPy         ``.npy``: shape (n_samples,) or (n_samples, n_leads).
    ============  ========================================================================================

    Of a WFDB record or an EDF file the channels in V, mV or µV are kept. What its header says of sizes and
    checksums is checked against the data, and what does not agree is refused rather than repaired.

    Parameters
    ----------
    path : str or pathlib.Path
        The file or WFDB record. A relative path at which nothing lies, such as ``"vfdb/426"``, is looked up in the data
        folder: ``ECG_SHOCK_DATA``, else the cache that ``ecg-shock fetch`` fills.
    fs : float, optional
        Sampling rate in Hz. Needed for CSV and NumPy; the others know theirs, and it has to agree.
    units : {"mV", "uV", "V"}, optional
        Unit of the samples. Needed for CSV and NumPy; the others know theirs, and it has to agree.
    leads : sequence of str, optional
        Names of the leads to keep, in this order; all by default. Leads without a name are called ``"1"``,
        ``"2"`` … by their column; of leads that share a name, the second is called ``"ECG-2"``.

    Returns
    -------
    Recording
        Signal as float32 in mV, NaN for missing samples; without episodes and beats.

    Raises
    ------
    OSError
        If there is nothing to read at `path`, nor in the data folder.
    TypeError
        If an argument or the data has a wrong type.
    ValueError
        If the file is damaged, disagrees with its header or the arguments, has no voltage channel, or an
        argument is missing. The message names the file and what to do.

    Notes
    -----
    - A WFDB gain of 0 means that the record is not calibrated. It is read as the WFDB library does, at 200
      units/mV, and a warning is logged.
    - A WFDB checksum of 0 counts as none, because some writers put 0 there; any other has to hold.
    - WFDB records of several segments, with skewed signals or in compressed formats are refused.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/ecg.npy", np.zeros(1250))
    ...     read_record(f"{folder}/ecg.npy", fs=250, units="uV").duration_s
    5.0
    """
    if fs is not None:
        _check_fs(fs)
    if units is not None and units not in MV_PER_UNIT:
        raise ValueError(f"units {units!r} are unknown; allowed are {tuple(MV_PER_UNIT)}")
    if isinstance(leads, str):
        raise TypeError(f"leads is the text {leads!r}; give a list of names, leads=[{leads!r}]")
    path = find_recording(path)
    if path.suffix == ".hea":
        return _read_wfdb(path, fs, units, leads)
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty. {WHAT_TO_DO}")
    suffix = path.suffix.lower()
    if suffix == ".edf":
        return _read_edf(path, fs, units, leads)
    if suffix not in (".csv", ".tsv", ".txt", ".npy"):
        raise ValueError(
            f"{path} has an unknown format {suffix!r}; allowed are a WFDB record with its .hea beside it, "
            ".edf, .csv, .tsv, .txt and .npy"
        )
    if fs is None or units is None:
        raise ValueError(
            f"{path} does not say its sampling rate and unit; pass fs= (--fs) in Hz and units= (--units) such as 'mV'"
        )
    return (_read_npy if suffix == ".npy" else _read_csv)(path, fs, units, leads)


def find_recording(path: str | Path) -> Path:
    """Return the file that a path or the name of a record means.

    What lies at the path wins. Else a relative path without ``..`` is looked up in the data folder.

    Parameters
    ----------
    path : str or pathlib.Path
        As for `read_record`.

    Returns
    -------
    pathlib.Path
        The ``.hea`` of a WFDB record, or the file.

    Raises
    ------
    IsADirectoryError
        If it is a folder.
    FileNotFoundError
        If it is in neither place; the message names both.
    """
    path = Path(path)
    if found := find_wfdb_header(path) or (path if path.is_file() else None):
        return found
    missing, here = f"{path} is missing, and there is no {path}.hea either; check the path", path.is_dir()
    if not path.anchor and ".." not in path.parts:
        folder = data_dir()
        named = folder / path
        if found := find_wfdb_header(named) or (named if named.is_file() else None):
            return found
        public = [manifest.stem for manifest in resource_dir("data_manifests").glob("*.toml")]
        database = path.parts[0] if path.parts and path.parts[0] in public else "vfdb"
        missing = (
            f"{path} is missing, both here in {Path.cwd()} and in the data folder {folder}, and so is {path}.hea; "
            f"check the path, or fetch a public database, such as with: ecg-shock fetch {database}"
        )
        here = here or named.is_dir()
    if here:
        raise IsADirectoryError(f"{path} is a folder; give the path of one recording in it")
    raise FileNotFoundError(missing)


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into a ValueError that names the file.

    wfdb, edfio and NumPy raise IndexError, KeyError, struct.error, UserWarning and more over damaged files.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise ValueError(f"{path} cannot be read as {kind}: {error!r}. {WHAT_TO_DO}") from error


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
    _check_fs(header.fs, f"{path}: ")
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


def _read_wfdb(path: Path, fs: float | None, units: str | None, leads: Sequence[str] | None) -> Recording:
    import wfdb

    header = read_wfdb_header(path)
    names = lead_names(header.sig_name)
    chosen = _choose_voltage_leads(path, names, header.units, leads)
    rates = [header.fs * header.samps_per_frame[i] for i in chosen]
    _check_agreement(path, rates, [header.units[i] for i in chosen], fs, units)
    with reading(path, "a WFDB record"):
        record = wfdb.rdrecord(
            str(path.absolute().with_suffix("")), channels=chosen, physical=False, smooth_frames=False
        )
        columns = record.dac(expanded=True)
    for channel, digital in zip(chosen, record.e_d_signal, strict=True):
        check_checksum(path, header, channel, names[channel], int(digital.sum(dtype=np.int64)))
    warn_of_missing_gains(path, chosen)
    signal = np.stack([column * MV_PER_UNIT[header.units[i]] for column, i in zip(columns, chosen, strict=True)], 1)
    return _recording(path, signal, rates[0], [names[i] for i in chosen])


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


def first_edf_lead(path: Path) -> str | None:
    """Return the name of the first voltage channel of an EDF file, or None if there is none."""
    import edfio

    with _reading_edf(path):
        signals = edfio.read_edf(path, header_encoding="latin-1").signals
        names = lead_names([signal.label for signal in signals])
        return next((name for name, s in zip(names, signals, strict=True) if s.physical_dimension in MV_PER_UNIT), None)


def _read_edf(path: Path, fs: float | None, units: str | None, leads: Sequence[str] | None) -> Recording:
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
    chosen = _choose_voltage_leads(path, names, found_units, leads)
    _check_agreement(path, [rates[i] for i in chosen], [found_units[i] for i in chosen], fs, units)
    with _reading_edf(path):
        signal = np.stack([edf.signals[i].data * MV_PER_UNIT[found_units[i]] for i in chosen], axis=1)
    return _recording(path, signal, rates[chosen[0]], [names[i] for i in chosen])


@contextmanager
def _reading_edf(path: Path) -> Iterator[None]:
    with reading(path, "EDF"), warnings.catch_warnings():
        # edfio mends a truncated file or a missing calibration, and says so in a warning alone.
        warnings.simplefilter("error", UserWarning)
        yield


def _read_csv(path: Path, fs: float, units: str, leads: Sequence[str] | None) -> Recording:
    with reading(path, "CSV"):
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
        delimiter = max(CSV_DELIMITERS, key=lines[0].count)
        rows = [row or [""] for row in csv.reader(lines, delimiter=delimiter)]
    names = ["" for _ in rows[0]]
    first_line = 1
    if any(cell.strip() for cell in rows[0]) and not any(_is_number(cell) for cell in rows[0]):
        names, rows, first_line = rows[0], rows[1:], 2
    for line, row in enumerate(rows, first_line):
        if len(row) != len(names):
            raise ValueError(f"{path} line {line} has {len(row)} cells instead of {len(names)}. {WHAT_TO_DO}")
        for cell in row:
            if cell.strip() and not _is_number(cell):
                raise ValueError(
                    f"{path} line {line}: {cell!r} is not a number; write numbers with a decimal point, and "
                    "leave the cells of missing samples empty"
                )
    names = lead_names(names)
    chosen = _choose_leads(path, names, leads)
    for i in chosen:
        if re.split(r"[\W_]+", names[i].lower())[0] in CSV_TIME_COLUMNS:
            raise ValueError(f"{path}: column {names[i]!r} is no ECG lead; choose with leads= (--lead) from {names}")
    cells = [[float(row[i]) if row[i].strip() else np.nan for i in chosen] for row in rows]
    signal = np.array(cells, dtype=np.float64).reshape(len(rows), len(chosen))
    if leads is None and first_line == 1:
        for i in chosen:
            if _looks_like_time(signal[:, i]):
                raise ValueError(
                    f"{path}: column {names[i]!r} rises evenly, as time does and no ECG; choose with leads= (--lead) "
                    f"from {names}"
                )
    signal *= MV_PER_UNIT[units]
    return _recording(path, signal, fs, [names[i] for i in chosen])


def _looks_like_time(column: np.ndarray) -> bool:
    """Say whether a column without a name rises by the same step from each sample to the next."""
    if len(column) <= 2:
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(column)
        return bool((steps > 0).all() and np.ptp(steps) <= CSV_TIME_STEP_TOLERANCE * steps.mean())


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_npy(path: Path, fs: float, units: str, leads: Sequence[str] | None) -> Recording:
    with reading(path, ".npy"):
        # Mapped, so that the size which the header claims is checked before anything is allocated.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        kind, shape = array.dtype, array.shape
    if not (np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)):
        raise TypeError(f"{path} holds {kind}; save real numbers, such as float32")
    if len(shape) not in (1, 2):
        raise ValueError(f"{path} has shape {shape}; save (n_samples,) or (n_samples, n_leads)")
    if len(shape) == 2 and shape[1] > shape[0]:
        raise ValueError(f"{path} has shape {shape}, more leads than samples; transpose it to (n_samples, n_leads)")
    array = array.reshape(shape[0], -1) if array.size else np.empty((0, 1))
    names = lead_names([""] * array.shape[1])
    chosen = _choose_leads(path, names, leads)
    with np.errstate(over="ignore", invalid="ignore"):  # as below; and NaNs that signal are NaN
        signal = np.asarray(array[:, chosen], dtype=np.float64) * MV_PER_UNIT[units]
    return _recording(path, signal, fs, [names[i] for i in chosen])


def _recording(path: Path, signal: np.ndarray, fs: float, names: Sequence[str]) -> Recording:
    if signal.size == 0:
        raise ValueError(f"{path} holds no samples. {WHAT_TO_DO}")
    with np.errstate(over="ignore"):
        signal = signal.astype(np.float32)
    if np.isinf(signal).any():
        raise ValueError(f"{path} holds infinite values; save missing samples as NaN, and check the unit")
    return Recording(signal=signal, fs=float(fs), leads=tuple(names), name=path.stem)


def is_finite(number: Any) -> bool:
    """Say whether a number is one that a float can hold; Python's integers have no limit."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _check_fs(fs: object, where: str = "") -> None:
    if not isinstance(fs, (int, float, np.integer, np.floating)) or isinstance(fs, bool):
        raise TypeError(f"{where}fs is {fs!r}; give the sampling rate as a number of Hz")
    if not (is_finite(fs) and fs > 0):
        raise ValueError(f"{where}fs is {fs!r}; give a sampling rate in Hz above 0")


def _check_agreement(
    path: Path, rates: Sequence[float], found_units: Sequence[str], fs: float | None, units: str | None
) -> None:
    if len(set(rates)) > 1:
        raise ValueError(f"{path} has leads of different rates, {sorted(set(rates))} Hz; choose leads= of one rate")
    _check_fs(rates[0], f"{path}: ")
    if fs is not None and fs != rates[0]:
        raise ValueError(f"{path} is sampled at {rates[0]} Hz by its header, not at {fs!r} Hz; leave fs out")
    if units is not None and any(MV_PER_UNIT[found] != MV_PER_UNIT[units] for found in found_units):
        raise ValueError(f"{path} is in {sorted(set(found_units))} by its header, not in {units!r}; leave units out")


def lead_names(names: Sequence[str | None]) -> list[str]:
    """Name the nameless by their column, and number those that share a name."""
    filled = [(name or "").strip() or str(column) for column, name in enumerate(names, 1)]
    seen: Counter[str] = Counter()
    unique = []
    for name in filled:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return unique


def _choose_leads(path: Path, names: Sequence[str], leads: Sequence[str] | None) -> list[int]:
    if leads is None:
        return list(range(len(names)))
    unknown = [lead for lead in leads if lead not in names]
    if unknown or not leads:
        raise ValueError(f"{path} has no leads {unknown}; choose from {list(names)}")
    return [names.index(lead) for lead in leads]


def _choose_voltage_leads(
    path: Path, names: Sequence[str], units: Sequence[str], leads: Sequence[str] | None
) -> list[int]:
    chosen = [i for i in _choose_leads(path, names, leads) if units[i] in MV_PER_UNIT]
    if not chosen or (leads is not None and len(chosen) < len(leads)):
        channels = dict(zip(names, units, strict=True))
        raise ValueError(f"{path} has channels in {channels}; ECG leads have to be in one of {tuple(MV_PER_UNIT)}")
    return chosen
