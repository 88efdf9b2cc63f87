"""Corrections change the seconds that they name, and nothing else; whatever does not match is refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from ecg_shock.data.corrected import count_corrected, pin_corrections
from ecg_shock.data.corrections import RHYTHM_OF, Reading, apply_readings, read_corrections
from ecg_shock.data.datasets import (
    DataConfig,
    labelled_recordings,
    load_windows,
    training_recordings,
)
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.data.splits import load_split
from ecg_shock.data.windows import LabelPolicy, cut_windows, label_windows
from ecg_shock.evaluation.reference import reference_segments
from ecg_shock.rhythms import INTERMEDIATE, NONSHOCKABLE, SHOCKABLE

READING: dict[str, Any] = {
    "record": "db/r", "start_s": 20.0, "end_s": 25.0, "old": "normal_sinus", "new": "coarse_vf", "reader": "A. Reader",
}  # fmt: skip


def record(*episodes: Episode, seconds: float = 60.0) -> Recording:
    """Make a small fast sine, which no rule would call coarse VF."""
    signal = 0.05 * np.sin(2 * np.pi * 5 * np.arange(round(seconds * 125)) / 125)[:, np.newaxis]
    return Recording(signal, 125.0, ("II",), name="r", database="db", patient="db/p", episodes=episodes)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of corrections; each is given by what differs from `READING`."""

    def write(*corrections: dict[str, Any], **other: Any) -> Path:
        path = tmp_path / "corrections.toml"
        rows = [{**READING, **changes} for changes in corrections]
        path.write_text(tomli_w.dumps({"format": 1, "corrections": rows, **other}), encoding="utf-8")
        return path

    return write


@given(
    edges=st.lists(st.integers(1, 59), min_size=2, max_size=2, unique=True).map(sorted),
    change=st.integers(1, 59),
    new=st.sampled_from(sorted(RHYTHM_OF)),
)
def test_only_the_named_seconds_change(edges: list[int], change: int, new: str) -> None:
    """Episodes still tile the recording; each tenth of a second has the old label outside, and the new one inside."""
    before = record(Episode(0, change, "normal_sinus", "(N"), Episode(change, 60, "vt", "(VT"))
    after = apply_readings(before, [Reading("db/r", *map(float, edges), "vt", new, "A")])
    assert after.episodes[0].start_s == 0
    assert after.episodes[-1].end_s == 60
    assert all(a.end_s == b.start_s for a, b in zip(after.episodes, after.episodes[1:], strict=False))

    def label_at(recording: Recording, at_s: float) -> tuple[str, str]:
        (found,) = (one for one in recording.episodes if one.start_s <= at_s < one.end_s)
        return found.rhythm, found.aha_class

    for at_s in np.arange(0.05, 60, 0.1):
        inside = edges[0] <= at_s < edges[1]
        expected = (RHYTHM_OF[new], "" if new == "noise" else new) if inside else label_at(before, at_s)
        assert label_at(after, at_s) == expected


def test_windows_of_a_corrected_segment_have_the_readers_class() -> None:
    """They need no guard and no amplitude; windows of the old label keep the guard; noise excludes the seconds."""
    recording = record(Episode(0, 60, "normal_sinus"))
    for new in RHYTHM_OF:
        after = apply_readings(recording, [Reading("db/r", 20.0, 25.0, "normal_sinus", new, "A")])
        windows = cut_windows(after, 5.0, guard_s=1.0)
        inside = (windows.start_s < 25) & (windows.start_s + 5 > 20)
        assert windows.aha_class[inside].tolist() == ([] if new == "noise" else [new])
        assert windows.rhythm[inside].tolist() == ([] if new == "noise" else [RHYTHM_OF[new]])
        assert set(windows.aha_class[~inside].tolist()) == {"normal_sinus"}
        assert ((windows.start_s[~inside] + 5 <= 19) | (windows.start_s[~inside] >= 26)).all()
        total = 5 * len(windows) + sum(entry.seconds for entry in windows.excluded)
        assert total == pytest.approx(60)
        kinds = {segment.kind for segment in reference_segments(after, 5.0, 1.0) if segment.start_s == 20}
        expected = {"shockable": SHOCKABLE, "nonshockable": NONSHOCKABLE, "intermediate": INTERMEDIATE}
        assert kinds == {next((kind for kind, names in expected.items() if new in names), "uncounted")}


