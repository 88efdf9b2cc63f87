"""A scan equals its windows classified one by one, and its episodes follow from the windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_shock import Advisor, AlarmRule, Recording, Scan, read_record, scan
from ecg_shock.data.datasets import DataConfig, load_windows
from ecg_shock.data.lead import open_lead
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.preprocessing import preprocess


@pytest.fixture(scope="module")
def advisor() -> Advisor:
    """Load the model that comes with the package once."""
    return Advisor()


class FakeAdvisor(Advisor):
    """An advisor that gives the answers of a test."""

    def __init__(self, bundle, answers: list[float]) -> None:
        self.bundle = bundle
        self.answers = list(answers)

    def classify(self, strips, fs, filtered):
        """Give the next answers."""
        given, self.answers = self.answers[: len(strips)], self.answers[len(strips) :]
        return np.array(given), np.where(np.isnan(given), "missing", "")


def scan_of(advisor: Advisor, answers: list[float], rule: AlarmRule, step_s: float = 1.0) -> Scan:
    """Scan silence of as many windows as there are answers."""
    seconds = 5 + (len(answers) - 1) * step_s
    fake = FakeAdvisor(advisor.bundle, answers)
    return scan(np.zeros(round(seconds * 125)), 125.0, step_s=step_s, alarm=rule, model=fake)


def one_by_one(advisor: Advisor, signal: np.ndarray, fs: float, step_s: float) -> tuple[list[float], list[str]]:
    """Classify each window of the filtered recording separately."""
    filtered = preprocess(signal, fs)
    probabilities, reasons = [], []
    for k in range(int((len(signal) / fs - 5) / step_s) + 1):
        first, at = round(k * step_s * fs), round(k * step_s * 125)
        strip, window = signal[first : first + round(5 * fs)], filtered[at : at + 625]
        p, reason = advisor.classify(strip[None], fs, window[None])
        probabilities.append(p[0])
        reasons.append(reason[0])
    return probabilities, reasons


@pytest.mark.parametrize(("fs", "step_s"), [(250.0, 1.0), (360.0, 0.4), (125.0, 5.0)])
def test_scan_is_its_windows_one_by_one(advisor, fs: float, step_s: float) -> None:
    """A synthetic recording with every rhythm, in one piece and read from a file in small ones."""
    recording = next(synthetic_recordings(1, fs=fs))
    signal = recording.signal[:, 0].astype(np.float64)
    result = scan(recording, step_s=step_s, model=advisor)
    probabilities, reasons = one_by_one(advisor, signal, fs, step_s)
    np.testing.assert_allclose(result.probability, probabilities, rtol=0, atol=1e-6)
    assert result.reason.tolist() == reasons
    assert result.shock.tolist() == [p >= 0.5 for p in probabilities]
    assert result.start_s.tolist() == pytest.approx([k * step_s for k in range(len(probabilities))])


def test_file_is_read_in_pieces(advisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A WFDB record in pieces of seven seconds and in batches of three windows gives the same scan as in memory."""
    recording = next(synthetic_recordings(1))
    wfdb.wrsamp(
        "made", fs=250, units=["mV"], sig_name=["II"], p_signal=recording.signal.astype(float), fmt=["16"],
        adc_gain=[1000.0], baseline=[0], write_dir=str(tmp_path),
    )  # fmt: skip
    whole = scan(read_record(tmp_path / "made"), model=advisor)
    monkeypatch.setattr("ecg_shock.data.lead.PIECE_S", 7.0)
    monkeypatch.setattr("ecg_shock.inference.streaming.BATCH", 3 * 1250)
    seen: list[float] = []
    result = scan(tmp_path / "made", model=advisor, on_progress=seen.append)
    np.testing.assert_allclose(result.probability, whole.probability, rtol=0, atol=1e-9)
    assert result.episodes == whole.episodes
    assert (result.name, result.lead, result.fs, result.duration_s) == ("made", "II", 250.0, 120.0)
    assert seen == sorted(seen)
    assert seen[-1] == 120


