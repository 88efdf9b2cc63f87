"""Read EDF, EDF+, BDF and BDF+ files, in part or in full. Dates and names in the header are ignored.

References
----------
.. [1] https://www.edfplus.info/specs/edf.html, https://www.edfplus.info/specs/edfplus.html and
   https://www.biosemi.com/faq/file_format.htm
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_shock.data.lead_labels import quoted
from ecg_shock.data.signal_files import WHAT_TO_DO, Channel, SignalFile, lead_names, mv_per_unit, to_float32
from ecg_shock.data.unpacking import unpack_24

logger = logging.getLogger(__name__)

FIXED_BYTES = 256  # size of the header's first part; each signal adds another 256 bytes
SIGNAL_FIELDS = {  # size in bytes of each field of a signal, in the order of the header
    "label": 16,
    "transducer": 80,
    "unit": 8,
    "physical minimum": 8,
    "physical maximum": 8,
    "digital minimum": 8,
    "digital maximum": 8,
    "prefiltering": 80,
    "samples per data record": 8,
    "reserved": 32,
}
ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)\x14")
ONSET_TOLERANCE_S = 1e-3  # onsets are rounded to milliseconds


def open_edf(path: Path, units: str | None = None) -> SignalFile:
    """Open an EDF, EDF+, BDF or BDF+ file, and read its header.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    units : str, optional
        Unit of the signals to which the header gives no unit, or an unknown unit that may be a voltage.

    Returns
    -------
    SignalFile
        The open file. If a signal cannot be read, the `problem` of its channel says why.

    Raises
    ------
    ValueError
        If the header cannot be parsed, or does not match the size of the file.
    """
    return _Edf(path, units)


class _Edf(SignalFile):
    def __init__(self, path: Path, units: str | None) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as stream:
            fixed = stream.read(FIXED_BYTES)
            if len(fixed) < FIXED_BYTES or fixed[:8] not in (b"0       ", b"\xffBIOSEMI"):
                raise ValueError(f"{path} does not begin like an EDF or BDF file. {WHAT_TO_DO}")
            n_signals = self._parse_integer(fixed[252:256], "number of signals", 1)
            header_bytes = FIXED_BYTES * (n_signals + 1)
            if size < header_bytes:
                raise ValueError(f"{path} ends within its header of {n_signals} signals. {WHAT_TO_DO}")
            described = stream.read(header_bytes - FIXED_BYTES)
        if self._parse_integer(fixed[184:192], "length of the header", 0) != header_bytes:
            raise ValueError(
                f"{path} states a length of its header that does not fit {n_signals} signals. {WHAT_TO_DO}"
            )
        fields: dict[str, list[bytes]] = {}
        for name, width in SIGNAL_FIELDS.items():
            block, described = described[: width * n_signals], described[width * n_signals :]
            fields[name] = [block[i * width : (i + 1) * width] for i in range(n_signals)]
        self._sample_bytes = 2 if fixed[:1] == b"0" else 3
        self._is_discontinuous = fixed[192:197] in (b"EDF+D", b"BDF+D")
        counts = fields["samples per data record"]
        self._counts = [self._parse_integer(text, "samples per data record", 0) for text in counts]  # by signal
        self._record_bytes = self._sample_bytes * sum(self._counts)
        self._header_bytes = header_bytes
        self._record_s = _parse_number(fixed[244:252])
        self._records = self._count_records(self._parse_integer(fixed[236:244], "number of data records", -1), size)

        labels = [_decode(label) for label in fields["label"]]
        annotation_signals = [i for i, label in enumerate(labels) if label in ("EDF Annotations", "BDF Annotations")]
        self._signals = [i for i in range(n_signals) if i not in annotation_signals]
        self._annotation_signal = annotation_signals[0] if annotation_signals else None
        if self._signals and not self._record_s > 0:  # refuses NaN as well
            raise ValueError(
                f"{path} gives {_quote(fixed[244:252])} as the duration of a data record, which must be a "
                f"number of seconds above 0. {WHAT_TO_DO}"
            )
        self._gains: list[tuple[float, float]] = []
        channels = []
        for i, name in zip(self._signals, lead_names([labels[i] for i in self._signals]), strict=True):
            unit = _decode(fields["unit"][i])
            ranges = {key: fields[key][i] for key in SIGNAL_FIELDS if key.endswith("imum")}
            problem: Exception | None = None
            try:
                self._gains.append(self._calibrate(name, ranges))
            except ValueError as error:
                self._gains.append((0.0, 0.0))
                problem = error
            if not self._counts[i]:
                problem = ValueError(f"{path} holds no samples of {quoted(name)}. {WHAT_TO_DO}")
            channels.append(
                Channel(
                    name=name,
                    unit=unit,
                    mv_per_unit=mv_per_unit(unit, units),
                    fs=self._counts[i] / self._record_s,
                    n_samples=self._counts[i] * self._records,
                    problem=problem,
                )
            )
        self.channels = tuple(channels)
        self._first_onset_s = self._read_onset(0)

    def _parse_integer(self, field: bytes, what: str, minimum: int) -> int:
        text = _decode(field)
        if not re.fullmatch(r"[+-]?\d{1,9}", text) or int(text) < minimum:
            raise ValueError(
                f"{self.path} gives {_quote(field)} as the {what}, which is not allowed in EDF. {WHAT_TO_DO}"
            )
        return int(text)

    def _count_records(self, claimed: int, size: int) -> int:
        """Return the number of data records; raise ValueError if it does not match the size of the file.

        `claimed` is the number in the header. If it is -1, the recording was interrupted, and an incomplete last data
        record is ignored.
        """
        found, rest = divmod(size - self._header_bytes, self._record_bytes) if self._record_bytes else (0, 0)
        if claimed == -1 and found:
            more = f", and {rest} bytes of an incomplete record are excluded" if rest else ""
            logger.warning("%s does not give its number of data records; %d were found%s", self.path, found, more)
            return found
        if claimed != found or rest or not found:
            raise ValueError(
                f"{self.path} has {size} bytes, but its header says {claimed} data records, which need "
                f"{self._header_bytes + max(claimed, 0) * self._record_bytes} bytes with the header. {WHAT_TO_DO}"
            )
        return found

    def _calibrate(self, name: str, ranges: dict[str, bytes]) -> tuple[float, float]:
        """Return gain and offset, where physical = (digital + offset) * gain; raise ValueError if there is no scale."""
        physical_min, physical_max, digital_min, digital_max = values = [
            _parse_number(field) for field in ranges.values()
        ]
        for (what, field), value in zip(ranges.items(), values, strict=True):
            if not math.isfinite(value):
                raise ValueError(
                    f"{self.path} gives {quoted(name)} the {what} {_quote(field)}; it must be a number, with a "
                    "decimal point"
                )
        if physical_min == physical_max or digital_min == digital_max:
            raise ValueError(
                f"{self.path} has no scale for {quoted(name)}: the physical range is {physical_min:g} to "
                f"{physical_max:g}, the digital range {digital_min:g} to {digital_max:g}. {WHAT_TO_DO}"
            )
        gain = (physical_max - physical_min) / (digital_max - digital_min)
        return gain, physical_max / gain - digital_max

    def read(self, channels: Sequence[int], first: int, last: int) -> np.ndarray:
        count = self._counts[self._signals[channels[0]]]
        first_record, last_record = first // count, -(-last // count)
        records = self._read_records(first_record, last_record)
        self._check_onsets(records, first_record)
        mv = np.empty((last - first, len(channels)), np.float32)
        for column, i in enumerate(channels):
            raw = self._get_bytes(records, self._signals[i]).tobytes()
            digital = np.frombuffer(raw, "<i2") if self._sample_bytes == 2 else unpack_24(raw)
            digital = digital[first - first_record * count : last - first_record * count]
            gain, offset = self._gains[i]
            with np.errstate(over="ignore"):
                physical = (digital + offset) * gain
                mv[:, column] = to_float32(self.path, physical * (self.channels[i].mv_per_unit or math.nan))
        return mv

    def _read_records(self, first: int, last: int) -> np.ndarray:
        """Read data records as bytes, shape (last - first, record_bytes)."""
        with self.path.open("rb") as stream:
            stream.seek(self._header_bytes + first * self._record_bytes)
            content = stream.read((last - first) * self._record_bytes)
        if len(content) < (last - first) * self._record_bytes:
            raise ValueError(f"{self.path} became shorter while it was read. {WHAT_TO_DO}")
        return np.frombuffer(content, np.uint8).reshape(last - first, self._record_bytes)

    def _get_bytes(self, records: np.ndarray, signal: int) -> np.ndarray:
        start = sum(self._counts[:signal]) * self._sample_bytes
        return records[:, start : start + self._counts[signal] * self._sample_bytes]

    def _read_onset(self, record: int) -> float | None:
        """Return the start of a data record in s according to its annotations, or None if they do not give it."""
        if self._annotation_signal is None:
            return None
        found = ONSET.match(self._get_bytes(self._read_records(record, record + 1), self._annotation_signal).tobytes())
        return float(found[1]) if found else None

    def _check_onsets(self, records: np.ndarray, first: int) -> None:
        """Raise ValueError if there is a gap in time before one of the data records."""
        if self._annotation_signal is None or self._first_onset_s is None:
            if self._is_discontinuous:
                raise ValueError(
                    f"{self.path} is a discontinuous EDF+ file that does not say when its data records begin; save "
                    "each continuous segment in a separate file"
                )
            return
        for record, content in enumerate(self._get_bytes(records, self._annotation_signal), first):
            found = ONSET.match(content.tobytes())
            if found and abs(float(found[1]) - self._first_onset_s - record * self._record_s) <= ONSET_TOLERANCE_S:
                continue
            if found or self._is_discontinuous:
                raise ValueError(
                    f"{self.path} is a discontinuous EDF+ file: the data record after {record * self._record_s:g} s "
                    "does not directly follow the previous one; save each continuous segment in a separate file"
                )


def _decode(field: bytes) -> str:
    """Decode a header field; some writers use UTF-8 or Latin-1 although the specification says ASCII."""
    field = field.split(b"\0")[0].strip()
    try:
        return field.decode()
    except UnicodeDecodeError:
        return field.decode("latin-1")


def _parse_number(field: bytes) -> float:
    """Return the number in a header field, or NaN if it is not a number."""
    text = _decode(field)
    return float(text) if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", text) else math.nan


def _quote(field: bytes) -> str:
    return quoted(_decode(field))