def test_labels_at_given_times_are_those_of_cut_windows() -> None:
    """Every window that is cut has the same label by its start, and other starts have none or a reason."""
    episodes = (Episode(0, 20, "vf"), Episode(20, 40, "asystole"), Episode(40, 50, "noise"), Episode(50, 60, "vt"))
    recording = apply_readings(record(*episodes), [Reading("db/r", 3.0, 9.0, "vf", "asystole", "A")])
    windows = cut_windows(recording, 2.0, guard_s=1.0, step_s=0.04)
    cut = dict(zip(windows.start_s.tolist(), windows.aha_class.tolist(), strict=True))
    starts = [sample / 125 for sample in range(0, 58 * 125 + 1, 5)]
    found = label_windows(recording, starts, 2.0, guard_s=1.0)
    labelled = zip(starts, found, strict=True)
    assert {start: label.aha_class for start, label in labelled if label and not label.reason} == cut
    assert set(cut.values()) == {"fine_vf", "asystole", "rapid_vt"}
    by_reason = Counter(label.reason for label in found if label and label.reason)
    assert by_reason["labelled noise"] == round(6 / 0.04) + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"old": "vf"}, r"line 3: old is 'vf', but from 20 to 25 s the database labels db/r as normal_sinus"),
        ({"start_s": 38.0, "end_s": 43.0}, r"labels db/r as normal_sinus, vt;"),
        ({"start_s": 50.0, "end_s": 61.0, "old": "vt"}, r"labels db/r as vt, no part of the recording"),
        ({"end_s": 20.0}, r"line 3: .*the segment is from 20.0 to 20.0 s"),
        ({"end_s": float("nan")}, r"from 20.0 to nan s; give 0 <= start_s < end_s"),
        ({"new": "flutter"}, r"line 3: .*new is 'flutter'; allowed are coarse_vf, .*noise"),
        ({"new": "cannot_say"}, r"line 3: new is 'cannot_say', which corrects nothing; move it to \[\[unchanged\]\]"),
        ({"old": "(N"}, r"old is '\(N'; allowed are vf, vt"),
        ({"reader": " "}, r"reader is empty; give the name of the person"),
        ({"record": "424"}, r"record is '424'; give database/record"),
        ({"from": 3}, r"line 3: corrections.0.from is unknown"),
        ({"start_s": "soon"}, r"line 3: corrections.0.start_s = 'soon': .*number"),
    ],
)
def test_what_does_not_match_is_refused(changes: dict[str, Any], message: str, write: Callable[..., Path]) -> None:
    """The error names the file, the line, what is wrong and what is allowed."""
    path = write(changes)
    recording = record(Episode(0, 40, "normal_sinus"), Episode(40, 60, "vt"))
    with pytest.raises(ValueError, match=rf"corrections\.toml, {message}" if message.startswith("line") else message):
        read_corrections(path).apply(recording)


def test_files_that_cannot_be_used_are_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    """A missing or changed file, overlapping corrections, unknown records and databases, another format."""
    path = write({}, {"start_s": 24.0, "end_s": 30.0})
    with pytest.raises(ValueError, match=r"line 11: the correction overlaps with that of .*line 3; keep one"):
        read_corrections(path)
    corrections = read_corrections(write({}, {"start_s": 25.0, "end_s": 30.0}))
    assert corrections.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=r"but the model's card says 00; the corrections have changed|card says 00"):
        read_corrections(path, "00")
    for records in ({"db": ["q"], "vfdb": ["r"]}, {"vfdb": ["r"]}):
        with pytest.raises(ValueError, match=rf"line 3: record is 'db/r', which is not in {', '.join(records)};"):
            corrections.check_records(records)
    corrections.check_records({"db": ["r", "q"]})
    with pytest.raises(ValueError, match=r"format = 2"):
        read_corrections(write(format=2))
    with pytest.raises(FileNotFoundError, match="there is no file of corrections"):
        read_corrections(tmp_path / "nothing.toml")
    with pytest.raises(ValueError, match="give the path of a file of corrections"):
        LabelPolicy(corrections_sha256="00")


def test_corrections_reach_windows_strips_and_cards(write: Callable[..., Path]) -> None:
    """Windows, training recordings and counts follow the file; if it changes, windows are cut anew, or refused."""
    plain = DataConfig(databases=("synthetic",))
    recording = next(one for one in labelled_recordings("synthetic") if one.patient in load_split(plain.split)[0].train)
    episode = next(one for one in recording.episodes if one.rhythm == "normal_sinus" and one.end_s - one.start_s > 8)
    start_s = episode.start_s + 1.0
    name = f"synthetic/{recording.name}"
    segment = {"record": name, "start_s": start_s, "end_s": start_s + 5}
    path = write(segment, queue="q", unchanged=[{**READING, "new": "cannot_say"}])
    data = pin_corrections(plain.model_copy(update={"labels": LabelPolicy(corrections=str(path))}))
    assert data.labels.corrections_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_corrections(path).unchanged[0].new == "cannot_say"

    before, after = load_windows(plain), load_windows(data)
    at = (after.record == recording.name) & (after.start_s >= start_s) & (after.start_s < start_s + 5)
    assert after.aha_class[at].tolist() == ["coarse_vf"]
    for windows, others in ((before, after), (after, before)):
        elsewhere = windows.select(windows.record != recording.name)
        assert len(elsewhere) == (others.record != recording.name).sum() > 0
    trained = {one.name: one for one in training_recordings(data)}
    assert [one.aha_class for one in trained[recording.name].episodes if one.aha_class] == ["coarse_vf"]
    (row,) = count_corrected(data.labels, ("synthetic",))
    assert (row.patient, row.old, row.new, row.seconds) == (recording.patient, "normal_sinus", "coarse_vf", 5.0)
    assert count_corrected(data.labels, ("synthetic",), {"other"}) == ()

    write({**segment, "new": "asystole"})
    with pytest.raises(ValueError, match="the corrections have changed since the training"):
        load_windows(data)
    anew = load_windows(data.model_copy(update={"labels": LabelPolicy(corrections=str(path))}))
    assert anew.aha_class[(anew.record == recording.name) & (anew.start_s == after.start_s[at][0])] == ["asystole"]
    moved = data.with_paths(lambda name: f"there/{name}")
    assert moved.labels == replace(data.labels, corrections=f"there/{path}")
