"""Parse WFDB headers strictly by their specification, header(5) [1]_.

If the WFDB libraries cannot parse a part of a line, they ignore it, or read it as the next field. Examples are the
baseline in "200 (1024)/mV" and the unit in "1 /uV". Here, a line of this kind raises ValueError.

References
----------
.. [1] https://wfdb.io/spec/header-files.html and https://physionet.org/physiotools/wag/header-5.htm
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ecg_shock.data.lead_labels import quoted
from ecg_shock.data.signal_files import WHAT_TO_DO

MAX_BYTES = 2**20  # real headers have a few kB
MAX_NAME = 200  # file systems allow names of up to 255 bytes
DEFAULT_FS = 250
DEFAULT_GAIN = 200.0

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_WHOLE = r"[-+]?\d{1,18}(?:\.0*)?"  # some programs write 1024.0
_NAME = re.compile(r"\S+?(?:/(\d{1,18}))?")
_RATE = re.compile(rf"({_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?")
_FORMAT = re.compile(r"(\d{1,9})(?:x(\d{1,18}))?(?::(\d{1,18}))?(?:\+(\d{1,18}))?")
_GAIN = re.compile(rf"({_NUMBER}|[-+]?(?:nan|inf|infinity))(?:\(({_WHOLE})\))?(?:/(\S+))?", re.IGNORECASE)


@dataclass(frozen=True)
class SignalLine:
    """The description of one signal in a header.

    Parameters
    ----------
    file : str
        Name of the signal file; ``"~"`` if there is none.
    fmt : str
        Format of the signal file.
    samples_per_frame : int
        Number of samples of this signal in each frame. A frame holds the samples of all signals in one short period.
    skew : int
        Delay of this signal in samples.
    byte_offset : int
        Position of the first sample in the file, in bytes.
    gain : float
        In ADC units per physical unit; 0 if the signal is not calibrated.
    baseline : int
        ADC value of 0 physical units.
    unit : str
        ``"mV"`` if none is given, as header(5) says.
    checksum : int
        Sum of all samples, in 16 bits; 0 if none is given.
    description : str
        Name of the signal, which may be empty.
    """

    file: str
    fmt: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    unit: str
    checksum: int
    description: str


@dataclass(frozen=True)
class Header:
    """The content of a record's header.

    Parameters
    ----------
    n_signals : int
        Number of signals.
    fs : float
        Frames per second.
    fs_given : bool
        Whether the header gives `fs`; if not, it is 250 Hz, the default of header(5).
    n_frames : int
        Number of frames; 0 if the header does not give it.
    signals : tuple of SignalLine
        Empty for a record of several segments.
    segments : tuple of (str, int)
        Names and lengths in frames; empty for a record of one segment.
    """

    n_signals: int
    fs: float
    fs_given: bool
    n_frames: int
    signals: tuple[SignalLine, ...] = ()
    segments: tuple[tuple[str, int], ...] = ()


def read_header(path: Path) -> Header:
    """Parse a WFDB header; raise ValueError, with the line in the message, if a field cannot be parsed."""
    lines = _read_lines(path)
    record = lines[0].split()
    try:
        if len(record) < 2 or not re.fullmatch(r"\d{1,18}", record[1]):
            raise ValueError(
                "the line must begin with the name of the record, without spaces, and the number of signals"
            )
        fs: float = DEFAULT_FS
        if len(record) > 2:
            rate = _RATE.fullmatch(record[2])
            if not rate:
                raise ValueError(
                    f"{quoted(record[2])} is not a sampling rate; write a number with a decimal point, such as 249.97"
                )
            fs = int(rate[1]) if re.fullmatch(r"\d{1,15}", rate[1]) else float(rate[1])
        if len(record) > 3 and not re.fullmatch(r"\d{1,18}(?:\.0*)?", record[3]):
            raise ValueError(
                f"{quoted(record[3])} is not a number of samples; write a whole number, or 0 if it is unknown"
            )
    except ValueError as error:
        raise _line_error(path, lines[0], error) from None
    # The time and date that may follow are ignored.
    n_signals, n_frames = int(record[1]), int(record[3].partition(".")[0]) if len(record) > 3 else 0
    name = _NAME.fullmatch(record[0])
    if name and name[1] is not None:
        segments = tuple(_parse_segment(path, line) for line in lines[1:])
        if not segments or len(segments) != int(name[1]):
            raise ValueError(f"{path} says {int(name[1])} segments, but lists {len(segments)}. {WHAT_TO_DO}")
        return Header(n_signals, fs, len(record) > 2, n_frames, segments=segments)
    if n_signals == 0 or n_signals != len(lines) - 1:
        raise ValueError(f"{path} says {n_signals} signals, but describes {len(lines) - 1}. {WHAT_TO_DO}")
    signals = tuple(_parse_signal(path, line) for line in lines[1:])
    return Header(n_signals, fs, len(record) > 2, n_frames, signals=signals)


def _read_lines(path: Path) -> list[str]:
    """Return the lines of a header, without comments and empty lines."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path} has {size} bytes, too many for a WFDB header. {WHAT_TO_DO}")
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip(b"\0")
    lines = [line.strip() for line in content.splitlines()]
    lines = [line for line in lines if line and not line.startswith(b"#")]
    if not lines:
        raise ValueError(f"{path} is an empty WFDB header. {WHAT_TO_DO}")
    return [_decode(line) for line in lines]


