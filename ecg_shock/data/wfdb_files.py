"""Read WFDB records, in part or in full.

This module does not read samples with the WFDB library, because the library accepts headers that
`ecg_shock.data.wfdb_header` refuses.
The tests compare this reader with the library for each signal format.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.lead_labels import quoted
from ecg_shock.data.recordings import check_fs
from ecg_shock.data.signal_files import (
    WHAT_TO_DO,
    Channel,
    SignalFile,
    explain_damage,
    lead_names,
    mv_per_unit,
    to_float32,
)
from ecg_shock.data.unpacking import BLOCKS, PARTIAL_BLOCKS, unpack
from ecg_shock.data.wfdb_header import DEFAULT_FS, DEFAULT_GAIN, Header, SignalLine, read_header

logger = logging.getLogger(__name__)

FLAC_BITS = {"508": 8, "516": 16, "524": 24}  # bits per sample; the lowest value marks an invalid sample
MAX_DAYS = 366  # limits the length of a record, because no file confirms the length of the gaps between segments
NO_SAMPLES = "0"  # format of a signal without samples
CHECKSUM_MODULUS = 2**16  # the header stores the sum of all samples in 16 bits
FLAC_SUBTYPES = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}
FLAC_SAMPLES_AT_ONCE = 2**20


def find_wfdb_header(path: Path) -> Path | None:
    """Find the header of a WFDB record; return None if there is none.

    `path` is the record without suffix, or one of its files with the suffix .hea, .dat, .mat or .flac.
    """
    if path.suffix == ".hea":
        candidates = [path]
    elif path.suffix in (".dat", ".mat", ".flac"):
        candidates = [path.with_suffix(".hea")]
    else:
        candidates = [Path(f"{path}.hea")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def open_wfdb(path: Path, units: str | None = None) -> WfdbFile:
    """Open a WFDB record, and compare its header with the signal files.

    Parameters
    ----------
    path : pathlib.Path
        The ``.hea`` file.
    units : str, optional
        Unit of the signals to which the header gives an unknown unit that may be a voltage, such as "mcV".

    Returns
    -------
    WfdbFile
        The open record. If a signal cannot be read, the `problem` of its channel says why.

    Raises
    ------
    OSError
        If the header is missing.
    ValueError
        If the header cannot be parsed or contradicts itself.
    """
    header = read_header(path)
    check_fs(header.fs, f"{path}: ")
    if not header.fs_given:
        logger.warning("%s gives no sampling rate; %d Hz are assumed, the default of the WFDB format", path, DEFAULT_FS)
    return _SegmentedRecord(path, header, units) if header.segments else _Record(path, header, units)


class WfdbFile(SignalFile):
    """A WFDB record.

    Attributes
    ----------
    frame_rate : float
        Frames per second, the unit of time of annotations.
    """

    frame_rate: float


class _Record(WfdbFile):
    """A record of one segment."""

    def __init__(self, path: Path, header: Header, units: str | None) -> None:
        self.path, self.header, self.frame_rate = path, header, float(header.fs)
        files: dict[str, tuple[int, Exception | None]] = {}  # number of frames, and why it cannot be read
        groups: dict[str, list[SignalLine]] = {}
        for signal in header.signals:
            groups.setdefault(signal.file, []).append(signal)
        for name, signals in groups.items():
            try:
                files[name] = _count_frames(path, header, signals), None
            except (OSError, ValueError) as error:
                files[name] = header.n_frames, error
        self.channels = tuple(
            Channel(
                name=name,
                unit=signal.unit,
                mv_per_unit=mv_per_unit(signal.unit, units),
                fs=header.fs * signal.samples_per_frame,
                n_samples=files[signal.file][0] * signal.samples_per_frame,
                problem=files[signal.file][1] or _find_problem(path, signal),
            )
            for name, signal in zip(lead_names([s.description for s in header.signals]), header.signals, strict=True)
        )

    def read(self, channels: Sequence[int], first: int, last: int) -> np.ndarray:
        return self._to_mv(channels, self._read_digital(channels, first, last))

    def pieces(self, channels: Sequence[int], samples: int) -> Iterator[np.ndarray]:
        """Yield the channels in pieces, then check their checksums; see `SignalFile.pieces`."""
        totals = np.zeros(len(channels), np.int64)
        length = self.channels[channels[0]].n_samples
        for first in range(0, length, samples):
            digital = self._read_digital(channels, first, min(first + samples, length))
            totals += digital.sum(axis=0, dtype=np.int64)
            yield self._to_mv(channels, digital)
        for i, total in zip(channels, totals.tolist(), strict=True):
            signal = self.header.signals[i]
            if signal.checksum and (total - signal.checksum) % CHECKSUM_MODULUS:
                raise ValueError(
                    f"{self.path.parent / signal.file}: the samples of {quoted(self.channels[i].name)} do not add up "
                    f"to the checksum {signal.checksum} in {self.path.name}. {WHAT_TO_DO}"
                )

    def warn(self, channels: Sequence[int]) -> None:
        for i in channels:
            if not self.header.signals[i].gain:
                logger.warning("%s: signal %d is not calibrated; 200 units/mV are assumed", self.path, i)

    def _to_mv(self, channels: Sequence[int], digital: np.ndarray) -> np.ndarray:
        mv = np.empty(digital.shape, np.float32)
        for column, i in enumerate(channels):
            signal = self.header.signals[i]
            samples = digital[:, column]
            with np.errstate(over="ignore"):
                physical = (samples - float(signal.baseline)) / (signal.gain or DEFAULT_GAIN)
                physical *= self.channels[i].mv_per_unit or math.nan
            invalid = BLOCKS[signal.fmt][2] if signal.fmt in BLOCKS else -(2 ** (FLAC_BITS[signal.fmt] - 1))
            physical[samples == invalid] = np.nan
            mv[:, column] = to_float32(self.path, physical)
        return mv

    def _read_digital(self, channels: Sequence[int], first: int, last: int) -> np.ndarray:
        """Read the digital samples of these channels, shape (n, n_channels), int32."""
        columns = np.empty((last - first, len(channels)), np.int32)
        per_frame = self.header.signals[channels[0]].samples_per_frame
        frames = first // per_frame, -(-last // per_frame)
        for name in dict.fromkeys(self.header.signals[i].file for i in channels):
            group = [i for i, signal in enumerate(self.header.signals) if signal.file == name]
            spans = [self.header.signals[i].samples_per_frame for i in group]
            starts = dict(zip(group, itertools.accumulate(spans, initial=0), strict=False))
            frame_samples = self._read_frames(name, group, sum(spans), *frames)
            for column, i in enumerate(channels):
                if i in starts:
                    span = self.header.signals[i].samples_per_frame
                    samples = frame_samples[:, starts[i] : starts[i] + span].reshape(-1)
                    columns[:, column] = samples[first - frames[0] * span : last - frames[0] * span]
        return columns

    def _read_frames(self, name: str, group: list[int], per_frame: int, first: int, last: int) -> np.ndarray:
        """Read frames of a signal file, shape (last - first, per_frame)."""
        signal = self.header.signals[group[0]]
        file = self.path.parent / name
        if signal.fmt in FLAC_BITS:
            span = signal.samples_per_frame
            samples = _read_flac(file, signal.byte_offset + first * span, (last - first) * span)
            return samples.reshape(last - first, span, len(group)).transpose(0, 2, 1).reshape(last - first, per_frame)
        block_samples, block_bytes, _ = BLOCKS[signal.fmt]
        first_block, last_block = first * per_frame // block_samples, -(-last * per_frame // block_samples)
        with file.open("rb") as stream:
            stream.seek(signal.byte_offset + first_block * block_bytes)
            content = stream.read((last_block - first_block) * block_bytes)
        missing = (last_block - first_block) * block_bytes - len(content)
        if missing >= block_bytes:
            raise ValueError(f"{file} became shorter while it was read. {WHAT_TO_DO}")
        padded = content + bytes(missing)  # the last block may be cut short
        skipped = first * per_frame - first_block * block_samples
        samples = unpack(signal.fmt, padded)[skipped : skipped + (last - first) * per_frame]
        return samples.reshape(last - first, per_frame)


class _SegmentedRecord(WfdbFile):
    """A record of several segments, one after the other; signals that a segment does not have are NaN.

    In a *fixed* layout all segments have the same signals. In a *variable* layout the first segment, of length 0,
    lists all signals, and each other segment has some of them, identified by their descriptions. A segment named ``~``
    is a gap.
    """

    def __init__(self, path: Path, header: Header, units: str | None) -> None:
        self.path, self.frame_rate = path, float(header.fs)
        records = {name: self._open(name, header, units) for name, _ in header.segments if name != "~"}
        variable = header.segments[0][1] == 0
        layout = records.pop(header.segments[0][0], None) if variable else next(iter(records.values()), None)
        if layout is None or len(layout.channels) != header.n_signals:
            raise ValueError(
                f"{path} has {header.n_signals} signals, which differ from the signals of its segments. {WHAT_TO_DO}"
            )
        described = [signal.description for signal in layout.header.signals]
        times_described = Counter(described)
        # For each segment: the column of each of the record's signals, or None if the segment does not have it.
        self._columns: dict[str, list[int | None]] = {}
        for name, record in records.items():
            found = record.header.signals
            if variable:
                columns = {signal.description: column for column, signal in enumerate(found)}
                self._columns[name] = [columns.get(each) for each in described]
            elif len(found) == len(described):
                self._columns[name] = list(range(len(described)))
            else:
                raise ValueError(
                    f"{path}: segment {quoted(name)} has {len(found)} signals, but the first segment has "
                    f"{len(described)}. {WHAT_TO_DO}"
                )
        self._records = records
        self._parts: list[tuple[str, int, int]] = []  # name, first and last frame
        length = 0
        for name, frames in header.segments[variable:]:
            self._parts.append((name, length, length + frames))
            length += frames
        if length > MAX_DAYS * 24 * 3600 * header.fs:
            raise ValueError(f"{path} lasts more than {MAX_DAYS} days according to its segments. {WHAT_TO_DO}")
        if header.n_frames not in (0, length):
            raise ValueError(
                f"{path} says that it has {header.n_frames} samples, but its segments have {length} in total. "
                f"{WHAT_TO_DO}"
            )
        self._spans = [signal.samples_per_frame for signal in layout.header.signals]
        self.channels = tuple(
            replace(
                channel,
                n_samples=length * self._spans[i],
                problem=self._find_problem(i, channel)
                if not variable or times_described[described[i]] == 1
                else ValueError(
                    f"{path} has several signals named {quoted(described[i])}, which cannot be told apart in its "
                    "segments; choose another lead, or rename them in the headers"
                ),
            )
            for i, channel in enumerate(layout.channels)
        )

    def _open(self, name: str, header: Header, units: str | None) -> _Record:
        path = self.path.parent / f"{name}.hea"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} is missing, although {self.path.name} lists it as a segment; copy the header and its signal "
                "files to this folder"
            )
        segment = read_header(path)
        if segment.segments:
            raise ValueError(
                f"segment {path.name} of {self.path} has segments itself, which is not supported; give the path of one "
                "segment"
            )
        if segment.fs != header.fs:
            raise ValueError(
                f"{self.path} has {header.fs} Hz, but its segment {path.name} has {segment.fs} Hz. {WHAT_TO_DO}"
            )
        return _Record(path, segment, units)

    def _find_problem(self, i: int, channel: Channel) -> Exception | None:
        """Return why signal `i` cannot be read from one of the segments, or None if it can."""
        for name, first, last in self._parts:
            column = None if name == "~" else self._columns[name][i]
            if column is None:
                continue
            found = self._records[name].channels[column]
            if found.problem is not None:
                return found.problem
            if found.fs != channel.fs or found.mv_per_unit is None:
                return ValueError(
                    f"{self.path}: {quoted(channel.name)} has another sampling rate or unit in segment {quoted(name)}. "
                    f"{WHAT_TO_DO}"
                )
            if found.n_samples != (last - first) * self._spans[i]:
                return ValueError(
                    f"{self.path} says that segment {quoted(name)} has {last - first} samples, but there are "
                    f"{found.n_samples // self._spans[i]}. {WHAT_TO_DO}"
                )
        return None

    def warn(self, channels: Sequence[int]) -> None:
        for name, record in self._records.items():
            record.warn(self._find_columns(name, channels)[1])

    def read(self, channels: Sequence[int], first: int, last: int) -> np.ndarray:
        mv = np.full((last - first, len(channels)), np.nan, np.float32)
        span = self._spans[channels[0]]
        for name, first_frame, last_frame in self._parts:
            start, stop = max(first, first_frame * span), min(last, last_frame * span)
            into, columns = self._find_columns(name, channels)
            if start < stop and columns:
                part = self._records[name].read(columns, start - first_frame * span, stop - first_frame * span)
                mv[start - first : stop - first, into] = part
        return mv

    def pieces(self, channels: Sequence[int], samples: int) -> Iterator[np.ndarray]:
        """Yield the channels in pieces, and check the checksums of each segment; see `SignalFile.pieces`."""
        span = self._spans[channels[0]]
        for name, first_frame, last_frame in self._parts:
            into, columns = self._find_columns(name, channels)
            if columns:
                for part in self._records[name].pieces(columns, samples):
                    mv = np.full((len(part), len(channels)), np.nan, np.float32)
                    mv[:, into] = part
                    yield mv
                continue
            for first in range(first_frame * span, last_frame * span, samples):
                length = min(samples, last_frame * span - first)
                yield np.full((length, len(channels)), np.nan, np.float32)

    def _find_columns(self, name: str, channels: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return which of `channels` a segment has: their positions in `channels`, and their columns in the segment."""
        if name == "~":
            return [], []
        found = [(place, self._columns[name][i]) for place, i in enumerate(channels)]
        return [place for place, column in found if column is not None], [c for _, c in found if c is not None]


