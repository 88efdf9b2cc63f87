"""The readers give the samples that were written, in mV, and refuse what is damaged or ambiguous."""

from __future__ import annotations

import logging
from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb

from ecg_shock.data.annotations import read_labels
from ecg_shock.data.lead import open_lead
from ecg_shock.data.manifests import data_dir, load_manifest
from ecg_shock.data.readers import read_record
from ecg_shock.data.recordings import Episode, Recording

INVALID = {"80": -(2**7), "212": -(2**11), "16": -(2**15), "24": -(2**23), "32": -(2**31)}


def write_record(folder: Path, digital: np.ndarray, *, fmt: str = "16", units: str = "mV", gain: float = 100.0) -> Path:
    """Write a WFDB record "r" at 250 Hz whose samples are digital / gain, and return its path."""
    n_leads = digital.shape[1]
    wfdb.wrsamp(
        "r",
        fs=250,
        units=[units] * n_leads,
        sig_name=[f"lead{i}" for i in range(n_leads)],
        d_signal=digital.astype(np.int64),
        fmt=[fmt] * n_leads,
        adc_gain=[gain] * n_leads,
        baseline=[0] * n_leads,
        write_dir=str(folder),
    )
    return folder / "r"


@pytest.fixture
def digital(rng: np.random.Generator) -> np.ndarray:
    """400 samples of two leads that fit all formats, the smallest of which has 8 bits."""
    return rng.integers(-100, 100, (400, 2))


@pytest.fixture
def record(tmp_path: Path, digital: np.ndarray) -> Path:
    """Path of a WFDB record of `digital` at 100 units/mV."""
    return write_record(tmp_path, digital)


def edit_header(record: Path, old: str, new: str) -> None:
    """Replace text in a header that has to be there."""
    header = record.with_suffix(".hea")
    text = header.read_text()
    assert old in text
    header.write_text(text.replace(old, new))


@pytest.mark.parametrize("fmt", INVALID)
def test_wfdb_formats_give_the_samples_that_were_written(fmt: str, tmp_path: Path, digital: np.ndarray) -> None:
    """Every format gives digital / gain in mV as float32, and NaN for the format's invalid value."""
    digital[7, 1] = INVALID[fmt]
    expected = digital / 100.0
    expected[7, 1] = np.nan
    recording = read_record(write_record(tmp_path, digital, fmt=fmt))
    assert recording.signal.dtype == np.float32
    np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)
    assert (recording.fs, recording.leads, recording.name) == (250.0, ("lead0", "lead1"), "r")


@pytest.mark.parametrize("ending", ["", ".hea", ".dat"])
def test_wfdb_record_is_found_by_any_of_its_files(ending: str, record: Path) -> None:
    """The paths of the record, its header and its signal file are equivalent."""
    assert read_record(f"{record}{ending}").name == "r"


def test_challenge_mat_file(tmp_path: Path, digital: np.ndarray) -> None:
    """A .mat signal as in the PhysioNet challenges is read past its 24-byte header, with a checksum of 0."""
    (tmp_path / "A1.mat").write_bytes(bytes(24) + digital.astype("<i2").tobytes())
    lines = [f"A1.mat 16+24 1000/mV 16 0 {first} 0 0 {name}" for first, name in zip(digital[0], "ab", strict=True)]
    (tmp_path / "A1.hea").write_text("\n".join(["A1 2 300 400 05:05:15 1/05/2014", *lines]))
    recording = read_record(tmp_path / "A1.mat")
    np.testing.assert_allclose(recording.signal, digital / 1000, rtol=1e-6)
    assert recording.fs == 300


