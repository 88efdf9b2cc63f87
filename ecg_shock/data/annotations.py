"""Labels: what the annotations of a WFDB record say of rhythm, noise and beats.

The public databases write the same things in different ways. What follows is how each is read, and why.

Rhythm
    A text such as ``(VT`` starts a rhythm that lasts until the next such text. It mostly stands on a rhythm
    annotation ``+``, in cudb also on the signal quality annotation ``~``.
VF in brackets
    ``[`` and ``]`` enclose ventricular flutter or fibrillation. That counts even where no text says so, as nearly
    everywhere in cudb; where a text does (cudb cu01 and cu03, mitdb 207), the text's code is kept. ``]`` ends VF that
    a text named as well: the rhythm before it goes on, unless a text within a second says what comes, as up to 0.6 s
    late in mitdb 207; that is where VF ends then. A bracket that is never closed runs to the end of the record.
Background
    Before the first text nothing is known: ``unlabelled``. But cudb names hardly any rhythm, and annotates beats
    instead, all of them as ``N``; so there the time outside brackets and named rhythms is ``organised``, and each
    ``]`` brings it back.
Noise
    ``(NOISE`` in vfdb is a rhythm text, and the next text says what comes after it.

    ``~`` reports a change of signal quality. Its subtype has a bit for each noisy signal (1, 2, 4, 8) and one for each
    unreadable signal (16, 32 …), -1 being all of them [1]_. Episodes hold for all leads of a recording, and the
    first is the one that is always there; so noise is where lead 0 is *unreadable*. That this is the right line
    shows in the beats: not one is annotated in the 274 s of cudb and the 11 s of mitdb with subtype -1, but 78
    and 81 a minute in their 3,432 s and 662 s with subtype 1, much as in the clean rest. In cu08 and from cu18
    on, cudb never writes 0: there, 1 just ends -1. Excluding what is noisy but readable would make the task
    easier than it is.

    One exception: where cudb ends a subtype 1 by 0, in cu03 and cu04, it marks seven artefacts of half a second to
    two seconds with at least four times the 20-60 Hz amplitude of the time before and after. These are noise too.

    Noise cuts through whatever goes on, VF included.
Not used
    Flutter waves ``!``, artefacts ``|``, blocked P waves ``x`` and comments.

References
----------
.. [1] Moody, WFDB Programmer's Guide, "Annotation Codes", NOISE, https://physionet.org/physiotools/wpg/
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ecg_shock.data.manifests import Manifest
from ecg_shock.data.readers import read_record
from ecg_shock.data.reading import WHAT_TO_DO, choose_channels, reading
from ecg_shock.data.record_labels import label_record
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.data.wfdb_files import open_wfdb

# Beat annotations by https://archive.physionet.org/physiobank/annotations.shtml
BEAT_CODES = frozenset("NLRBAaJSVrFejnE/fQ?")

# Subtypes of the signal quality annotation, from the same page as [1].
LEAD_0_CLEAN = 0
LEAD_0_NOISY = 1
LEAD_0_UNREADABLE = 16  # a bit of -1 too

LATE_TEXT_S = 1.0  # how long after "]" the text stands that goes with it

# Codes of words in an annotation file that bytes follow, by https://wfdb.io/spec/annotation-files.html
SKIP_CODE, AUX_CODE = 59, 63

# Databases that annotate beats outside their few named rhythms.
BACKGROUND = {"cudb": "organised"}


@dataclass(frozen=True)
class _Mark:
    """An annotation: its time in seconds, symbol, subtype and text."""

    time_s: float
    symbol: str
    subtype: int
    text: str


def read_labels(path: str | Path, manifest: Manifest) -> tuple[tuple[Episode, ...], np.ndarray, tuple[str, ...]]:
    """Read the episodes, the times of the beats in s and their WFDB codes of a record, whose path has no suffix."""
    path = Path(path)
    file = open_wfdb(Path(f"{path}.hea"))
    channel = file.channels[choose_channels(file, None)[0]]
    end_s = channel.n_samples / channel.fs
    marks = _read_marks(path, manifest.annotator, file.frame_rate, end_s)
    beats = [mark for mark in marks if mark.symbol in BEAT_CODES]
    episodes = _episodes(_rhythm_changes(path, marks, manifest), _noise(marks, manifest, end_s), end_s)
    return episodes, np.array([beat.time_s for beat in beats]), tuple(beat.symbol for beat in beats)


def read_labelled(record: str, manifest: Manifest, folder: str | Path) -> Recording:
    """Read a record of a database with its labels.

    Parameters
    ----------
    record : str
        Name of the record, one of `manifest.records`.
    manifest : Manifest
        The record's database.
    folder : str or pathlib.Path
        The folder that holds the files of this database.

    Returns
    -------
    Recording
        Its episodes cover it from 0 s to its end, in order, without overlap, and neighbours differ.

    Raises
    ------
    OSError
        If the header, a signal file or the annotation file is missing.
    ValueError
        If the database has no such record, a file is damaged, an annotation lies outside the record or before its
        predecessor, a rhythm code is unknown, or brackets do not match.
    """
    patient = manifest.patient_of(record)
    path = Path(folder) / record
    if record in manifest.record_labels:
        return label_record(read_record(path), record, manifest)
    episodes, beats_s, beat_codes = read_labels(path, manifest)
    return replace(
        read_record(path),
        database=manifest.name,
        patient=patient,
        episodes=episodes,
        beats_s=beats_s,
        beat_codes=beat_codes,
    )


def _read_marks(path: Path, annotator: str, fs: float, end_s: float) -> list[_Mark]:
    import wfdb

    file = Path(f"{path}.{annotator}")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; the labels of {path.name} stand in it, so copy it there")
    _check_end(file)
    with reading(file, "WFDB annotations"):
        found = wfdb.rdann(str(path.absolute()), annotator)
        # Without a rate of its own in the file, the library takes that of the header, which it may have misread.
        own = found.fs if b"## time resolution: " in file.read_bytes() else None
        times_s = found.sample / (own or fs)
        marks = [
            _Mark(float(time_s), str(symbol), int(subtype), text.rstrip("\0").strip())
            for time_s, symbol, subtype, text in zip(times_s, found.symbol, found.subtype, found.aux_note, strict=True)
        ]
    if not marks:
        raise ValueError(f"{file} holds no annotation at all. {WHAT_TO_DO}")
    for before, mark in zip(marks, marks[1:], strict=False):
        if mark.time_s < before.time_s:
            raise ValueError(f"{file} goes back in time after {before.time_s:.3f} s; sort or fetch it again")
    if not (marks[0].time_s >= 0 and marks[-1].time_s < end_s):
        raise ValueError(
            f"{file} has annotations from {marks[0].time_s:.3f} s to {marks[-1].time_s:.3f} s, outside of the "
            f"record's {end_s:.3f} s; compare both with their source, or fetch them again"
        )
    return marks


def _check_end(file: Path) -> None:
    """Raise ValueError if a file of annotations does not end as one does: what is missing may end an episode."""
    content = file.read_bytes()
    at = 0
    while at + 2 <= len(content):
        word = int.from_bytes(content[at : at + 2], "little")
        at += 2
        if word == 0:
            if any(content[at:]):
                raise ValueError(f"{file} goes on after the mark of its end. {WHAT_TO_DO}")
            return
        code, number = divmod(word, 1024)
        if code == SKIP_CODE:
            at += 4
        elif code == AUX_CODE:
            at += number + number % 2
    raise ValueError(f"{file} ends without the mark of its end, so that annotations are missing. {WHAT_TO_DO}")


def _rhythm_changes(path: Path, marks: Sequence[_Mark], manifest: Manifest) -> list[tuple[float, str, str]]:
    """List time, rhythm and code of every change."""
    background = BACKGROUND.get(manifest.name, "unlabelled")
    rhythm, code = background, ""
    before_vf = rhythm, code
    text_times = [mark.time_s for mark in marks if _is_text(mark)]
    bracket_open = False
    changes = [(0.0, rhythm, code)]
    for mark in marks:
        where = f"{path} at {mark.time_s:.3f} s"
        if mark.symbol in ("[", "]") and bracket_open == (mark.symbol == "["):
            raise ValueError(f"{where}: {mark.symbol!r} without its counterpart; correct the annotations")
        if mark.symbol == "[":
            bracket_open = True
        if mark.symbol == "]":
            bracket_open = False
            if manifest.name in BACKGROUND:
                rhythm, code = background, ""
            elif rhythm == "vf" and not any(0 <= time_s - mark.time_s <= LATE_TEXT_S for time_s in text_times):
                rhythm, code = before_vf
        if _is_text(mark):
            if mark.text not in manifest.rhythm_codes:
                raise ValueError(
                    f"{where}: unknown rhythm code {mark.text!r}; {manifest.name} has "
                    f"{', '.join(manifest.rhythm_codes)}; add it to rhythm_codes in the manifest"
                )
            rhythm, code = manifest.rhythm_codes[mark.text], mark.text
            if bracket_open and rhythm != "vf":
                raise ValueError(f"{where}: {code!r} inside '[' … ']', which enclose VF; correct the annotations")
        if bracket_open and rhythm != "vf":
            changes.append((mark.time_s, "vf", "["))
        else:
            changes.append((mark.time_s, rhythm, code))
        if rhythm != "vf":
            before_vf = rhythm, code
    return changes


def _is_text(mark: _Mark) -> bool:
    """Say whether an annotation names a rhythm."""
    return mark.symbol == "+" or mark.text.startswith("(")


def _noise(marks: Sequence[_Mark], manifest: Manifest, end_s: float) -> list[tuple[float, float]]:
    """List start and end of the noise that signal quality annotations tell of."""
    quality = [(mark.time_s, mark.subtype) for mark in marks if mark.symbol == "~"]
    noise = []
    for (start_s, subtype), (stop_s, next_subtype) in zip(quality, [*quality[1:], (end_s, None)], strict=False):
        artefact = manifest.name == "cudb" and (subtype, next_subtype) == (LEAD_0_NOISY, LEAD_0_CLEAN)
        if subtype & LEAD_0_UNREADABLE or artefact:
            noise.append((start_s, stop_s))
    return noise


def _episodes(
    changes: Sequence[tuple[float, str, str]], noise: Sequence[tuple[float, float]], end_s: float
) -> tuple[Episode, ...]:
    """Cut the rhythms by the noise, and join neighbours of the same rhythm and code."""
    change_times = [time_s for time_s, _, _ in changes]
    edges = sorted({*change_times, *(edge for span in noise for edge in span), end_s})
    episodes: list[Episode] = []
    for start_s, stop_s in zip(edges, edges[1:], strict=False):
        _, rhythm, code = changes[bisect_right(change_times, start_s) - 1]
        if any(first_s <= start_s < last_s for first_s, last_s in noise):
            rhythm, code = "noise", "~"
        if episodes and (episodes[-1].rhythm, episodes[-1].code) == (rhythm, code):
            start_s = episodes.pop().start_s
        episodes.append(Episode(start_s, stop_s, rhythm, code))
    return tuple(episodes)