def _find_problem(path: Path, signal: SignalLine) -> Exception | None:
    """Check the header of a signal; return an exception if the signal cannot be read, else None."""
    if signal.skew:
        return ValueError(f"{path} has skewed signals, which are not supported; rewrite it with wfdb's xform")
    if not math.isfinite(signal.gain):
        return ValueError(f"{path} gives {quoted(signal.description)} a gain of {signal.gain}; a gain must be finite")
    return None


def _count_frames(path: Path, header: Header, signals: list[SignalLine]) -> int:
    """Return the number of frames in a signal file; raise ValueError or OSError if it does not match the header."""
    name = signals[0].file
    (fmt, offset), *others = dict.fromkeys((signal.fmt, signal.byte_offset) for signal in signals)
    per_frame = sum(signal.samples_per_frame for signal in signals)
    if fmt == NO_SAMPLES:
        raise ValueError(
            f"{path} describes signals without samples (format 0). If it is the layout segment of a record, "
            "give the path of this record"
        )
    if others or fmt not in (*BLOCKS, *FLAC_BITS):
        formats = sorted({signal.fmt for signal in signals})
        raise ValueError(
            f"{path} says that {quoted(name)} has the formats {formats}; allowed is one of {(*BLOCKS, *FLAC_BITS)}. "
            "Convert it to format 16 with wfdb's xform."
        )
    if any(signal.samples_per_frame == 0 for signal in signals):
        raise ValueError(f"{path} describes a signal with 0 samples per frame. {WHAT_TO_DO}")
    file = path.parent / name
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing, although {path.name} names it; copy it to this path")
    if fmt in FLAC_BITS:
        return _count_flac_frames(path, header, signals)
    size = file.stat().st_size
    block_samples, block_bytes, _ = BLOCKS[fmt]
    frames = header.n_frames or max(0, size - offset) * block_samples // block_bytes // per_frame
    blocks, partial = divmod(frames * per_frame, block_samples)
    least = offset + blocks * block_bytes + (PARTIAL_BLOCKS[fmt][partial - 1] if partial else 0)
    if not least <= size <= offset + (blocks + bool(partial)) * block_bytes:
        raise ValueError(
            f"{file} has {size} bytes, but the record's header says {frames} samples, which need {least} "
            f"bytes. {WHAT_TO_DO}"
        )
    if not frames:
        raise ValueError(f"{file} holds no samples. {WHAT_TO_DO}")
    return frames