@pytest.mark.parametrize(("units", "mv"), [("mV", 1), ("uV", 1e-3), ("V", 1e3)])
def test_wfdb_units(units: str, mv: float, tmp_path: Path, digital: np.ndarray) -> None:
    """Every voltage unit becomes mV; arguments that match are accepted, and others refused."""
    path = write_record(tmp_path, digital, units=units)
    recording = read_record(path, units=units, fs=250)
    np.testing.assert_allclose(recording.signal, digital / 100 * mv, rtol=1e-6)
    with pytest.raises(ValueError, match="but units= "):
        read_record(path, units={"mV": "V"}.get(units, "mV"))
    with pytest.raises(ValueError, match=r"of 250 Hz, but fs= .--fs. is 360"):
        read_record(path, fs=360)


def test_wfdb_without_units_is_in_mv(record: Path, digital: np.ndarray) -> None:
    """A header that leaves the unit out means mV, as the WFDB format says."""
    edit_header(record, "(0)/mV", "")
    np.testing.assert_allclose(read_record(record).signal, digital / 100, rtol=1e-6)


def test_wfdb_header_with_a_micro_sign_is_refused(record: Path) -> None:
    """The WFDB library would drop the sign and read V: a million times too much."""
    header = record.with_suffix(".hea")
    header.write_bytes(header.read_text().replace("mV", "\u00b5V").encode())
    assert wfdb.rdheader(str(record)).units == ["V", "V"]
    with pytest.raises(ValueError, match="Write uV"):
        read_record(record)


