"""Annotations give the right episodes and beats, by the conventions of each database."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecg_shock.data import annotations
from ecg_shock.data.annotations import read_labelled, read_labels
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.recordings import Episode

FS = 100
DURATION_S = 60.0

# Seconds by label as counted when the recordings were collected, before noise is cut out.
SECONDS = {
    "vfdb": {
        "(VF": 1689, "(VFIB": 625, "(VFL": 700, "(VT": 5240, "(ASYS": 792, "(AFIB": 3098, "(N": 17229, "(NSR": 219,
        "(BI": 4211, "(NOD": 1763, "(SVTA": 1508, "(PM": 1469, "(HGEA": 939, "(B": 508, "(NOISE": 6065, "(VER": 55,
        "(SBR": 32,
    },
    "cudb": {"VF in brackets": 3811, "(VT": 30},
    "mitdb": {
        "(N": 63327, "(AFIB": 7956, "(P": 6612, "(B": 2511, "(SBR": 1805, "(T": 1141, "(AFL": 785, "(PREX": 741,
        "(BII": 700, "(NOD": 279, "(VT": 214, "(VFL": 144, "(SVTA": 211, "(IVR": 146, "(AB": 88,
    },
}  # fmt: skip


@pytest.fixture
def labels(tmp_path: Path):
    """Write annotations (second, symbol, text, subtype) of a 60 s record, and read them by a database's rules."""

    def write_and_read(database: str, *marks: tuple[float, str, str, int]) -> tuple:
        samples = np.zeros((int(DURATION_S * FS), 1), np.int64)
        wfdb.wrsamp(
            "r", fs=FS, units=["mV"], sig_name=["II"], d_signal=samples, fmt=["16"], adc_gain=[200.0], baseline=[0],
            write_dir=str(tmp_path),
        )  # fmt: skip
        seconds, symbols, texts, subtypes = zip(*marks, strict=True)
        wfdb.wrann(
            "r",
            "atr",
            np.array([round(second * FS) for second in seconds]),
            list(symbols),
            subtype=np.array(subtypes),
            aux_note=list(texts),
            write_dir=str(tmp_path),
        )
        return read_labels(tmp_path / "r", load_manifest(database))

    return write_and_read


def spans(episodes: tuple[Episode, ...]) -> list[tuple[float, float, str, str]]:
    """Return episodes as plain tuples."""
    return [(e.start_s, e.end_s, e.rhythm, e.code) for e in episodes]


def test_a_rhythm_lasts_until_the_next(labels) -> None:
    """Texts start episodes on any symbol, with trailing NULs; the rhythm before the first is unlabelled."""
    episodes, *_ = labels(
        "vfdb", (1, "+", "(N\0", 0), (10, "~", "(VT", 0), (20, "+", "(NOISE", 0), (25, "+", "(ASYS", 0)
    )
    assert spans(episodes) == [
        (0, 1, "unlabelled", ""),
        (1, 10, "normal_sinus", "(N"),
        (10, 20, "vt", "(VT"),
        (20, 25, "noise", "(NOISE"),
        (25, 60, "asystole", "(ASYS"),
    ]


def test_the_same_rhythm_stated_again_is_no_change(labels) -> None:
    """A repeated text does not split its episode."""
    episodes, *_ = labels("vfdb", (0, "+", "(VT", 0), (10, "+", "(VT", 0), (20, "+", "(N", 0))
    assert spans(episodes) == [(0, 20, "vt", "(VT"), (20, 60, "normal_sinus", "(N")]


def test_brackets_are_vf_and_the_rest_of_cudb_is_organised(labels) -> None:
    """VF needs no text; an earlier rhythm does not resume after it in cudb; an open bracket lasts to the end."""
    episodes, *_ = labels(
        "cudb", (5, "+", "(AF", 0), (10, "[", "", 0), (20, "]", "", 0), (30, "+", "(VT", 0), (40, "[", "", 0)
    )
    assert spans(episodes) == [
        (0, 5, "organised", ""),
        (5, 10, "atrial_fibrillation", "(AF"),
        (10, 20, "vf", "["),
        (20, 30, "organised", ""),
        (30, 40, "vt", "(VT"),
        (40, 60, "vf", "["),
    ]