def _count_flac_frames(path: Path, header: Header, signals: list[SignalLine]) -> int:
    """Return the number of frames in a FLAC file; raise ValueError if the file does not match the header."""
    signal = signals[0]
    file = path.parent / signal.file
    with _open_flac(file) as flac:
        channels, samples, bits = flac.channels, flac.frames, FLAC_SUBTYPES.get(flac.subtype, 32)
    allowed = FLAC_BITS[signal.fmt]
    if channels != len(signals) or bits > allowed:
        raise ValueError(
            f"{file} has {channels} channels of {bits} bits, but the record's header says {len(signals)} "
            "channels of at most "
            f"{allowed} bits. {WHAT_TO_DO}"
        )
    if len({each.samples_per_frame for each in signals}) > 1:
        raise ValueError(
            f"{path} says that the signals of {quoted(signal.file)} have different sampling rates, which is not "
            f"possible in a FLAC file. {WHAT_TO_DO}"
        )
    frames = header.n_frames or max(0, samples - signal.byte_offset) // signal.samples_per_frame
    if samples != signal.byte_offset + frames * signal.samples_per_frame or not frames:
        raise ValueError(f"{file} has {samples} samples, but the record's header says {frames} frames. {WHAT_TO_DO}")
    return frames


def _read_flac(file: Path, first: int, n: int) -> np.ndarray:
    """Return n samples of all channels of a FLAC file, from sample `first` on, shape (n, n_channels), int32."""
    with _open_flac(file) as flac:
        shift = 32 - FLAC_SUBTYPES[flac.subtype]
        flac.seek(first)
        parts = []
        missing = n  # read in pieces, so that a wrong length in the header allocates no memory
        while missing > 0:
            part = flac.read(min(missing, FLAC_SAMPLES_AT_ONCE), dtype="int32", always_2d=True)
            parts.append(part >> shift)
            missing -= len(part)
            if not len(part):
                break
    if missing:
        raise ValueError(f"{file} ends {missing} samples earlier than its own header says. {WHAT_TO_DO}")
    return np.concatenate(parts)


@contextmanager
def _open_flac(file: Path) -> Iterator[Any]:
    try:
        import soundfile
    except (ImportError, OSError):
        raise ValueError(f"{file} is a FLAC file, which needs the package soundfile: pip install soundfile") from None
    with file.open("rb") as stream:
        signature = stream.read(4)
    if signature != b"fLaC":
        raise ValueError(f"{file} is not a FLAC file, although the record's header says so. {WHAT_TO_DO}")
    with explain_damage(file, "FLAC"), soundfile.SoundFile(str(file)) as flac:
        yield flac