def test_wfdb_without_gain_warns(record: Path, digital: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    """A gain of 0 is read at 200 units/mV, and the log says which signal it is."""
    edit_header(record, "100.0(0)/mV 16 0 " + str(digital[0, 0]), f"0(0)/mV 16 0 {digital[0, 0]}")
    with caplog.at_level(logging.WARNING):
        recording = read_record(record)
    np.testing.assert_allclose(recording.signal, digital / [200, 100], rtol=1e-6)
    assert [r.getMessage() for r in caplog.records] == [
        f"{record}.hea: signal 0 is not calibrated; 200 units/mV are assumed"
    ]


def test_wfdb_keeps_voltages_alone(record: Path, digital: np.ndarray) -> None:
    """A pressure channel is excluded; if it is asked for or the only one, that is an error."""
    header = record.with_suffix(".hea")
    lines = header.read_text().splitlines()
    header.write_text("\n".join([lines[0], lines[1].replace("mV", "mmHg"), lines[2]]))
    recording = read_record(record)
    assert recording.leads == ("lead1",)
    np.testing.assert_allclose(recording.signal[:, 0], digital[:, 1] / 100, rtol=1e-6)
    with pytest.raises(ValueError, match="mmHg"):
        read_record(record, leads=["lead0", "lead1"])
    edit_header(record, "mV", "degC")
    with pytest.raises(ValueError, match="the unit of an ECG must be one of"):
        read_record(record)


def test_leads_are_chosen_by_name_in_order(record: Path, digital: np.ndarray) -> None:
    """The order is the caller's, namesakes are numbered, and an unknown name lists the known ones."""
    recording = read_record(record, leads=["lead1", "lead0"])
    assert recording.leads == ("lead1", "lead0")
    np.testing.assert_allclose(recording.signal, digital[:, ::-1] / 100, rtol=1e-6)
    with pytest.raises(ValueError, match=r"no leads \['V9'\]; choose from \['lead0', 'lead1'\]"):
        read_record(record, leads=["V9"])
    with pytest.raises(TypeError, match=r"leads=\['lead1'\]"):
        read_record(record, leads="lead1")
    edit_header(record, "lead1", "lead0")
    assert read_record(record).leads == ("lead0", "lead0-2")


def test_wfdb_of_several_rates(tmp_path: Path, digital: np.ndarray) -> None:
    """Leads with several samples a frame keep them all; leads of different sampling rates have to be chosen."""
    frames = np.concatenate([digital[:, 0].reshape(200, 2), digital[:200, 1:]], axis=1)
    (tmp_path / "m.dat").write_bytes(frames.astype("<i2").tobytes())
    (tmp_path / "m.hea").write_text("m 2 125 200\nm.dat 16x2 100 16 0 0 0 0 fast\nm.dat 16 100 16 0 0 0 0 slow\n")
    fast = read_record(tmp_path / "m", leads=["fast"])
    assert fast.fs == 250
    np.testing.assert_allclose(fast.signal[:, 0], digital[:, 0] / 100, rtol=1e-6)
    with pytest.raises(ValueError, match=r"sampling rates of \[125, 250\] Hz; choose leads of one rate with leads="):
        read_record(tmp_path / "m")


@pytest.mark.parametrize("name", ["../r.dat", "/etc/passwd", "sub/r.dat", "..\\r.dat"])
def test_wfdb_header_cannot_leave_its_folder(name: str, record: Path) -> None:
    """A header that names a file in another folder is refused, even if the file exists."""
    (record.parent / "sub").mkdir()
    (record.parent / "sub" / "r.dat").write_bytes(record.with_suffix(".dat").read_bytes())
    edit_header(record, "r.dat", name)
    with pytest.raises(ValueError, match="in another folder"):
        read_record(record)


@pytest.mark.parametrize("change", [-1, -400, 1, 4000])
def test_wfdb_signal_file_of_another_size(change: int, record: Path) -> None:
    """A signal file that is shorter or longer than its header says is refused with both sizes."""
    signal_file = record.with_suffix(".dat")
    data = signal_file.read_bytes()
    signal_file.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(ValueError, match=rf"has {1600 + change} bytes, but the record's header says 400 samples"):
        read_record(record)


def test_wfdb_length_comes_from_the_file_where_the_header_has_none(record: Path) -> None:
    """A header without a number of samples is read to the end of its file."""
    edit_header(record, "r 2 250 400", "r 2 250")
    assert read_record(record).signal.shape == (400, 2)
    edit_header(record, "r 2 250", "r 2 250 0")
    assert read_record(record).signal.shape == (400, 2)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("r 2 250 400", "r 2 250 4000000000000", "says 4000000000000 samples"),
        ("r 2 250 400", "r 99999999 250 400", "says 99999999 signals, but describes 2"),
        ("r 2 250 400", "r 2 0 400", "above 0"),
        ("r.dat 16 ", "r.dat 516 ", "r.dat is not a FLAC file"),
        ("r.dat 16 ", "r.dat 16x99999999999 ", "says"),
        ("r.dat 16 ", "r.dat 16x0 ", "0 samples per frame"),
        ("r.dat 16 ", "r.dat 16:3 ", "skewed"),
        ("r.dat 16 ", "r.dat 16+3 ", "says"),
        ("r.dat 16 ", "r.dat xyz ", "cannot be read as a WFDB header"),
        ("100.0(0)", "1e-99(0)", "infinite"),
        ("100.0(0)", "1e999(0)", "a gain must be finite"),
    ],
)
def test_wfdb_header_claims_are_checked(old: str, new: str, message: str, record: Path) -> None:
    """An impossible header is refused, and nothing is allocated for it."""
    edit_header(record, old, new)
    with pytest.raises(ValueError, match=message) as error:
        read_record(record)
    assert str(record) in str(error.value)


def test_wfdb_checksum(record: Path) -> None:
    """One flipped bit in the samples is found, unless the header has no checksum."""
    signal_file = record.with_suffix(".dat")
    data = bytearray(signal_file.read_bytes())
    data[801] ^= 1
    signal_file.write_bytes(data)
    with pytest.raises(ValueError, match="'lead0' do not add up"):
        read_record(record)
    header = record.with_suffix(".hea")
    lines = header.read_text().splitlines()
    header.write_text("\n".join([lines[0], *(" ".join(line.split()[:6]) for line in lines[1:])]))
    assert read_record(record).leads == ("1", "2")


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"# only a comment", b"\x00\xff" * 200, b"not a header\n", b"r 0 250\n"]
)
def test_wfdb_garbage_headers(content: bytes, tmp_path: Path) -> None:
    """A header that is empty, binary or text of another kind is a ValueError with its name."""
    (tmp_path / "g.hea").write_bytes(content)
    with pytest.raises(ValueError, match=r"g\.hea"):
        read_record(tmp_path / "g")


