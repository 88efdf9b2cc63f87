"""WFDB records in every format and layout give the samples that were packed, and no field of a header is ignored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import wfdb

from ecg_shock.data.lead import open_lead
from ecg_shock.data.readers import read_record


def pack_310(samples: np.ndarray) -> bytes:
    """Pack three samples into four bytes: ten bits of either half from bit 1 on, and the third in the five above."""
    words = []
    for a, b, c in np.pad(samples, (0, -len(samples) % 3)).reshape(-1, 3).tolist():
        low = (a & 1023) << 1 | (c & 31) << 11
        high = (b & 1023) << 1 | (c >> 5 & 31) << 11
        words += [low, high]
    return np.array(words, "<u2").tobytes()[: -(-len(samples) // 3) * 4]


def pack_311(samples: np.ndarray) -> bytes:
    """Pack three samples into 30 bits, the first in the lowest."""
    text = b""
    for a, b, c in np.pad(samples, (0, -len(samples) % 3)).reshape(-1, 3).tolist():
        text += sum((x & 1023) << 10 * i for i, x in enumerate((a, b, c))).to_bytes(4, "little")
    return text


PACKERS: dict[str, tuple[int, Callable[[np.ndarray], bytes]]] = {
    "61": (16, lambda x: x.astype(">i2").tobytes()),
    "160": (16, lambda x: (x + 32768).astype("<u2").tobytes()),
    "310": (10, pack_310),
    "311": (10, pack_311),
}


def write(folder: Path, name: str, header: str, content: bytes = b"") -> Path:
    """Write a header, in which {f} is the signal file, and that file."""
    (folder / f"{name}.hea").write_text(header.replace("{f}", f"{name}.dat"))
    (folder / f"{name}.dat").write_bytes(content)
    return folder / name


@pytest.mark.parametrize("fmt", PACKERS)
@pytest.mark.parametrize(("n", "n_leads"), [(400, 2), (401, 1), (401, 2), (401, 3)])
def test_formats_that_wfdb_only_reads(fmt: str, n: int, n_leads: int, tmp_path: Path, rng: np.random.Generator) -> None:
    """Samples equal those packed and those of the WFDB library, in part and in full; the lowest value is invalid."""
    bits, pack = PACKERS[fmt]
    digital = rng.integers(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1), (n, n_leads))
    digital[7, 0] = -(2 ** (bits - 1))
    lines = "".join(f"{{f}} {fmt} 200(3)/mV {bits} 0 {digital[0, i]} 0 0 V{i + 1}\n" for i in range(n_leads))
    record = write(tmp_path, "r", f"r {n_leads} 250 {n}\n{lines}", pack(digital.ravel()))
    expected = (digital - 3) / 200
    expected[7, 0] = np.nan
    recording = read_record(record)
    np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)
    np.testing.assert_array_equal(recording.signal, wfdb.rdrecord(str(record)).p_signal.astype(np.float32))
    for first, last in ((0, 1), (1, 5), (199, 307), (n - 1, n)):
        for lead, column in zip(recording.leads, expected.T, strict=True):
            np.testing.assert_allclose(open_lead(record, lead=lead).read(first, last), column[first:last], rtol=1e-6)
    signal_file = record.with_suffix(".dat")
    for content in (signal_file.read_bytes()[:-4], signal_file.read_bytes() + bytes(4)):
        signal_file.write_bytes(content)
        with pytest.raises(ValueError, match="bytes, but the record's header says"):
            read_record(record)


@pytest.mark.parametrize(("fmt", "subtype"), [("508", "PCM_S8"), ("516", "PCM_16"), ("524", "PCM_24")])
def test_flac(fmt: str, subtype: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """A FLAC file gives the samples that were written, in part and in full, and is checked against its header."""
    bits = int(fmt) - 500
    digital = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (900, 2))
    digital[5, 1] = -(2 ** (bits - 1))
    soundfile.write(tmp_path / "r.flac", (digital << (32 - bits)).astype(np.int32), 250, subtype, format="FLAC")
    lines = "".join(f"r.flac {fmt} 200/mV {bits} 0 0 0 0 {name}\n" for name in ("II", "V5"))
    expected = np.where(digital == -(2 ** (bits - 1)), np.nan, digital / 200)
    for length in ("900", "0"):
        (tmp_path / "r.hea").write_text(f"r 2 250 {length}\n{lines}")
        np.testing.assert_allclose(read_record(tmp_path / "r").signal, expected, rtol=1e-6)
    np.testing.assert_allclose(open_lead(tmp_path / "r", lead="V5").read(3, 77), expected[3:77, 1], rtol=1e-6)
    (tmp_path / "r.hea").write_text(f"r 2 250 901\n{lines}")
    with pytest.raises(ValueError, match="900 samples, but the record's header says 901"):
        read_record(tmp_path / "r")
    (tmp_path / "r.hea").write_text(f"r 2 250 900\n{lines}")
    (tmp_path / "r.flac").write_bytes((tmp_path / "r.flac").read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"r\.flac"):
        read_record(tmp_path / "r")


def segment(folder: Path, name: str, digital: np.ndarray, leads: str) -> None:
    """Write a segment of leads separated by spaces, with checksums."""
    sums = digital.sum(axis=0) % 65536
    lines = [f"{{f}} 16 100/mV 16 0 0 {total} 0 {lead}\n" for lead, total in zip(leads.split(), sums, strict=True)]
    write(folder, name, f"{name} {len(lines)} 250 {len(digital)}\n{''.join(lines)}", digital.astype("<i2").tobytes())


def test_record_of_several_segments(tmp_path: Path, rng: np.random.Generator) -> None:
    """A fixed layout joins the segments, read at once, in pieces and in part; each segment's checksums are checked."""
    parts = [rng.integers(-900, 900, (n, 2)) for n in (400, 150, 333)]
    for i, part in enumerate(parts):
        segment(tmp_path, f"s{i}", part, "II V5")
    (tmp_path / "s.hea").write_text("s/4 2 250 1283\ns0 400\ns1 150\ns0 400\ns2 333\n")
    expected = np.concatenate([parts[0], parts[1], parts[0], parts[2]]) / 100
    recording = read_record(tmp_path / "s")
    assert (recording.leads, recording.fs, recording.name) == (("II", "V5"), 250, "s")
    np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)
    np.testing.assert_allclose(open_lead(tmp_path / "s", lead="V5").read(390, 960), expected[390:960, 1], rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(list(open_lead(tmp_path / "s").pieces())), expected[:, 0], rtol=1e-6)
    content = bytearray((tmp_path / "s2.dat").read_bytes())
    content[40] ^= 1
    (tmp_path / "s2.dat").write_bytes(content)
    for read in (read_record, lambda path: list(open_lead(path).pieces())):
        with pytest.raises(ValueError, match="'II' do not add up"):
            read(tmp_path / "s")