def test_a_vf_text_beside_a_bracket_is_one_episode(labels) -> None:
    """As in cudb cu01: the text starts VF, "[" changes nothing, and "]" ends VF."""
    episodes, *_ = labels("cudb", (10, "+", "(VF\0", 0), (10, "[", "", 0), (30, "]", "", 0))
    assert spans(episodes) == [(0, 10, "organised", ""), (10, 30, "vf", "(VF"), (30, 60, "organised", "")]


def test_brackets_around_a_flutter_text(labels) -> None:
    """As in mitdb 207: VF begins at the bracket and ends with the next text."""
    episodes, *_ = labels(
        "mitdb", (0, "+", "(N", 0), (10, "[", "", 0), (11, "+", "(VFL", 0), (30, "]", "", 0), (31, "+", "(N", 0)
    )
    assert spans(episodes) == [
        (0, 10, "normal_sinus", "(N"),
        (10, 11, "vf", "["),
        (11, 31, "vf", "(VFL"),
        (31, 60, "normal_sinus", "(N"),
    ]


def test_noise_cuts_through_vf(labels) -> None:
    """Unreadable signal splits VF, and VF may end within it."""
    episodes, *_ = labels(
        "cudb",
        (10, "[", "", 0),
        (20, "~", "", -1),
        (22, "~", "", 1),
        (28, "~", "", -1),
        (30, "]", "", 0),
        (33, "~", "", 1),
    )
    assert spans(episodes) == [
        (0, 10, "organised", ""),
        (10, 20, "vf", "["),
        (20, 22, "noise", "~"),
        (22, 28, "vf", "["),
        (28, 33, "noise", "~"),
        (33, 60, "organised", ""),
    ]


@pytest.mark.parametrize(
    ("database", "subtypes", "noisy"),
    [
        ("cudb", (-1, 0), True),
        ("cudb", (-1, 1), True),
        ("cudb", (1, 0), True),
        ("cudb", (1, -1), False),
        ("mitdb", (-1, 0), True),
        ("mitdb", (16, 0), True),
        ("mitdb", (17, 0), True),
        ("mitdb", (32, 0), False),
        ("mitdb", (1, 0), False),
        ("mitdb", (2, 0), False),
        ("mitdb", (3, 0), False),
    ],
)
def test_signal_quality(database: str, subtypes: tuple[int, int], noisy: bool, labels) -> None:
    """Noise is unreadable signal on lead 0, and in cudb also a noisy segment before a clean one."""
    episodes, *_ = labels(
        database, (0, "+", "(N", 0), (10, "~", "", subtypes[0]), (20, "~", "", subtypes[1]), (30, "~", "", 0)
    )
    (rhythm,) = [e.rhythm for e in episodes if e.start_s <= 15 < e.end_s]
    assert (rhythm == "noise") == noisy


def test_noise_to_the_end(labels) -> None:
    """Unreadable signal without an end lasts to the end of the record, as in cudb cu33."""
    episodes, *_ = labels("cudb", (50, "~", "", -1))
    assert spans(episodes) == [(0, 50, "organised", ""), (50, 60, "noise", "~")]