@pytest.mark.parametrize("by_variable", [True, False])
def test_record_of_the_data_folder_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, by_variable: bool
) -> None:
    """From an empty folder `vfdb/426` is the fetched one; an existing path comes first; no name leaves the folder."""
    empty, elsewhere = tmp_path / "some" / "empty", tmp_path / "elsewhere"
    empty.mkdir(parents=True)
    monkeypatch.chdir(empty)
    monkeypatch.delenv("ECG_SHOCK_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(elsewhere))
    if by_variable:
        monkeypatch.setenv("ECG_SHOCK_DATA", str(elsewhere))
    folder = data_dir()
    with pytest.raises(FileNotFoundError, match="ecg-shock fetch cudb") as refusal:
        read_record("cudb/cu01")
    assert str(empty) in str(refusal.value)
    assert str(folder) in str(refusal.value)
    for root, database in ((folder, "vfdb"), (folder.parent, "secret")):
        (root / database).mkdir(parents=True)
        write_record(root / database, rng.integers(-900, 900, (400, 1)))
    assert len(read_record("vfdb/r").signal) == len(read_record("vfdb/r.hea").signal) == 400
    assert open_lead("vfdb/r").source == str((folder / "vfdb" / "r.hea").resolve())
    for name in ("../secret/r", "vfdb/../../secret/r", "/secret/r"):
        with pytest.raises(FileNotFoundError, match=r"is missing, and there is no .*r\.hea either; check the path"):
            read_record(name)
    with pytest.raises(IsADirectoryError):
        read_record("vfdb")
    Path("vfdb").mkdir()
    write_record(Path("vfdb"), rng.integers(-900, 900, (300, 1)))
    assert len(read_record("vfdb/r").signal) == 300


def test_nothing_to_read(tmp_path: Path, record: Path) -> None:
    """Missing files and folders are OSErrors, empty and unknown files ValueErrors."""
    with pytest.raises(FileNotFoundError, match="missing"):
        read_record(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match="folder"):
        read_record(tmp_path)
    for name in ("e.edf", "e.csv", "e.npy"):
        (tmp_path / name).touch()
        with pytest.raises(ValueError, match="is empty"):
            read_record(tmp_path / name, fs=250, units="mV")
    (tmp_path / "e.pdf").write_text("x")
    with pytest.raises(ValueError, match=r"unknown suffix '\.pdf'"):
        read_record(tmp_path / "e.pdf")
    record.with_suffix(".dat").unlink()
    with pytest.raises(FileNotFoundError, match=r"r\.dat is missing, although r\.hea names it"):
        read_record(record)


@pytest.mark.parametrize("fs", [0, -250, float("nan"), float("inf"), 10**400])
def test_impossible_rates(fs: float, tmp_path: Path) -> None:
    """A sampling rate has to be finite and above 0."""
    with pytest.raises(ValueError, match="above 0"):
        read_record(tmp_path / "any.csv", fs=fs, units="mV")


@pytest.mark.parametrize("fs", ["250", True, 250j, np.complex128(250)])
def test_rates_that_are_no_numbers(fs: object, tmp_path: Path) -> None:
    """A sampling rate has to be a number."""
    with pytest.raises(TypeError, match="number of Hz"):
        read_record(tmp_path / "any.csv", fs=fs, units="mV")


@pytest.mark.parametrize("fs", [249.97, 250.0, 333.33, 360.1])
def test_strip_has_its_length_wherever_it_begins(fs: float) -> None:
    """A strip has the right number of samples at odd sampling rates and times too, up to the very end."""
    recording = Recording(np.arange(round(30 * fs), dtype=np.float64)[:, None], fs=fs, leads=("II",))
    for length_s in (2.0, 3.3, 10.0):
        for start_s in (0.0, 0.7, 1.003, 12.3456, recording.duration_s - length_s):
            signal = recording.strip(start_s, length_s).signal[:, 0]
            assert len(signal) == round(length_s * fs)
            assert abs(signal[0] - start_s * fs) <= 1


@pytest.mark.parametrize(("start_s", "length_s"), [(np.nan, 5), (np.inf, 5), (0, np.inf), (-1, 5), (6, 5), (0, 0)])
def test_strip_outside_the_recording(start_s: float, length_s: float) -> None:
    """A strip outside the recording is a ValueError that names the recording's length."""
    recording = Recording(np.zeros((2500, 1)), 250, ("II",))
    with pytest.raises(ValueError, match="not within the recording, which lasts 10 s"):
        recording.strip(start_s, length_s)


def write_edf(path: Path, signals: list[edfio.EdfSignal]) -> Path:
    """Write an EDF+ file with an annotation."""
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(1, None, "shock")]).write(path)
    return path