def test_array_recording_and_lead_agree(advisor) -> None:
    """In mV and in µV."""
    recording = next(synthetic_recordings(1))
    signal = recording.signal[:, 0].astype(float)
    results = [
        scan(recording, model=advisor),
        scan(signal, 250.0, model=advisor),
        scan(1000 * signal, 250.0, units="uV", model=advisor),
        scan(open_lead(recording), model=advisor),
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other.probability, results[0].probability, rtol=0, atol=1e-6)


N = np.nan


@pytest.mark.parametrize(
    ("answers", "k", "n", "expected"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0], 1, 1, []),
        # Window 3 alone: its middle is at 5.5 s.
        ([0, 0, 0, 1, 0, 0, 0, 0], 1, 1, [(5.0, 6.0, 8.0)]),
        ([0, 0, 0, 1, 0, 0, 0, 0], 2, 3, []),
        # Two of three with one between; the alarm comes with window 4, which ends at 9 s.
        ([0, 0, 1, 0, 1, 0, 0, 0], 2, 3, [(4.0, 7.0, 9.0)]),
        # Unusable windows count among the n.
        ([0, 0, 1, N, N, 1, 0, 0], 2, 3, []),
        ([0, 0, 1, N, N, 1, 0, 0], 2, 4, [(4.0, 8.0, 10.0)]),
        # The first and the last window reach to the ends of the recording.
        ([1, 1, 1, 0, 0, 0, 0, 0], 2, 3, [(0.0, 5.0, 6.0)]),
        ([0, 0, 0, 0, 0, 1, 1, 1], 2, 3, [(7.0, 12.0, 11.0)]),
        ([1, 1, 1, 1, 1, 1, 1, 1], 2, 3, [(0.0, 12.0, 6.0)]),
        # Two episodes that share no window stay two; those that follow at once, or share one, are one.
        ([1, 1, 0, 0, 0, 0, 1, 1], 2, 2, [(0.0, 4.0, 6.0), (8.0, 12.0, 12.0)]),
        ([1, 0, 1, 0, 0, 1, 0, 1], 2, 3, [(0.0, 5.0, 7.0), (7.0, 12.0, 12.0)]),
        ([0, 1, 1, 0, 1, 1, 0, 0], 2, 2, [(3.0, 5.0, 7.0), (6.0, 8.0, 10.0)]),
        ([0, 1, 1, 0, 1, 1, 0, 0], 2, 3, [(3.0, 8.0, 7.0)]),
    ],
)  # fmt: skip
def test_episodes_by_hand(advisor, answers: list[float], k: int, n: int, expected: list[tuple]) -> None:
    """Onset, end and time of the alarm, of windows of 5 s with a step of 1 s."""
    result = scan_of(advisor, answers, AlarmRule(k, n))
    assert [(e.onset_s, e.end_s, e.alarm_s) for e in result.episodes] == expected


def test_episodes_of_random_answers_are_apart_and_hold_their_alarms(advisor, rng) -> None:
    """In order, apart, with onset before alarm; every alarm lies in one, and every one holds an alarm."""
    for _ in range(200):
        n = int(rng.integers(1, 7))
        rule = AlarmRule(int(rng.integers(1, n + 1)), n)
        answers = np.where(rng.random(60) < 0.1, np.nan, rng.random(60) < rng.random()).tolist()
        step_s = float(rng.choice([0.2, 1.0, 5.0]))
        result = scan_of(advisor, answers, rule, step_s)
        bounds = [t for e in result.episodes for t in (e.onset_s, e.end_s)]
        assert bounds == sorted(bounds)
        assert all(e.onset_s < e.alarm_s and e.onset_s < e.end_s for e in result.episodes)
        counted = np.zeros(60, bool)
        for i in np.flatnonzero(result.alarm):
            recent = np.arange(max(0, i - n + 1), i + 1)
            counted[recent[result.shock[recent]]] = True
        middle_s = result.start_s + 2.5
        covered = np.zeros(60, bool)
        for e in result.episodes:
            inside = (middle_s > e.onset_s) & (middle_s < e.end_s)
            covered |= inside
            assert (result.alarm & (result.start_s + 5 == e.alarm_s)).sum() == 1
            assert e.probability == 1.0
        assert (covered >= counted).all()