def test_beats(labels) -> None:
    """Every beat has its time and code; other annotations are not beats."""
    symbols = "NLRBAaJSVrFejnE/fQ?" + '!|x"~*T' + "N"
    marks = [(1 + i, symbol, "", 0) for i, symbol in enumerate(symbols)]
    _, beats_s, codes = labels("mitdb", *marks)
    assert "".join(codes) == "NLRBAaJSVrFejnE/fQ?N"
    np.testing.assert_allclose(beats_s, [*range(1, 20), len(symbols)])


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (
            [(12.5, "+", "(XYZ", 0)],
            r"r at 12\.500 s: unknown rhythm code '\(XYZ'; known are .*\(VF, .*\(VT.* in the manifest of cudb",
        ),
        ([(1, "+", "", 0)], "unknown rhythm code ''"),
        ([(1, "]", "", 0)], "']' has no matching bracket"),
        ([(1, "[", "", 0), (2, "[", "", 0)], r"2\.000 s: '\[' has no matching bracket"),
        ([(1, "[", "", 0), (2, "+", "(N", 0)], r"'\(N' is inside '\['"),
        ([(60, "N", "", 0)], r"the record is from 0 to 60\.000 s"),
    ],
)
def test_contradictions_are_refused(marks: list[tuple[float, str, str, int]], message: str, labels) -> None:
    """Annotations that contradict each other are an error with record and time."""
    with pytest.raises(ValueError, match=message):
        labels("cudb", *marks)


def test_missing_annotations(labels, tmp_path: Path) -> None:
    """A record without its annotation file is a FileNotFoundError that names the file."""
    labels("vfdb", (0, "+", "(N", 0))
    (tmp_path / "r.atr").unlink()
    with pytest.raises(FileNotFoundError, match=r"r\.atr is missing"):
        read_labels(tmp_path / "r", load_manifest("vfdb"))