def edf_signal(ecg: np.ndarray, fs: float, label: str, unit: str) -> edfio.EdfSignal:
    """Make an EDF signal with a range of 2000 units."""
    return edfio.EdfSignal(ecg, fs, label=label, physical_dimension=unit, physical_range=(-1000, 1000))


def test_edf(tmp_path: Path, rng: np.random.Generator) -> None:
    """Voltages of an EDF+ file come in mV within its resolution; other channels and annotations are excluded."""
    uv = rng.uniform(-900, 900, (2, 2500))
    signals = [edf_signal(x, 250, name, unit) for x, name, unit in zip(uv, ("II", "V5"), ("uV", "mV"), strict=True)]
    path = write_edf(tmp_path / "a.EDF", [*signals, edf_signal(uv[0], 250, "SpO2", "%")])
    recording = read_record(path)
    assert (recording.fs, recording.leads, recording.signal.shape) == (250, ("II", "V5"), (2500, 2))
    resolution = 2000 / 2**16
    np.testing.assert_allclose(recording.signal, (uv * [[1e-3], [1]]).T, atol=resolution)
    np.testing.assert_allclose(recording.signal[:, 0], uv[0] / 1000, atol=resolution / 1000)
    with pytest.raises(ValueError, match="is 360"):
        read_record(path, fs=360)
    with pytest.raises(ValueError, match="remove units"):
        read_record(path, units="uV")


def test_edf_of_several_rates(tmp_path: Path) -> None:
    """Leads of different sampling rates have to be chosen."""
    path = write_edf(tmp_path / "a.edf", [edf_signal(np.zeros(n), n / 10, f"at{n}", "uV") for n in (1250, 2500)])
    with pytest.raises(
        ValueError, match=r"sampling rates of \[125\.0, 250\.0\] Hz; choose leads of one rate " r"with leads="
    ):
        read_record(path)
    assert read_record(path, leads=["at2500"]).signal.shape == (2500, 1)