def test_segments_of_a_variable_layout(tmp_path: Path, rng: np.random.Generator) -> None:
    """Leads are found by description; in gaps, and where a segment does not have the lead, samples are missing."""
    first, second = rng.integers(-900, 900, (200, 2)), rng.integers(-900, 900, (100, 1))
    segment(tmp_path, "a", first, "V5 II")
    segment(tmp_path, "b", second, "II")
    layout = "~ 0 100/mV 0 0 0 0 0 II\n~ 0 100/mV 0 0 0 0 0 V5\n~ 0 1/mmHg 0 0 0 0 0 ABP\n"
    (tmp_path / "lay.hea").write_text(f"lay 3 250 0\n{layout}")
    (tmp_path / "v.hea").write_text("v/4 3 250 350\nlay 0\na 200\n~ 50\nb 100\n")
    expected = np.full((350, 2), np.nan)
    expected[:200] = first[:, ::-1] / 100
    expected[250:, 0] = second[:, 0] / 100
    recording = read_record(tmp_path / "v")
    assert recording.leads == ("II", "V5")
    np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)
    np.testing.assert_allclose(wfdb.rdrecord(str(tmp_path / "v")).p_signal[:, :2], expected, rtol=1e-6)
    np.testing.assert_allclose(open_lead(tmp_path / "v").read(190, 260), expected[190:260, 0], rtol=1e-6)
    np.testing.assert_allclose(np.concatenate(list(open_lead(tmp_path / "v").pieces())), expected[:, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="without samples"):
        read_record(tmp_path / "lay")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("s/2 2 250 800\na 400\nnowhere 400\n", r"nowhere\.hea is missing, although s\.hea lists it as a segment"),
        ("s/2 2 250 801\na 400\na 400\n", "says that it has 801 samples, but its segments have 800"),
        ("s/3 2 250 800\na 400\na 400\n", "says 3 segments, but lists 2"),
        ("s/2 2 360 800\na 400\na 400\n", "has 360 Hz"),
        ("s/2 2 250\na 400\na 399\n", "says that segment 'a' has 399 samples"),
        ("s/2 2 250 800\na 400\n../a 400\n", "in another folder"),
        ("s/2 2 250 800\na 400\ns 400\n", "has segments itself"),
        ("s/2 3 250 800\na 400\na 400\n", "has 3 signals"),
        ("s/2 2 250 800\na 400\na 400 x\n", "'a 400 x': the line must be the name of a segment"),
        ("s/2 2 250\na 400\n~ 999999999999999\n", "more than 366 days"),
    ],
)
def test_segments_that_do_not_fit(header: str, message: str, tmp_path: Path, rng: np.random.Generator) -> None:
    """A header is checked against its segments."""
    segment(tmp_path, "a", rng.integers(-900, 900, (400, 2)), "II V5")
    (tmp_path / "s.hea").write_text(header)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_record(tmp_path / "s")


