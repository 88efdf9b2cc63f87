"""What a scan is written as says what the scan says."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import wfdb

from ecg_shock import Advisor, AlarmRule, Recording, Scan, ShockableEpisode, scan
from ecg_shock.data import lead as pieces
from ecg_shock.data.lead import open_lead
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.inference.scan_files import COLUMNS, _envelope, _limits, clock, draw, write_annotations, write_scan


@pytest.fixture(scope="module")
def found() -> tuple[Recording, Scan]:
    """Scan a made-up recording with every rhythm and a gap."""
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
    """Whatever the recording is called, its files lie in the folder."""
    recording, result = found
    written = write_scan(result, open_lead(recording), tmp_path / "new" / "folder")
    assert [path.name for path in written] == [f"made_up__1.{suffix}" for suffix in ("shk", "csv", "json", "png")]
    assert all(path.stat().st_size for path in written)


def test_csv_has_every_window(found, tmp_path: Path) -> None:
    """Row by row, with an empty probability where a window is unusable."""
    recording, result = found
    path = write_scan(result, open_lead(recording), tmp_path)[1]
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
    text = write_scan(result, open_lead(recording), tmp_path)[2].read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=pytest.fail)
    assert [e["onset_s"] for e in content["episodes"]] == [e.onset_s for e in result.episodes]
    assert content["episodes"]
    assert content["unusable_windows"] == (~result.usable).sum() > 0
    assert content["alarm"] == {"k": 5, "n": 8}


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
    """Rhythm changes and alarms, in order of time, at the record's own rate."""
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


@pytest.mark.parametrize("n_samples", [5, COLUMNS - 1, COLUMNS, 3 * COLUMNS + 17])
def test_envelope_is_the_range_of_each_column(rng, monkeypatch: pytest.MonkeyPatch, n_samples: int) -> None:
    """Against a plain loop, with invalid samples, and pieces that end within columns."""
    monkeypatch.setattr(pieces, "PIECE_S", 7.0)
    signal = rng.normal(size=(n_samples, 1)).astype(np.float32)
    signal[n_samples // 3 : n_samples // 2] = np.nan
    middle_s, low, high = _envelope(open_lead(Recording(signal, 10.0, ("II",))))
    columns = min(COLUMNS, n_samples)
    for i in range(columns):
        inside = signal[i * n_samples // columns : (i + 1) * n_samples // columns, 0]
        inside = inside[np.isfinite(inside)]
        if len(inside):
            assert (low[i], high[i]) == (inside.min(), inside.max())
        else:
            assert np.isnan([low[i], high[i]]).all()
    assert (np.diff(middle_s) > 0).all()


@pytest.mark.parametrize("seconds", [8.0, 300.0, 9000.0])
def test_picture_of_a_short_and_a_long_recording(tmp_path: Path, seconds: float) -> None:
    """It is drawn, also where not a single sample is valid."""
    for signal in (np.sin(np.arange(round(125 * seconds)) / 4), np.full(round(125 * seconds), np.nan)):
        recording = Recording(signal[:, None], 125.0, ("II",), name="made")
        path = write_scan(scan(recording, step_s=5.0), open_lead(recording), tmp_path)[3]
        assert matplotlib.image.imread(path).std() > 0.05


def test_a_single_window_is_seen(tmp_path: Path) -> None:
    """Another probability of a recording's only window is another picture."""
    recording = Recording(np.sin(np.arange(625) / 4)[:, None], 125.0, ("II",), name="made")
    result = scan(recording)
    pictures = []
    for probability in (0.2, 0.9):
        draw(replace(result, probability=np.array([probability])), open_lead(recording), tmp_path / "made.png")
        pictures.append(matplotlib.image.imread(tmp_path / "made.png"))
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize(
    ("rare", "expected"),
    [
        (1.5, (-1.2, 1.7)),  # as the QRS complexes of a few seconds are: all is drawn
        (1e30, (-1.2, 2.2)),  # the 2 mV of the ECG are half, but for the margins
        (np.nan, (-1.2, 1.2)),
    ],
)
def test_rare_peaks_are_drawn_and_artefacts_are_cut(rare: float, expected: tuple[float, float]) -> None:
    """Two columns of 3,000 reach further than all others."""
    high = np.ones(3000)
    high[[7, 800]] = rare
    assert _limits(-np.ones(3000), high) == pytest.approx(expected)


def test_clock() -> None:
    """Rounding carries over to minutes and hours."""
    assert [clock(s) for s in (0, 59.96, 3599.99, 86_400)] == ["0:00:00.0", "0:01:00.0", "1:00:00.0", "24:00:00.0"]