@pytest.mark.recordings
@pytest.mark.parametrize("database", SECONDS)
def test_seconds_by_label(database: str, recordings_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise, the databases have the seconds of each label that an independent count found."""
    monkeypatch.setattr(annotations, "_list_noise", lambda *_: [])
    manifest = load_manifest(database)
    seconds: dict[str, float] = defaultdict(float)
    for record in manifest.records:
        for episode in read_labels(recordings_dir / database / record, manifest)[0]:
            code = "VF in brackets" if database == "cudb" and episode.rhythm == "vf" else episode.code
            seconds[code] += episode.end_s - episode.start_s
    # mitdb 207 opens its brackets up to 0.2 s before its text (VFL, 0.8 s in all.
    tolerance_s = 1.0
    for code, expected in SECONDS[database].items():
        assert seconds[code] == pytest.approx(expected, abs=tolerance_s), code
    assert set(seconds) - set(SECONDS[database]) == {
        "vfdb": {""}, "cudb": {"", "(N", "(AF"}, "mitdb": {"", "["}
    }[database]  # fmt: skip


@pytest.mark.recordings
@pytest.mark.parametrize(
    ("database", "total_s", "noise_s"), [("vfdb", 46200.0, 6064.9), ("cudb", 17812.5, 281.8), ("mitdb", 86666.7, 10.6)]
)
def test_real_episodes_cover_every_record(database: str, total_s: float, noise_s: float, recordings_dir: Path) -> None:
    """Episodes run from 0 s to the end without gap or overlap, neighbours differ, and the noise adds up."""
    manifest = load_manifest(database)
    covered = noise = 0.0
    for record in manifest.records:
        episodes, beats_s, beat_codes = read_labels(recordings_dir / database / record, manifest)
        assert episodes[0].start_s == 0
        for before, after in zip(episodes, episodes[1:], strict=False):
            assert before.end_s == after.start_s
            assert (before.rhythm, before.code) != (after.rhythm, after.code)
        covered += episodes[-1].end_s
        noise += sum(e.end_s - e.start_s for e in episodes if e.rhythm == "noise")
        assert len(beats_s) == len(beat_codes)
        assert (np.diff(beats_s) >= 0).all()
        in_noise = [e for e in episodes if e.code == "~" for beat in beats_s if e.start_s <= beat < e.end_s]
        assert len(in_noise) == {"cu03": 6}.get(record, 0)  # the one record with beats in what we call noise
    assert covered == pytest.approx(total_s, abs=0.1)
    assert noise == pytest.approx(noise_s, abs=0.1)


@pytest.mark.recordings
def test_real_beats(recordings_dir: Path) -> None:
    """Record 100 of mitdb has 2,273 beats, and the database 109,494, as published."""
    manifest = load_manifest("mitdb")
    counts = {record: len(read_labels(recordings_dir / "mitdb" / record, manifest)[1]) for record in manifest.records}
    assert counts["100"] == 2273
    assert sum(counts.values()) == 109494


@pytest.mark.recordings
def test_read_labelled(recordings_dir: Path) -> None:
    """A labelled recording holds signal, labels and patient, and mitdb 202 is patient 201."""
    recording = read_labelled("202", load_manifest("mitdb"), recordings_dir / "mitdb")
    assert (recording.name, recording.database, recording.patient) == ("202", "mitdb", "mitdb/201")
    assert recording.episodes[-1].end_s == recording.duration_s
    assert len(recording.beats_s) == len(recording.beat_codes) > 2000
    beats = recording.signal[np.round(recording.beats_s * recording.fs).astype(int), 0]
    assert np.median(beats) > np.nanmedian(recording.signal[:, 0]) + 0.5  # beats are annotated at their R waves
    with pytest.raises(ValueError, match="no record"):
        read_labelled("999", load_manifest("mitdb"), recordings_dir / "mitdb")


def test_bracket_ends_vf_that_a_text_named(labels) -> None:
    """If no text follows "]", the rhythm before VF resumes, as it does after VF without a text."""
    named = labels("mitdb", (0, "+", "(N", 0), (10, "[", "", 0), (10, "+", "(VFL", 0), (30, "]", "", 0))
    before = labels("mitdb", (0, "+", "(N", 0), (9, "+", "(VFL", 0), (10, "[", "", 0), (30, "]", "", 0))
    late = labels("mitdb", (5, "[", "", 0), (6, "+", "(VFL", 0), (30, "]", "", 0), (40, "+", "(N", 0))
    assert spans(named[0]) == [(0, 10, "normal_sinus", "(N"), (10, 30, "vf", "(VFL"), (30, 60, "normal_sinus", "(N")]
    assert spans(before[0]) == [(0, 9, "normal_sinus", "(N"), (9, 30, "vf", "(VFL"), (30, 60, "normal_sinus", "(N")]
    assert [span[:3] for span in spans(late[0])][2:] == [
        (6, 30, "vf"), (30, 40, "unlabelled"), (40, 60, "normal_sinus")
    ]  # fmt: skip


def test_annotation_file_that_is_cut_short(labels, tmp_path: Path) -> None:
    """A file without an end marker or without annotations is refused: a missing annotation may end VF."""
    labels("vfdb", (0, "+", "(N", 0), (10, "+", "(VFIB", 0), (30, "+", "(N", 0))
    file = tmp_path / "r.atr"
    content = file.read_bytes()
    manifest = load_manifest("vfdb")
    for n in range(len(content)):
        file.write_bytes(content[:n])
        with pytest.raises(ValueError, match=r"r\.atr"):
            read_labels(tmp_path / "r", manifest)
    file.write_bytes(bytes(2))
    with pytest.raises(ValueError, match="holds no annotations"):
        read_labels(tmp_path / "r", manifest)
    file.write_bytes(content[:-2] + bytes(2) + content)
    with pytest.raises(ValueError, match="data after its end marker"):
        read_labels(tmp_path / "r", manifest)
    file.write_bytes(content + bytes(6))
    assert len(read_labels(tmp_path / "r", manifest)[0]) == 3


def test_times_count_by_the_rate_of_the_header(labels, tmp_path: Path) -> None:
    """Times are right even where the WFDB library would read 1e2 as 1, or cannot parse the date in the header."""
    marks = ((0, "+", "(N", 0), (10, "+", "(VFIB", 0), (30, "+", "(N", 0))
    expected = spans(labels("vfdb", *marks)[0])
    header = tmp_path / "r.hea"
    first, *rest = header.read_text().splitlines()
    name, n_signals, fs, n_samples = first.split()[:4]
    assert float(fs) == 100
    for line in (f"{name} {n_signals} 1e2 {n_samples}", f"{name} {n_signals} {fs} {n_samples} 2014-05-08 05:05:15"):
        header.write_text("\n".join([line, *rest]))
        assert spans(read_labels(tmp_path / "r", load_manifest("vfdb"))[0]) == expected
