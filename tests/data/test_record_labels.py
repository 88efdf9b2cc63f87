"""Labels of records in manifests become episodes, and those of the real databases are right."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ecg_shock.data.datasets import DataConfig, labelled_recordings, load_windows
from ecg_shock.data.manifests import FileEntry, Manifest, load_manifest
from ecg_shock.data.record_labels import label_record
from ecg_shock.data.recordings import Recording
from ecg_shock.data.windows import cut_windows
from ecg_shock.rhythms import NONSHOCKABLE

MANIFEST = Manifest(
    name="mine",
    title="",
    version="",
    licence="",
    citation="",
    rhythm_codes={"N": "normal_sinus", "?": "unlabelled", "VT": "vt", "O": "organised", "~": "noise"},
    record_labels={"a": "N", "b": ((0, "?"), (6.5, "VT")), "c": "O", "d": "~"},
    patients={"b": "a"},
    files={f"{record}.hea": FileEntry(bytes=1, sha256="0" * 64) for record in "abcd"},
)


def beats(bpm: float, seconds: float = 20.0, fs: float = 250.0) -> Recording:
    """Record a regular rhythm of narrow beats."""
    phase = np.arange(round(seconds * fs)) / fs * bpm / 60 % 1
    return Recording(np.exp(-(((phase - 0.5) * 60 / bpm / 0.03) ** 2))[:, np.newaxis], fs, ("II",), name="r")


def test_labels_cover_the_record() -> None:
    """A code holds for the record, or from its second on; patient and database are those of the manifest."""
    spans = {
        record: [(e.start_s, e.end_s, e.rhythm, e.code) for e in label_record(beats(60), record, MANIFEST).episodes]
        for record in "ab"
    }
    assert spans == {
        "a": [(0, 20, "normal_sinus", "N")],
        "b": [(0, 6.5, "unlabelled", "?"), (6.5, 20, "vt", "VT")],
    }
    labelled = label_record(beats(60), "b", MANIFEST)
    assert (labelled.database, labelled.patient, labelled.beat_codes) == ("mine", "mine/a", ())
    with pytest.raises(ValueError, match=r"mine gives 'b' a label at 6\.5 s, but the recording ends at 6 s"):
        label_record(beats(60, 6.0), "b", MANIFEST)


def test_no_guard_at_the_ends_of_a_record() -> None:
    """In a record of one rhythm every second is in a window, whatever the guard of the database."""
    windows = cut_windows(label_record(beats(60), "a", MANIFEST), 5.0, guard_s=3.0)
    assert (windows.start_s.tolist(), windows.excluded) == ([0, 5, 10, 15], ())


@pytest.mark.parametrize(
    ("signal", "reason"),
    [
        (beats(140).signal, ""),
        (beats(45).signal, ""),
        (beats(160).signal, "rhythm not named, and fast enough for VT"),
        (np.zeros((5000, 1)), "rhythm not named, and no measurable heart rate"),
        (np.random.default_rng(0).normal(size=(5000, 1)), "rhythm not named, and no measurable heart rate"),
    ],
)
def test_rhythm_that_is_not_named_counts_by_its_rate(signal: np.ndarray, reason: str) -> None:
    """Without annotated beats, an organised window needs a heart rate below that of rapid VT."""
    recording = label_record(replace(beats(60), signal=signal), "c", MANIFEST)
    windows = cut_windows(recording, 5.0)
    assert set(windows.aha_class) == (set() if reason else {"other_nonshockable"})
    assert [(e.reason, e.seconds) for e in windows.excluded] == ([(reason, 20.0)] if reason else [])


def test_artefact_is_no_rhythm() -> None:
    """No window is cut from it, and its seconds are counted."""
    windows = cut_windows(label_record(beats(60), "d", MANIFEST), 5.0)
    assert (len(windows), [(e.reason, e.seconds) for e in windows.excluded]) == (0, [("labelled noise", 20.0)])


@pytest.mark.recordings
def test_ludb_is_labelled_as_its_headers_say(recordings_dir: Path) -> None:
    """The code is the rhythm line of the header, or a diagnosis in the header that makes it another rhythm."""
    manifest = load_manifest("ludb")
    words = {"Pacing": ("pacing", "P-synchrony"), "Block": ("III degree AV", "Sinoatrial block")}
    for record, code in manifest.record_labels.items():
        header = (recordings_dir / "ludb" / f"{record}.hea").read_text()
        if f"#Rhythm: {code}.\n" not in header:
            assert any(word in header for word in words.get(str(code), (str(code),))), record
        assert ("pacing" in header) <= (code == "Pacing")
    assert Counter(manifest.rhythm_codes[code] for code in manifest.record_labels.values()) == {
        "normal_sinus": 138, "sinus_bradycardia": 23, "atrial_fibrillation": 12, "atrial_flutter": 3,
        "atrial_ectopy": 10, "ventricular_ectopy": 3, "heart_block": 1, "paced": 10,
    }  # fmt: skip


@pytest.mark.recordings
def test_challenge_2017_is_labelled_as_its_reference_says(recordings_dir: Path) -> None:
    """The label of REFERENCE.csv is the code; fast records have their own code, so no window of *other* is fast."""
    with (recordings_dir / "challenge-2017" / "REFERENCE.csv").open(newline="") as file:
        reference = dict(csv.reader(file))
    labels = load_manifest("challenge-2017").record_labels
    assert {record: str(code).removesuffix(", fast") for record, code in labels.items()} == reference
    assert Counter(code for code in labels.values() if ", fast" in str(code)) == {"O, fast": 30, "A, fast": 6}
    other = [record for record, code in labels.items() if code == "O"]
    for recording in labelled_recordings("challenge-2017", recordings_dir, other[::5]):
        reasons = {entry.reason for entry in cut_windows(recording, 5.0).excluded}
        assert not any("fast" in reason for reason in reasons), recording.name


@pytest.mark.recordings
def test_qtdb_holds_no_patient_of_another_database() -> None:
    """Records of mitdb and of patients who may be in vfdb are excluded; possible pairs share a patient."""
    manifest = load_manifest("qtdb")
    mitdb = {f"sel{record}" for record in load_manifest("mitdb").records}
    sudden_death = {*(f"sel{number}" for number in range(30, 53)), "sel17152"}
    assert not (mitdb | sudden_death) & set(manifest.records)
    assert (len(manifest.records), len({*map(manifest.patient_of, manifest.records)})) == (66, 63)


@pytest.mark.recordings
def test_extra_databases_hold_nothing_shockable_but_two_patients(recordings_dir: Path) -> None:
    """Two records of aami-ec13 are rapid VT from 31.75 s on, with the heart rates of the standard's figures."""
    windows = load_windows(DataConfig(databases=("ludb", "aami-ec13")), recordings_dir)
    vt = windows.select(windows.aha_class == "rapid_vt")
    assert set(vt.patient) == {"aami-ec13/aami4a", "aami-ec13/aami4b"}
    assert vt.start_s.min() == pytest.approx(31.75, abs=0.01)
    assert set(windows.aha_class) <= {"rapid_vt", *NONSHOCKABLE}
    assert Counter(windows.aha_class.tolist()) == {"normal_sinus": 276, "other_nonshockable": 124 + 42, "rapid_vt": 22}


@pytest.mark.recordings
def test_parts_of_other_databases_are_read(recordings_dir: Path) -> None:
    """A few records of each database have their rhythm and heart rate; artefact of challenge-2011 has no window."""
    expected = {
        ("qtdb", "sel16265"): ("normal_sinus", 250.0, 2),
        ("qtdb", "sele0104"): ("organised", 250.0, 2),
        ("challenge-2017", "A00009"): ("atrial_fibrillation", 300.0, 1),
        ("challenge-2017", "A00022"): ("noise", 300.0, 1),
        ("challenge-2017", "A05549"): ("unlabelled", 300.0, 1),
        ("challenge-2011", "1002603"): ("noise", 500.0, 12),
    }
    for (database, record), found in expected.items():
        (recording,) = labelled_recordings(database, recordings_dir, {record})
        (episode,) = recording.episodes
        assert (episode.rhythm, recording.fs, len(recording.leads)) == found
        assert (episode.start_s, episode.end_s) == (0.0, recording.duration_s)
        assert (len(cut_windows(recording, 5.0)) > 0) == (episode.rhythm not in ("noise", "unlabelled"))
