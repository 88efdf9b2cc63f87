"""A lead read piece by piece equals a lead read at once."""

from __future__ import annotations

from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb

from ecg_shock.data import lead as pieces
from ecg_shock.data import wfdb_files
from ecg_shock.data.lead import open_lead
from ecg_shock.data.readers import read_record
from ecg_shock.data.recordings import Recording


@pytest.fixture
def record(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Write 45 minutes of two leads at 128 Hz, with invalid samples in the first."""
    signal = rng.normal(0, 0.5, (45 * 60 * 128 + 77, 2))
    signal[1000:1300, 0] = np.nan
    wfdb.wrsamp(
        "long", fs=128, units=["mV", "uV"], sig_name=["II", "V5"], p_signal=signal, fmt=["16"] * 2,
        adc_gain=[200.0, 100.0], baseline=[0, 0], write_dir=str(tmp_path),
    )  # fmt: skip
    return tmp_path / "long"


@pytest.mark.parametrize("lead", [None, "II", "V5"])
def test_pieces_are_what_read_record_reads(record: Path, lead: str | None) -> None:
    """Sample for sample, with NaN where invalid, from files and from memory."""
    whole = read_record(record)
    expected = whole.signal[:, 0 if lead is None else whole.leads.index(lead)]
    for opened in (open_lead(record, lead=lead), open_lead(whole, lead=lead), open_lead(record, fs=128, lead=lead)):
        np.testing.assert_array_equal(np.concatenate(list(opened.pieces())), expected)
        np.testing.assert_array_equal(opened.read(900, 1400), expected[900:1400])
        assert (opened.n_samples, opened.fs, opened.name) == (
            len(expected),
            128.0,
            "long" if lead is None else opened.name,
        )


def test_wfdb_record_is_never_read_whole(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No read is longer than a piece."""
    monkeypatch.setattr(pieces, "PIECE_S", 600.0)
    asked = []
    read = wfdb_files._Record._read_digital
    monkeypatch.setattr(
        wfdb_files._Record,
        "_read_digital",
        lambda self, channels, *span: (asked.append(span), read(self, channels, *span))[1],
    )
    list(open_lead(record).pieces())
    assert asked[0] == (0, pieces.PIECE_S * 128)
    assert len(asked) == 5
    assert max(last - first for first, last in asked) == pieces.PIECE_S * 128


def test_damaged_samples_are_found_at_the_end(record: Path) -> None:
    """A flipped bit is noticed: the sum of all pieces is checked against the header."""
    content = bytearray(record.with_suffix(".dat").read_bytes())
    content[400_000] ^= 1
    record.with_suffix(".dat").write_bytes(content)
    with pytest.raises(ValueError, match="do not add up to the checksum"):
        list(open_lead(record).pieces())


def test_truncated_file_is_refused_before_it_is_read(record: Path) -> None:
    """The size is checked against the header."""
    content = record.with_suffix(".dat").read_bytes()
    record.with_suffix(".dat").write_bytes(content[:-2])
    with pytest.raises(ValueError, match="bytes, but the record's header says"):
        open_lead(record)


def test_no_such_lead(record: Path) -> None:
    """The error lists the leads."""
    with pytest.raises(ValueError, match="choose from"):
        open_lead(record, lead="aVR")
    with pytest.raises(ValueError, match="choose from"):
        open_lead(Recording(np.zeros((9, 1)), fs=9.0, leads=("II",)), lead="aVR")


@pytest.mark.parametrize("fs", [5e-324, 1e-3, 1e308])
def test_odd_rates_still_come_in_pieces(fs: float) -> None:
    """No sample is lost at sampling rates at which a piece is less than a sample or more than the recording."""
    lead = open_lead(Recording(np.arange(7.0)[:, None], fs=fs, leads=("II",)))
    assert np.concatenate(list(lead.pieces())).tolist() == list(range(7))


def test_one_lead_alone_is_kept_of_a_numpy_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """Of three columns, none of which says ECG, the chosen one alone is in memory."""
    signal = rng.normal(0, 0.5, (250 * 60, 3)).astype(np.float32)
    np.save(tmp_path / "ecg.npy", signal)
    opened = open_lead(tmp_path / "ecg.npy", fs=250.0, units="mV", lead="2")
    np.testing.assert_array_equal(np.concatenate(list(opened.pieces())), signal[:, 1])
    assert opened._signal.base is None or opened._signal.base.shape[1] == 1
    with pytest.raises(ValueError, match=r"choose a lead with lead= or leads= \(--lead\) from \['1', '2', '3'\]"):
        open_lead(tmp_path / "ecg.npy", fs=250.0, units="mV")


def test_edf_stays_on_disk(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ECG lead of an EDF file is read piece by piece, and equals that of `read_record`."""
    monkeypatch.setattr(pieces, "PIECE_S", 7.0)
    signals = [
        edfio.EdfSignal(rng.normal(0, 0.5, 250 * 60), 250, label=name, physical_dimension=unit)
        for name, unit in (("SpO2", "%"), ("EEG C3-M2", "uV"), ("V5", "mV"), ("II", "mV"))
    ]
    edfio.Edf(signals).write(tmp_path / "ecg.edf")
    opened = open_lead(tmp_path / "ecg.edf")
    read = list(opened.pieces())
    assert (opened.lead, [len(piece) for piece in read]) == ("V5", [1750] * 8 + [1000])
    np.testing.assert_allclose(np.concatenate(read), signals[2].data, rtol=1e-6)
    np.testing.assert_array_equal(opened.read(749, 1251), np.concatenate(read)[749:1251])
    np.testing.assert_array_equal(np.concatenate(read), read_record(tmp_path / "ecg.edf").signal[:, 1])


@pytest.mark.parametrize("name", ["missing.edf", "missing.npy"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A missing file is reported, and not a missing lead."""
    with pytest.raises(FileNotFoundError, match=name):
        open_lead(tmp_path / name, fs=250.0, units="mV")


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["vfdb/426", "cudb/cu01", "mitdb/100"])
def test_real_records(recordings_dir: Path, name: str) -> None:
    """Formats 212 and 16 of the databases, whose checksums hold."""
    np.testing.assert_array_equal(
        np.concatenate(list(open_lead(recordings_dir / name).pieces())), read_record(recordings_dir / name).signal[:, 0]
    )


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("EEG C3-M2", "EOG-L", "ECG II"), "ECG II"),
        (("EEG (C3-M2)", "ECG"), "ECG"),
        (("ECG", "ECG-2"), "ECG"),
        (("MLII", "V5"), "MLII"),
        (("V5", "MLII"), "V5"),
        (("ABP", "PLETH", "RESP", "MCL1"), "MCL1"),
        (("Chin EMG", "EOG V", "lead I"), "lead I"),
        (("i", "ii", "avr"), "i"),
        (("mod.V1", "D3"), "mod.V1"),
        (("EEG Fpz-Cz", "EEG EKG-Ref"), "EEG EKG-Ref"),
        (("F3-A2", "ekg1"), "ekg1"),
        (("anything",), "anything"),
        (("1", "2"), None),
        (("lead0", "lead1"), None),
        (("EEG C3",), None),
        (("EEG C3", "Position"), None),
        (("Pleth", "unnamed"), None),
    ],
)
def test_lead_is_the_first_ecg_by_its_name(names: tuple[str, ...], chosen: str | None) -> None:
    """One lead or several; if no name says ECG, the error lists them and says how to choose."""
    recording = Recording(np.zeros((2000, len(names))) + np.arange(len(names)), fs=250.0, leads=names)
    if chosen is None:
        for choose in (lambda: open_lead(recording), lambda: recording.strip(0, 5)):
            with pytest.raises(
                ValueError, match=r"no lead with the name of an ECG lead; choose a lead with lead= or leads= \(--lead\)"
            ):
                choose()
        return
    assert open_lead(recording).lead == chosen
    assert recording.strip(1, 5).leads == open_lead(recording).strip(1, 5).leads == (chosen,)
    assert (recording.strip(1, 5).signal == names.index(chosen)).all()
