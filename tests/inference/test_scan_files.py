"""The files of a scan hold its results."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_shock import Advisor, AlarmRule, Recording, Scan, ShockableEpisode, scan
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.inference.scan_files import clock, write_annotations, write_scan


@pytest.fixture(scope="module")
def found() -> tuple[Recording, Scan]:
    """Scan a synthetic recording with every rhythm and a gap."""
    recording = next(synthetic_recordings(1))
    signal = recording.signal.copy()
    signal[5000:9000] = np.nan
    recording = Recording(signal=signal, fs=250.0, leads=("II",), name="made up/№1")
    return recording, scan(recording, model=Advisor())


def made(episodes: list[tuple[float, float, float]], duration_s: float = 60.0, fs: float = 250.0) -> Scan:
    """Return a scan with these episodes: onset, end and alarm in seconds."""
    none = np.empty(0)
    return Scan(
        "made", "II", fs, duration_s, 5.0, 1.0, 0.5, AlarmRule(), none, none, none.astype(str), none, none,
        tuple(ShockableEpisode(*times, 0.9) for times in episodes),
    )  # fmt: skip


def test_all_files_have_names_that_wfdb_allows(found, tmp_path: Path) -> None:
    """The files are in the folder, whatever the name of the recording."""
    recording, result = found
    written = write_scan(result, tmp_path / "new" / "folder")
    assert [path.name for path in written] == [f"made_up__1.{suffix}" for suffix in ("shk", "csv", "json")]
    assert all(path.stat().st_size for path in written)


def test_csv_has_every_window(found, tmp_path: Path) -> None:
    """Row by row, with an empty probability where a window is unusable."""
    recording, result = found
    path = write_scan(result, tmp_path)[1]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(r["start_s"]) for r in rows] == pytest.approx(result.start_s)
    assert [float(r["end_s"]) for r in rows] == pytest.approx(result.start_s + 5)
    assert [r["unusable"] for r in rows] == result.reason.tolist()
    assert any(r["unusable"] for r in rows)
    said = np.array([float(r["probability"] or "nan") for r in rows])
    np.testing.assert_allclose(said, result.probability, atol=1e-6)
    assert [r["shock"] == "1" for r in rows] == result.shock.tolist()
    assert [r["alarm"] == "1" for r in rows] == result.alarm.tolist()


def test_json_has_the_episodes(found, tmp_path: Path) -> None:
    """Strict JSON, with the settings."""
    recording, result = found
    text = write_scan(result, tmp_path)[2].read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=pytest.fail)
    assert [e["onset_s"] for e in content["episodes"]] == [e.onset_s for e in result.episodes]
    assert content["episodes"]
    assert content["unusable_windows"] == (~result.usable).sum() > 0
    assert content["alarm"] == {"k": 5, "n": 8}


def test_recordings_in_memory_do_not_replace_each_other(found, tmp_path: Path) -> None:
    """Results of recordings in memory are not overwritten, because two such recordings cannot be told apart."""
    _, result = found
    assert result.source == ""
    written = write_scan(result, tmp_path)
    kept = [path.read_bytes() for path in written]
    with pytest.raises(ValueError, match="the scan of a recording in memory would overwrite it"):
        write_scan(result, tmp_path)
    assert [path.read_bytes() for path in written] == kept


@pytest.mark.parametrize(
    ("episodes", "expected"),
    [
        ([], [(0, "+", "(NONSHOCKABLE")]),
        (
            [(10.0, 20.0, 14.0)],
            [
                (0, "+", "(NONSHOCKABLE"), (2500, "+", "(SHOCKABLE"),
                (3500, '"', "shock alarm"), (5000, "+", "(NONSHOCKABLE"),
            ],
        ),
        # It begins and ends with the recording: there is no other rhythm to change from or to.
        ([(0.0, 60.0, 60.0)], [(0, "+", "(SHOCKABLE"), (14999, '"', "shock alarm")]),
        # The alarm of a short episode comes after its end.
        (
            [(0.0, 4.0, 6.0), (9.0, 10.0, 12.0)],
            [
                (0, "+", "(SHOCKABLE"), (1000, "+", "(NONSHOCKABLE"), (1500, '"', "shock alarm"),
                (2250, "+", "(SHOCKABLE"), (2500, "+", "(NONSHOCKABLE"), (3000, '"', "shock alarm"),
            ],
        ),
    ],
)  # fmt: skip
def test_annotations_are_what_wfdb_reads(tmp_path: Path, episodes: list, expected: list) -> None:
    """Rhythm changes and alarms, in order of time, at the record's own sampling rate."""
    write_annotations(made(episodes), tmp_path / "made.shk")
    read = wfdb.rdann(str(tmp_path / "made"), "shk")
    assert list(zip(read.sample.tolist(), read.symbol, read.aux_note, strict=True)) == expected
    assert read.fs == 250


def test_a_day_can_be_annotated(tmp_path: Path) -> None:
    """Samples beyond what fits into 16 bits, with hours between them."""
    times = [(3600.0 * hour, 3600.0 * hour + 30, 3600.0 * hour + 5) for hour in range(1, 24)]
    write_annotations(made(times, duration_s=86_400.0, fs=249.97), tmp_path / "made.shk")
    read = wfdb.rdann(str(tmp_path / "made"), "shk")
    onsets = [sample for sample, note in zip(read.sample, read.aux_note, strict=True) if note == "(SHOCKABLE"]
    assert onsets == [round(onset * 249.97) for onset, _, _ in times]


def test_clock() -> None:
    """Rounding carries over to minutes and hours."""
    assert [clock(s) for s in (0, 59.96, 3599.99, 86_400)] == ["0:00:00.0", "0:01:00.0", "1:00:00.0", "24:00:00.0"]