ECG = np.arange(-200, 300)  # one lead of 500 samples


def one_lead(folder: Path, line: str, record: str = "h 1 250 500") -> Path:
    """Write a record of `ECG` with this signal line and record line."""
    return write(folder, "h", f"{record}\n{line}\n", ECG.astype("<i2").tobytes())


@pytest.mark.parametrize(
    "gain",
    [
        *("1 /uV", "1/ uV", "5,0/uV", "200 (1024)/mV", "200( 1024)/mV", "200(1024) /mV", "200 mV", "200(12,5)/mV"),
        *("200//mV x", "(0)200/mV", "200mV", "/mV", "200(1024/mV", "200)1024(/mV", "0x10/mV", "2e/mV", "--2"),
        *("200/mV 16.5", "200/mV ECG", "200/mV 16 0 0 0x1F", "200/mV 16 0 0 0 ECG", "200/mV 16 0,5"),
    ],
)
def test_signal_line_is_accounted_for(gain: str, tmp_path: Path) -> None:
    """A line outside the grammar is refused and quoted; nothing shifts into the next field."""
    with pytest.raises(ValueError, match=r"because of the line 'h\.dat 16 ") as refusal:
        read_record(one_lead(tmp_path, f"{{f}} 16 {gain} 16 0 0 0 0 ECG"))
    assert len(str(refusal.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("line", "scale", "baseline"),
    [
        ("{f} 16 200(10)/mV 12 0 0 0 0 ECG", 200, 10),
        ("{f}\t16\t200(10)/mV\t12\t0\t0\t0\t0\tECG", 200, 10),
        ("  {f} 16   200/mV 12 10 0 0 0 ECG  ", 200, 10),  # the ADC zero stands for a baseline
        ("{f} 16 2.5e2/mV 16 0 0 0 0 ECG", 250, 0),
        ("{f} 16 +250./mV 16 0 0 0 0 ECG", 250, 0),
        ("{f} 16 .25e+3 16 0 0 0 0 ECG", 250, 0),
        ("{f} 16 -200(-7)/mV 16 0 0 0 0 ECG", -200, -7),
        ("{f} 16 0.2/uV 16 0 0 0 0 ECG", 200, 0),
        ("{f} 16 200(10.0)/mV 16.0 0.0 0 0 0 ECG", 200, 10),
        ("{f} 16x1:0+0 200 16 0 0 0 0 ECG", 200, 0),
        ("{f} 16 200/mV 16 0 0 0 0 ECG\r\n# 200 (1024)/mV is a comment", 200, 0),
    ],
)
def test_forms_that_the_specification_allows(line: str, scale: float, baseline: int, tmp_path: Path) -> None:
    """Gain, baseline and unit are read as written."""
    recording = read_record(one_lead(tmp_path, line))
    np.testing.assert_allclose(recording.signal[:, 0], (ECG - baseline) / scale, rtol=1e-6)
    assert recording.leads == ("ECG",)


def test_description_may_be_anything(tmp_path: Path) -> None:
    """Digits, spaces, brackets and letters beyond ASCII belong to the name of the lead."""
    path = one_lead(tmp_path, "{f} 16 200/mV 16 0 0 0 0 12-lead (V1) / 5,0 ECG \u00e9tage 2")
    assert read_record(path).leads == ("12-lead (V1) / 5,0 ECG \u00e9tage 2",)


@pytest.mark.parametrize(
    "record",
    [
        "h 1 250 500 2014-05-08 05:05:15",
        "h 1 250 500 00:00:00 2006",
        "h.mat 1 250 500 05-May-2020 09:49:17",
        "h 1 250 500 11:00:00.123456 [01/02/2003]",
        "\ufeffh 1 250/360(12.5) 500 1:2 31.12.99",
        "h 1 2.5e2 500",
        "h 1 250.",
        "h 1 250 0",
        "# Jos\u00e9\n\nh\t1\t250\t500",
        "another-name_1 1",
    ],
)
def test_record_line_gives_what_is_needed(record: str, tmp_path: Path) -> None:
    """Sampling rate and length are read, whatever the date and name; a missing length is that of the file."""
    recording = read_record(one_lead(tmp_path, "{f} 16 200 16 0 0 0 0 ECG", record))
    assert (recording.fs, len(recording.signal)) == (250, 500)


@pytest.mark.parametrize(
    ("record", "cause"),
    [
        ("h 1 249,97 500", "'249,97' is not a sampling rate"),
        ("h 1 250Hz 500", "sampling rate"),
        ("h 1 nan 500", "sampling rate"),
        ("h 1 -250 500", "above 0"),
        ("h 1 1e999 500", "above 0"),
        ("h 1 250 500,0", "'500,0' is not a number of samples"),
        ("h 1 250 12:00:00 2006", "number of samples"),
        ("h one 250 500", "number of signals"),
        ("h", "number of signals"),
        ("h 1 250(5) 500", "sampling rate"),
    ],
)
def test_record_line_that_is_not_understood(record: str, cause: str, tmp_path: Path) -> None:
    """The message quotes the wrong field."""
    with pytest.raises(ValueError, match=cause) as refusal:
        read_record(one_lead(tmp_path, "{f} 16 200 16 0 0 0 0 ECG", record))
    assert "download" not in str(refusal.value)


def test_one_bad_signal_does_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An ECG is read in spite of other signals that cannot be; each of those says why if it is asked for."""
    bad = {
        "V1": ("{f}", "nan/mV", "gain of nan"),
        "V2": ("{f}", "200/furlong", "furlong"),
        "V3": ("gone.dat", "200/mV", "gone.dat is missing"),
        "V4": ("{f}:", "200/mV", "missing"),
        "V5": ("{f}", "inf/mV", "gain of inf"),
    }
    lines = [f"{file} 16 {gain} 16 0 0 0 0 {lead}" for lead, (file, gain, _) in bad.items()]
    lines = sorted([*lines, "{f} 16 200/mV 16 0 0 0 0 ECG"], key=lambda line: not line.startswith("{f} "))
    content = np.repeat(ECG[:, None], 4, axis=1) + np.arange(4)
    path = write(tmp_path, "h", "h 6 250 500\n" + "\n".join(lines), content.astype("<i2").tobytes())
    with caplog.at_level(logging.WARNING):
        recording = read_record(path)
    assert recording.leads == (open_lead(path).lead,) == ("ECG",)
    np.testing.assert_allclose(recording.signal[:, 0], (ECG + 3) / 200, rtol=1e-6)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert [message in said for _, _, message in bad.values()] == [True, False, True, True, True]
    for lead, (_, _, message) in bad.items():
        for read in (lambda name: read_record(path, leads=[name]), lambda name: open_lead(path, lead=name)):
            with pytest.raises((ValueError, FileNotFoundError), match=message):
                read(lead)


def test_negative_gain_is_calibrated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A negative gain does not mean uncalibrated."""
    with caplog.at_level(logging.WARNING):
        recording = read_record(one_lead(tmp_path, "{f} 16 -200/mV 16 0 0 0 0 ECG"))
    np.testing.assert_allclose(recording.signal[:, 0], -ECG / 200, rtol=1e-6)
    assert caplog.records == []


def test_messages_are_bounded(tmp_path: Path) -> None:
    """A header of a megabyte gives a short message, and quickly."""
    long, number = "x" * 900_000, "1" * 900_000
    for line in (
        f"{{f}} 16 {number}e",
        f"{{f}} 16 {long}/mV",
        f"{{f}} {long}",
        f"{{f}} 16 200/{long}",
        f"{long} 16 200/mV",
    ):
        with pytest.raises((ValueError, OSError)) as refusal:
            read_record(one_lead(tmp_path, line))
        assert len(str(refusal.value)) < 1000


def test_damage_never_surprises(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of 600 damaged copies of records in segments, FLAC and packed formats, each is read or refused with a message."""
    digital = rng.integers(-500, 500, (400, 2))
    segment(tmp_path, "a", digital, "II V5")
    segment(tmp_path, "b", digital[:, :1], "V5")
    (tmp_path / "lay.hea").write_text("lay 2 250 0\n~ 0 100/mV 0 0 0 0 0 II\n~ 0 100/mV 0 0 0 0 0 V5\n")
    (tmp_path / "v.hea").write_text("v/4 2 250 1200\nlay 0\na 400\n~ 400\nb 400\n")
    write(
        tmp_path, "p", "p 2 250 400\n{f} 310 200 10 0 0 0 0 II\n{f} 310 200 10 0 0 0 0 V5\n", pack_310(digital.ravel())
    )
    soundfile.write(tmp_path / "f.flac", (digital << 16).astype(np.int32), 250, "PCM_16", format="FLAC")
    (tmp_path / "f.hea").write_text("f 2 250 400\nf.flac 516 200 16 0 0 0 0 II\nf.flac 516 200 16 0 0 0 0 V5\n")
    files = [
        tmp_path / name for name in ("a.hea", "a.dat", "lay.hea", "v.hea", "v.hea", "p.hea", "p.dat", "f.hea", "f.flac")
    ]
    read, messages = 0, []
    for i in range(600):
        file = files[i % len(files)]
        original = file.read_bytes()
        damaged = bytearray(original)
        at = int(rng.integers(len(damaged)))
        match rng.integers(4):
            case 0:
                damaged[at] ^= 1 << int(rng.integers(8))
            case 1:
                del damaged[at : at + int(rng.integers(1, 9))]
            case 2:
                damaged[at:at] = rng.choice([b"9" * 12, b"-", b"/", b" ", b"\n", b"\x00", b"(", b"1e999", b"~"])
            case 3:
                del damaged[at:]
        file.write_bytes(damaged)
        for name in "avpf":
            try:
                read += read_record(tmp_path / name).signal.size > 0
                list(open_lead(tmp_path / name).pieces())
            except (ValueError, OSError) as error:
                messages.append(str(error))
        file.write_bytes(original)
    assert read > 600
    assert all(str(tmp_path) in message and len(message) < 1000 for message in messages)
    assert read_record(tmp_path / "v").signal.shape == (1200, 2)
