"""Reference segments of hand-made records."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from ecg_shock import Episode, Recording
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.reference import reference_segments
from ecg_shock.rhythms import RHYTHMS

FS = 250.0


def wave(seconds: float, hz: float, mv: float) -> np.ndarray:
    """Make a sine of a rate and a peak-to-peak amplitude."""
    return mv / 2 * np.sin(2 * np.pi * hz * np.arange(round(seconds * FS)) / FS)


def labelled(*parts: tuple[str, np.ndarray]) -> Recording:
    """Join signals with their rhythms; those named ``""`` get no label."""
    episodes, at = [], 0.0
    for rhythm, signal in parts:
        until = at + len(signal) / FS
        if rhythm:
            episodes.append(Episode(at, until, rhythm))
        at = until
    signal = np.concatenate([signal for _, signal in parts])[:, None]
    return Recording(signal=signal, fs=FS, leads=("II",), episodes=tuple(episodes))


def kinds(recording: Recording, **options: LabelPolicy) -> list[str]:
    """Return the kind of each segment."""
    return [segment.kind for segment in reference_segments(recording, 5.0, 1.0, **options)]


@pytest.mark.parametrize(
    ("rhythm", "signal", "kind"),
    [
        ("vf", wave(20, 5, 1.0), "shockable"),
        ("vf", wave(20, 5, 0.1), "intermediate"),
        ("vt", wave(20, 3, 1.0), "shockable"),  # 180 bpm
        ("vt", wave(20, 2, 1.0), "intermediate"),  # 120 bpm
        ("vt", np.zeros(5000), "intermediate"),  # without any rate
        ("asystole", wave(20, 5, 0.02), "nonshockable"),
        ("asystole", wave(20, 5, 1.0), "uncounted"),
        ("noise", wave(20, 5, 1.0), "uncounted"),
        ("unlabelled", wave(20, 5, 1.0), "uncounted"),
        ("", wave(20, 5, 1.0), "uncounted"),
        ("organised", wave(20, 5, 1.0), "nonshockable"),
        *((rhythm, wave(20, 5, 1.0), "nonshockable") for rhythm in RHYTHMS if rhythm not in ("vf", "vt", "asystole")),
    ],
)
def test_segments_are_labelled_as_windows_are(rhythm: str, signal: np.ndarray, kind: str) -> None:
    """The kind depends on rhythm, amplitude and rate."""
    sinus = ("normal_sinus", wave(10, 1.2, 1.0))
    result = kinds(labelled(sinus, (rhythm, signal), sinus))
    assert result == ([kind] if rhythm == "normal_sinus" else ["nonshockable", kind, "nonshockable"])


@pytest.mark.parametrize("seconds", [0.4, 1.5, 4.9, 5.0, 5.1, 30.0])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_short_segments_are_measured_too(seconds: float, place: str) -> None:
    """Fast VT and coarse VF of any length, also at the ends of the record, among calm of the same kind."""
    calm = ("paced", wave(10, 5, 1.0))
    for rhythm in ("vf", "vt"):
        parts = {"first": [1, 0], "middle": [0, 1, 0], "last": [0, 1]}[place]
        made = labelled(*(((rhythm, wave(seconds, 5, 1.0)), calm)[part == 0] for part in parts))
        assert kinds(made) == [("nonshockable", "shockable")[part] for part in parts]


def test_median_of_the_windows_decides() -> None:
    """VF that is coarse most of the time is coarse, by the limits of the given policy."""
    mostly = [labelled(("vf", np.concatenate([wave(a, 5, 1.0), wave(b, 5, 0.1)]))) for a, b in ((40, 20), (20, 40))]
    assert [kinds(made) for made in mostly] == [["shockable"], ["intermediate"]]
    assert kinds(mostly[1], policy=LabelPolicy(coarse_vf_mv=0.06, asystole_mv=0.05)) == ["shockable"]
    slow = labelled(("vt", wave(20, 2, 1.0)))
    assert kinds(slow, policy=LabelPolicy(rapid_vt_bpm=110.0)) == ["shockable"]


def test_invalid_samples_do_not_make_vf_fine() -> None:
    """Windows with missing samples are not measured in, unless there are no others."""
    signal = wave(20, 5, 1.0)
    signal[: 12 * 250] = np.nan
    assert kinds(labelled(("vf", signal))) == ["shockable"]
    signal[:] = np.nan
    signal[0] = 0.0
    assert kinds(labelled(("vf", signal))) == ["intermediate"]


def test_segments_cover_the_record() -> None:
    """Gaps are unlabelled, adjacent episodes of one rhythm are joined, and a record may have no labels at all."""
    episodes = (Episode(2.0, 5.0, "paced", "a"), Episode(5.0, 7.0, "paced", "b"), Episode(9.0, 12.0, "organised"))
    made = Recording(signal=np.zeros((5000, 1)), fs=FS, leads=("II",), episodes=episodes)
    spans = [(s.start_s, s.end_s, s.rhythm) for s in reference_segments(made, 5.0, 1.0)]
    assert spans == [
        (0.0, 2.0, "unlabelled"),
        (2.0, 7.0, "paced"),
        (7.0, 9.0, "unlabelled"),
        (9.0, 12.0, "organised"),
        (12.0, 20.0, "unlabelled"),
    ]
    assert [asdict(s) for s in reference_segments(replace(made, episodes=()), 5.0, 1.0)] == [
        {"start_s": 0.0, "end_s": 20.0, "kind": "uncounted", "rhythm": "unlabelled"}
    ]
    with pytest.raises(ValueError, match="an episode has the rhythm 'waltz'; allowed are"):
        reference_segments(replace(made, episodes=(Episode(0.0, 1.0, "waltz"),)), 5.0, 1.0)
