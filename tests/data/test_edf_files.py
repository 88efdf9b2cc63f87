"""EDF and BDF files: the header fields that samples depend on are read and checked, and the others are ignored."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest

from ecg_shock.data.lead import open_lead
from ecg_shock.data.readers import read_record

WIDTHS = {
    **{"label": 16, "transducer": 80, "unit": 8, "pmin": 8, "pmax": 8, "dmin": 8, "dmax": 8, "filter": 80},
    **{"count": 8, "reserved": 32},
}
ECG = np.arange(-2000, 2000, 4)  # 1000 samples, 4 s at 250 Hz


def field(value: object, width: int) -> bytes:
    """Pad a field of the header."""
    content = value if isinstance(value, bytes) else str(value).encode()
    return content.ljust(width)


def write(path: Path, *signals: dict[str, Any], records: object = 4, **fixed: Any) -> Path:
    """Write a file of records of 1 s byte by byte; a signal needs `data`, and its unit is 1 µV by default."""
    wide = path.suffix == ".bdf"
    top = 2**23 if wide else 2**15
    usual = {"label": "ECG", "unit": "uV", "pmin": -top, "pmax": top - 1, "dmin": -top, "dmax": top - 1}
    signals = tuple({**usual, "count": len(each["data"]) // 4, **each} for each in signals)
    given = {
        "version": b"\xffBIOSEMI" if wide else "0",
        "date": "01.01.20",
        "reserved": "24BIT" if wide else "",
        **fixed,
    }
    content = field(given["version"], 8) + field(given.get("patient", ""), 80) + field(given.get("recorder", ""), 80)
    content += field(given["date"], 8) + field(given.get("time", "12.00.00"), 8)
    content += field(given.get("header", 256 * (len(signals) + 1)), 8) + field(given["reserved"], 44)
    content += field(records, 8) + field(given.get("duration", 1), 8) + field(len(signals), 4)
    for name, width in WIDTHS.items():
        content += b"".join(field(each.get(name, ""), width) for each in signals)
    for record in range(4):
        for each in signals:
            count = len(each["data"]) // 4
            part = each["data"][record * count : (record + 1) * count]
            if isinstance(part, bytes):
                content += part
            else:
                digital = np.asarray(part).astype("<i4").view(np.uint8).reshape(-1, 4)
                content += digital[:, : 3 if wide else 2].tobytes()
    path.write_bytes(content)
    return path


def notes(*onsets: float, gap: bytes = b"") -> dict[str, Any]:
    """Return an annotation signal whose records begin at these seconds."""
    data = b"".join((b"+%g\x14\x14\x00" % onset + gap).ljust(20, b"\0") for onset in onsets)
    return {"label": "EDF Annotations", "unit": "", "data": data, "count": 10}


@pytest.mark.parametrize("suffix", [".edf", ".bdf"])
def test_samples_are_those_written(suffix: str, tmp_path: Path) -> None:
    """Samples in mV equal those of edfio, read at once, in part, and for a lead with another sampling rate."""
    large = ECG * (1000 if suffix == ".bdf" else 10)
    scaled = {"pmin": -5, "pmax": 4.5, "dmin": -32768, "dmax": 32767, "unit": "mV"}
    path = write(tmp_path / f"a{suffix}", {"data": large}, {"data": ECG[::2] * 3, "label": "slow II", **scaled})
    read = edfio.read_edf if suffix == ".edf" else edfio.read_bdf
    first, second = read(path).signals
    np.testing.assert_allclose(read_record(path, leads=["ECG"]).signal[:, 0], large / 1000, rtol=1e-6)
    np.testing.assert_allclose(read_record(path, leads=["ECG"]).signal[:, 0], first.data / 1000, rtol=1e-6)
    slow = read_record(path, leads=["slow II"])
    assert slow.fs == 125
    np.testing.assert_allclose(slow.signal[:, 0], second.data, rtol=1e-6)
    np.testing.assert_allclose(slow.signal[:, 0], (ECG[::2] * 3 + 32768) * 9.5 / 65535 - 5, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(open_lead(path, lead="slow II").read(99, 307), slow.signal[99:307, 0])


@pytest.mark.parametrize(
    "fixed",
    [
        {"date": "2020-1-1", "time": "noon"},
        {"date": "", "time": "", "patient": "M\u00fcller".encode("latin-1"), "recorder": b"\xff" * 80},
        {"date": "31.02.99", "time": "25.61.61", "patient": "\0" * 80},
        {"recorder": "Startdate 99-XXX-1 a b c"},
        {"reserved": "something else"},
        {"duration": "1.0"},
    ],
)
def test_what_nobody_needs_may_be_anything(fixed: dict[str, Any], tmp_path: Path) -> None:
    """Dates, names and remarks are not read."""
    recording = read_record(write(tmp_path / "a.edf", {"data": ECG, "filter": "HP:?"}, **fixed))
    np.testing.assert_allclose(recording.signal[:, 0], ECG / 1000, rtol=1e-6)
    assert (recording.fs, recording.leads) == (250, ("ECG",))


def test_number_of_records_that_is_not_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With -1, all complete records are read, and the log says how many; any other number has to be right."""
    path = write(tmp_path / "a.edf", {"data": ECG}, records=-1)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_allclose(read_record(path).signal[:, 0], ECG / 1000, rtol=1e-6)
        path.write_bytes(path.read_bytes()[:-100])
        np.testing.assert_allclose(read_record(path).signal[:, 0], ECG[:750] / 1000, rtol=1e-6)
        assert open_lead(path).n_samples == 750
    assert "4 were found" in caplog.records[0].getMessage()
    assert "3 were found, and 400 bytes of an incomplete record are excluded" in caplog.records[1].getMessage()
    for records in (3, 5, 0, -2, "", "4.5", "9" * 8):
        with pytest.raises(ValueError, match=r"a\.edf"):
            read_record(write(tmp_path / "a.edf", {"data": ECG}, records=records))


