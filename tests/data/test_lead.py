"""A lead that is read piece by piece is the lead that is read at once."""

from __future__ import annotations

from pathlib import Path

import edfio
import numpy as np
import pytest
import wfdb

from ecg_shock.data import lead as pieces
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
    """Every read is of a piece at most."""
    monkeypatch.setattr(pieces, "PIECE_S", 600.0)
    asked = []
    read = wfdb.rdrecord
    monkeypatch.setattr(wfdb, "rdrecord", lambda *a, **k: (asked.append(k["sampto"] - k["sampfrom"]), read(*a, **k))[1])
    list(open_lead(record).pieces())
    assert len(asked) == 5
    assert max(asked) == pieces.PIECE_S * 128


def test_damaged_samples_are_found_at_the_end(record: Path) -> None:
    """A flipped bit does not go unnoticed: the sum of all pieces is held against the header."""
    content = bytearray(record.with_suffix(".dat").read_bytes())
    content[400_000] ^= 1
    record.with_suffix(".dat").write_bytes(content)
    with pytest.raises(ValueError, match="do not add up to the checksum"):
        list(open_lead(record).pieces())


def test_truncated_file_is_refused_before_it_is_read(record: Path) -> None:
    """The size is held against the header."""
    content = record.with_suffix(".dat").read_bytes()
    record.with_suffix(".dat").write_bytes(content[:-2])
    with pytest.raises(ValueError, match="bytes, but its header promises"):
        open_lead(record)


def test_no_such_lead(record: Path) -> None:
    """The error names the leads there are."""
    with pytest.raises(ValueError, match="choose from"):
        open_lead(record, lead="aVR")
    with pytest.raises(ValueError, match="choose from"):
        open_lead(Recording(np.zeros((9, 1)), fs=9.0, leads=("II",)), lead="aVR")


@pytest.mark.parametrize("fs", [5e-324, 1e-3, 1e308])
def test_odd_rates_still_come_in_pieces(fs: float) -> None:
    """At rates where a piece is no sample at all, or more than there are, nothing is lost."""
    lead = open_lead(Recording(np.arange(7.0)[:, None], fs=fs, leads=("II",)))
    assert np.concatenate(list(lead.pieces())).tolist() == list(range(7))


@pytest.mark.parametrize("suffix", [".edf", ".npy"])
def test_one_lead_alone_is_kept_of_other_files(tmp_path: Path, rng: np.random.Generator, suffix: str) -> None:
    """Of EDF and NumPy files with three leads the first voltage lead is read, and no other is in memory."""
    signal = rng.normal(0, 0.5, (250 * 60, 3)).astype(np.float32)
    path = tmp_path / f"ecg{suffix}"
    if suffix == ".npy":
        np.save(path, signal)
    else:
        names = (("SpO2", "%"), ("II", "mV"), ("V5", "mV"))
        signals = [
            edfio.EdfSignal(column.astype(float), 250, label=name, physical_dimension=unit)
            for column, (name, unit) in zip(signal.T, names, strict=True)
        ]
        edfio.Edf(signals).write(path)
    given = {"fs": 250.0, "units": "mV"} if suffix == ".npy" else {}
    whole = read_record(path, **given)
    opened = open_lead(path, **given)
    np.testing.assert_array_equal(np.concatenate(list(opened.pieces())), whole.signal[:, 0])
    assert opened.lead == whole.leads[0] == ("1" if suffix == ".npy" else "II")
    assert opened._signal.base is None or opened._signal.base.shape[1] == 1


@pytest.mark.parametrize("name", ["missing.edf", "missing.npy"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """Looking for the first lead does not hide that there is no file."""
    with pytest.raises(FileNotFoundError, match=name):
        open_lead(tmp_path / name, fs=250.0, units="mV")


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["vfdb/426", "cudb/cu01", "mitdb/100"])
def test_real_records(recordings_dir: Path, name: str) -> None:
    """Formats 212 and 16 of the databases, whose checksums hold."""
    np.testing.assert_array_equal(
        np.concatenate(list(open_lead(recordings_dir / name).pieces())), read_record(recordings_dir / name).signal[:, 0]
    )