def test_edf_damage(tmp_path: Path) -> None:
    """Truncated, overlong, uncalibrated and garbled EDF files are refused, not repaired."""
    path = write_edf(tmp_path / "a.edf", [edf_signal(np.arange(2500) % 900.0, 250, "II", "uV")])
    data = path.read_bytes()
    physical_min = 256 + 2 * (16 + 80 + 8)  # of two signals, the second being the annotations
    assert data[physical_min : physical_min + 5] == b"-1000"
    damaged = [
        data[:100],
        data[:600],
        data[:-2],
        data[: -len(data) // 2],
        data + b"xx",
        data[:physical_min] + b"1000    " + data[physical_min + 8 :],
        data[:physical_min] + b"garbage!" + data[physical_min + 8 :],
        data[:physical_min] + b"nan     " + data[physical_min + 8 :],
        bytes(range(256)) * 20,
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.edf"):
            read_record(path)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits, overwrite, cut, double or insert something somewhere."""
    content = bytearray(data)
    at = int(rng.integers(len(content)))
    length = int(rng.integers(1, 9))
    match rng.integers(6):
        case 0:
            content[at] ^= 1 << int(rng.integers(8))
        case 1:
            content[at : at + length] = rng.bytes(length)
        case 2:
            del content[at:]
        case 3:
            del content[at : at + length]
        case 4:
            content[at:at] = content[at : at + 40]
        case 5:
            content[at:at] = rng.choice([b"9" * 12, b"-", b"/", b" ", b"\n", b"\x00", b"(", b"1e999"])
    return bytes(content)


def test_damaged_wfdb_records_never_surprise(record: Path, rng: np.random.Generator) -> None:
    """Each of 300 damaged copies of a record is read in mV, or refused with one of three errors and a message."""
    times = np.sort(rng.choice(400, 40, replace=False))
    symbols = ["+" if i % 10 == 0 else "N" for i in range(40)]
    notes = ["(N" if symbol == "+" else "" for symbol in symbols]
    wfdb.wrann("r", "atr", times, symbols, aux_note=notes, write_dir=str(record.parent))
    manifest = load_manifest("mitdb")
    files = [record.with_suffix(suffix) for suffix in (".hea", ".dat", ".atr")]
    originals = [file.read_bytes() for file in files]
    messages = []
    for i in range(300):
        target = files[i % 3]
        target.write_bytes(mutate(originals[i % 3], rng))
        for read in (read_record, lambda path: read_labels(path, manifest)):
            try:
                read(record)
            except (ValueError, TypeError, OSError) as error:
                messages.append(str(error))
        target.write_bytes(originals[i % 3])
    assert all(str(record.parent) in message for message in messages)
    assert len(messages) > 150
    assert read_record(record).signal.shape == (400, 2)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"signal": [[0.0]]}, TypeError),
        ({"signal": np.zeros((5, 1), int)}, TypeError),
        ({"signal": np.zeros(5)}, ValueError),
        ({"signal": np.zeros((0, 1))}, ValueError),
        ({"fs": 0}, ValueError),
        ({"leads": ("I", "II")}, ValueError),
        ({"beats_s": np.ones(2)}, ValueError),
        ({"episodes": (Episode(0, 2, "vf"), Episode(1, 3, "vt"))}, ValueError),
    ],
)
def test_recording_checks_itself(change: dict[str, object], error: type[Exception]) -> None:
    """A Recording with inconsistent fields is refused."""
    good = {"signal": np.zeros((5, 1)), "fs": 250, "leads": ("I",)}
    assert Recording(**good).duration_s == 5 / 250
    with pytest.raises(error):
        Recording(**{**good, **change})


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("name", "gain", "baseline"), [("vfdb/418", 200, 0), ("mitdb/100", 200, 1024), ("cudb/cu26", 400, 0)]
)
def test_real_records_against_our_own_decoder(name: str, gain: int, baseline: int, recordings_dir: Path) -> None:
    """Format 212, unpacked here by hand, gives the same mV, and NaN where it holds -2048."""
    low, middle, high = np.fromfile(recordings_dir / f"{name}.dat", np.uint8).astype(int).reshape(-1, 3).T
    flat = np.stack([low + (middle % 16) * 256, high + (middle // 16) * 256], axis=1).ravel()
    flat = np.where(flat > 2047, flat - 4096, flat)
    recording = read_record(recordings_dir / name)
    expected = np.where(flat == -2048, np.nan, (flat - baseline) / gain).reshape(-1, len(recording.leads))
    np.testing.assert_allclose(recording.signal, expected, rtol=1e-6)