def _decode(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _line_error(path: Path, line: str, cause: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read as a WFDB header because of the line {quoted(line, 100)}: {cause}")


def _check_name(path: Path, name: str) -> str:
    """Return the name of a file or segment; raise ValueError if it lies outside the folder of the header."""
    if "/" in name or "\\" in name:
        raise ValueError(
            f"{path} names a file in another folder, {quoted(name)}; move it into the folder of the header, and write "
            "its name without a folder"
        )
    if len(name) > MAX_NAME:
        raise ValueError(
            f"{path} names a file {quoted(name)}, whose name has {len(name)} characters; allowed are {MAX_NAME}. "
            f"{WHAT_TO_DO}"
        )
    return name


def _parse_segment(path: Path, line: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) != 2 or not re.fullmatch(r"\d{1,18}", fields[1]):
        raise _line_error(path, line, ValueError("the line must be the name of a segment and its number of samples"))
    return _check_name(path, fields[0]), int(fields[1])


def _parse_signal(path: Path, line: str) -> SignalLine:
    fields = line.split(maxsplit=8)
    fields, description = fields[:8], fields[8] if len(fields) > 8 else ""
    file = _check_name(path, fields[0])
    if not "".join(fields).isascii():
        raise ValueError(
            f"{path} is not plain ASCII in the line {quoted(line, 100)}; only the description may have other "
            "characters. Write uV for microvolts."
        )
    try:
        fmt = _FORMAT.fullmatch(fields[1]) if len(fields) > 1 else None
        if not fmt:
            what = f"{quoted(fields[1])} is not a format" if len(fields) > 1 else "the format is missing"
            raise ValueError(f"{what}; write a number such as 16 or 212")
        gain = _GAIN.fullmatch(fields[2]) if len(fields) > 2 else None
        if len(fields) > 2 and not gain:
            raise ValueError(
                f"{quoted(fields[2])} is not a gain; write gain(baseline)/unit without spaces, such as 200(1024)/mV "
                "or 200.5(1024)/mV"
            )
        rest = []
        for text, what in zip(
            fields[3:], ("ADC resolution", "ADC zero", "initial value", "checksum", "block size"), strict=False
        ):
            if not re.fullmatch(_WHOLE, text):
                raise ValueError(
                    f"the {what} is {quoted(text)}, not a whole number; write the gain without spaces, then whole "
                    "numbers, then the name: 200(1024)/mV 12 0 0 0 0 ECG"
                )
            rest.append(int(text.partition(".")[0]))
    except ValueError as error:
        raise _line_error(path, line, error) from None
    rest += [0] * (5 - len(rest))
    return SignalLine(
        file=file,
        fmt=fmt[1],
        samples_per_frame=int(fmt[2] or 1),
        skew=int(fmt[3] or 0),
        byte_offset=int(fmt[4] or 0),
        gain=float(gain[1]) if gain else 0.0,
        baseline=int(gain[2].partition(".")[0]) if gain and gain[2] else rest[1],
        unit=(gain[3] if gain else None) or "mV",
        checksum=rest[3],
        description=description.strip(),
    )