@pytest.mark.parametrize("unit", ["", "mcV", ".V", "MV", "Mv"])
def test_unit_that_the_header_does_not_say(unit: str, tmp_path: Path) -> None:
    """The error asks for the unit, and `units` gives it; it must not contradict a known unit; % is not a voltage."""
    path = write(tmp_path / "a.edf", {"data": ECG, "unit": unit}, {"data": ECG, "unit": "%", "label": "SpO2"})
    with pytest.raises(ValueError, match=r"give the unit with units= \(--units\)"):
        read_record(path)
    recording = read_record(path, units="uV")
    assert recording.leads == ("ECG",)
    np.testing.assert_allclose(recording.signal[:, 0], ECG / 1000, rtol=1e-6)
    np.testing.assert_allclose(open_lead(path, units="mV").read(0, 1000), ECG, rtol=1e-6)
    with pytest.raises(ValueError, match="the unit of an ECG must be one of"):
        read_record(path, units="uV", leads=["SpO2"])


@pytest.mark.parametrize(
    ("unit", "mv"),
    [
        *(("uV", 1e-3), ("uv", 1e-3), ("mv", 1), ("V", 1e3), ("\u00b5V", 1e-3), ("\u03bcV", 1e-3), (b"\xb5V", 1e-3)),
        *(("Volt", 1e3), ("MicroV", 1e-3), ("nV", 1e-6)),
    ],
)
def test_unit_of_one_meaning(unit: str | bytes, mv: float, tmp_path: Path) -> None:
    """Spellings in UTF-8, Latin-1 and lower case are known; `units` must not contradict them."""
    path = write(tmp_path / "a.edf", {"data": ECG, "unit": unit})
    np.testing.assert_allclose(read_record(path).signal[:, 0], ECG * mv, rtol=1e-6)
    with pytest.raises(ValueError, match="remove units"):
        read_record(path, units="mV" if mv != 1 else "uV")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"dmin": 5, "dmax": 5}, "has no scale"),
        ({"pmin": 0, "pmax": 0}, "has no scale"),
        ({"pmin": "-3276,8"}, r"the physical minimum '-3276,8'; it must be a number, with a decimal point"),
        ({"dmax": ""}, "the digital maximum ''"),
        ({"pmax": "nan"}, "the physical maximum 'nan'"),
    ],
)
def test_bad_channel_does_no_harm(
    bad: dict[str, Any], message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A good ECG in the same file is read; the error for the channel, or a file without another, says what is wrong."""
    path = write(tmp_path / "a.edf", {"data": ECG, "label": "V1", **bad}, {"data": ECG, "label": "ecg 2"})
    with caplog.at_level(logging.WARNING):
        recording = read_record(path)
    assert recording.leads == (open_lead(path).lead,) == ("ecg 2",)
    np.testing.assert_allclose(recording.signal[:, 0], ECG / 1000, rtol=1e-6)
    assert caplog.records[0].getMessage().startswith(f"a channel is excluded: {path} ")
    for read in (lambda: read_record(path, leads=["V1"]), lambda: open_lead(path, lead="V1")):
        with pytest.raises(ValueError, match=message):
            read()
    with pytest.raises(ValueError, match=message):
        read_record(write(tmp_path / "a.edf", {"data": ECG, **bad}))


@pytest.mark.parametrize("bad", [{"unit": "mcV"}, {"unit": ""}, {"pmin": 0, "pmax": 0}])
def test_no_other_lead_stands_in_for_an_ecg(bad: dict[str, Any], tmp_path: Path) -> None:
    """If the ECG cannot be read, the only other voltage does not replace it unless its name says ECG."""
    for other in ("EEG", "channel x"):
        path = write(tmp_path / "a.edf", {"data": ECG[::-1], "label": other}, {"data": ECG, **bad})
        for read in (open_lead, read_record):
            with pytest.raises(ValueError, match="ECG' (has the|has no|: )|scale for 'ECG'"):
                read(path)
        assert read_record(path, leads=[other]).leads == (open_lead(path, lead=other).lead,) == (other,)
    path = write(tmp_path / "a.edf", {"data": ECG[::-1], "label": "V5"}, {"data": ECG, **bad})
    assert open_lead(path).lead == "V5"


def test_annotations_and_gaps(tmp_path: Path) -> None:
    """Annotations are not a lead; a gap between data records is refused, by their annotations and not by the header."""
    ecg = {"data": ECG}
    for reserved in ("EDF+C", "EDF+D", ""):
        path = write(tmp_path / "a.edf", ecg, notes(7, 8, 9, 10, gap=b"+8.5\x14beep\x14"), reserved=reserved)
        assert read_record(path).leads == ("ECG",)
        path = write(tmp_path / "b.edf", ecg, notes(0, 1, 3, 4), reserved=reserved)
        for read in (read_record, lambda path: list(open_lead(path).pieces())):
            with pytest.raises(ValueError, match="discontinuous"):
                read(path)
        np.testing.assert_allclose(open_lead(path).read(0, 500), ECG[:500] / 1000, rtol=1e-6)  # before the gap
    silent = {**notes(0, 1, 2, 3), "data": bytes(80)}
    assert len(read_record(write(tmp_path / "c.edf", ecg, silent, reserved="EDF+C")).signal) == 1000
    with pytest.raises(ValueError, match="discontinuous"):
        read_record(write(tmp_path / "c.edf", ecg, silent, reserved="EDF+D"))


def test_several_rates(tmp_path: Path) -> None:
    """By default, `open_lead` takes the first ECG; the error of `read_record` asks for leads= or --lead."""
    path = write(tmp_path / "a.edf", {"data": ECG[::2], "label": "EEG C3"}, {"data": ECG}, {"data": ECG, "label": "V1"})
    assert (open_lead(path).lead, open_lead(path).fs) == ("ECG", 250)
    with pytest.raises(
        ValueError,
        match=r"sampling rates of \[125\.0, 250\.0\] Hz; choose leads of one rate " r"with leads= \(--lead\)",
    ):
        read_record(path)
    assert read_record(path, leads=["V1", "ECG"]).leads == ("V1", "ECG")


@pytest.mark.parametrize(
    "fixed",
    [{"version": "1"}, {"version": "BIOSEMI"}, {"header": 768}, {"header": ""}, {"duration": 0}, {"duration": "x"}],
)
def test_headers_that_are_none(fixed: dict[str, Any], tmp_path: Path) -> None:
    """Header fields that samples depend on have to be right."""
    with pytest.raises(ValueError, match=r"a\.edf"):
        read_record(write(tmp_path / "a.edf", {"data": ECG}, **fixed))