@pytest.mark.parametrize(
    ("recording", "given", "error", "says"),
    [
        (np.zeros(1000), {}, ValueError, "fs is missing"),
        (np.zeros((2, 1000)), {"fs": 250}, ValueError, "shape"),
        (np.zeros(0), {"fs": 250}, ValueError, "shape"),
        (np.zeros(1000), {"fs": 250}, ValueError, "give 5 s or more, the length of a window"),
        (np.zeros(9000), {"fs": 250, "units": "mm"}, ValueError, "units"),
        (np.zeros(9000), {"fs": 50}, ValueError, "out of range"),
        (np.arange(9000) / 250, {"fs": 250}, ValueError, "never falls, so it is a time or a counter"),
        (np.zeros(9000), {"fs": 250, "step_s": 0}, ValueError, "step_s"),
        (np.zeros(9000), {"fs": 10**400}, ValueError, "above 0"),
        (np.zeros(9000), {"fs": 250, "alarm": 3}, TypeError, "give an alarm rule"),
        (np.zeros(9000, complex), {"fs": 250}, TypeError, "dtype"),
        (Recording(np.zeros((9000, 1)), 250.0, ("II",)), {"fs": 360}, ValueError, "remove fs"),
        (Recording(np.zeros((9000, 1)), 250.0, ("II",)), {"units": "uV"}, ValueError, "remove units"),
        (Recording(np.zeros((9000, 1)), 250.0, ("II",)), {"lead": "V1"}, ValueError, "choose from"),
        (open_lead(Recording(np.zeros((9000, 1)), 250.0, ("II",))), {"lead": "V1"}, ValueError, "a Lead has its own"),
        (open_lead(Recording(np.zeros((9000, 1)), 250.0, ("II",))), {"fs": 360}, ValueError, "a Lead has its own"),
        (Path("nowhere/at-all"), {}, FileNotFoundError, "neither nowhere/at-all nor"),
    ],
)  # fmt: skip
def test_what_cannot_be_scanned(advisor, recording, given: dict, error: type[Exception], says: str) -> None:
    """The error says what came and what to do."""
    with pytest.raises(error, match=says):
        scan(recording, model=advisor, **given)


def test_recording_without_a_valid_sample_is_unusable(advisor) -> None:
    """All windows are there, none is usable, and nothing is shocked."""
    result = scan(np.full(5000, np.nan), 250.0, model=advisor)
    assert len(result.start_s) == 16
    assert not result.usable.any()
    assert not result.shock.any()
    assert result.episodes == ()


@pytest.mark.recordings
def test_scan_agrees_with_validation(advisor, recordings_dir: Path) -> None:
    """Windows of the labelled episodes have the same probabilities as in validation."""
    windows = load_windows(DataConfig(databases=("cudb",)), recordings_dir)
    for record in ("cu01", "cu30"):
        chosen = windows.select(windows.record == record)
        result = scan(recordings_dir / "cudb" / record, step_s=0.104, model=advisor)  # 13 samples
        probabilities = advisor.probabilities(chosen.ecg)
        compared = 0
        for start_s, p in zip(chosen.start_s, probabilities, strict=True):
            at = round(start_s * 125)
            if at % 13 == 0 and result.usable[at // 13]:
                assert result.probability[at // 13] == pytest.approx(p, abs=1e-5)  # the windows are kept as float32
                compared += 1
        assert compared > 2
