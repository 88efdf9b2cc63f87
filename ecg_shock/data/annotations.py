"""Read rhythm, noise and beats from the annotations of a WFDB record.

Each public database has its own way to annotate rhythm, VF and noise. This module reads the annotations as follows.

Rhythm
    An annotation text such as ``(VT`` starts a rhythm, which lasts until the next text. The text usually belongs to a
    rhythm annotation ``+``; in cudb it may also belong to a signal quality annotation ``~``.
VF in brackets
    ``[`` and ``]`` enclose ventricular flutter or fibrillation, with or without a text. If a text names the VF too
    (cudb cu01 and cu03, mitdb 207), the episode has the code of the text. ``]`` also ends VF that a text started. Then
    the rhythm from before the VF continues. If a text within 1 s after ``]`` names another rhythm, the VF ends at this
    text instead; in mitdb 207, such texts come up to 0.6 s after ``]``. VF without ``]`` lasts until the end of the
    record.
Background
    Before the first text, the rhythm is ``unlabelled``. An exception is cudb, which has few rhythm texts, but annotates
    all beats as ``N``. In cudb, the rhythm is ``organised`` before the first text and after each ``]``.
Noise
    ``(NOISE`` in vfdb is a rhythm text, so the noise lasts until the next text.

    ``~`` marks a change of signal quality. The subtype of ``~`` has a bit for each noisy signal (1, 2, 4, 8) and a bit
    for each unreadable signal (16, 32 …); -1 sets all bits [1]_. A segment is noise if lead 0 is *unreadable*. If lead
    0 is only *noisy*, the segment keeps its rhythm, because it can still be read: cudb and mitdb annotate about 80
    beats per minute in noisy segments, and no beats in unreadable segments.

    There is one exception: in cu03 and cu04, a segment that starts with subtype 1 and ends with subtype 0 is noise too.
    These seven segments of 0.5 s to 2 s have at least four times the 20-60 Hz amplitude of their surroundings.

    Noise replaces every rhythm, including VF.
Not used
    Flutter waves ``!``, artefacts ``|``, blocked P waves ``x`` and comments are ignored.

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
from ecg_shock.data.record_labels import label_record
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.data.signal_files import WHAT_TO_DO, choose_channels, explain_damage
from ecg_shock.data.wfdb_files import open_wfdb

# Codes of beats, see https://archive.physionet.org/physiobank/annotations.shtml
BEAT_CODES = frozenset("NLRBAaJSVrFejnE/fQ?")

# Subtypes of the signal quality annotation, from the same page as [1].
LEAD_0_CLEAN = 0
LEAD_0_NOISY = 1
LEAD_0_UNREADABLE = 16  # this bit is also set in -1

LATE_TEXT_S = 1.0  # a text up to this long after "]" names the rhythm after the VF

# Codes in an annotation file that are followed by extra bytes, see https://wfdb.io/spec/annotation-files.html
SKIP_CODE, AUX_CODE = 59, 63

# Rhythm of segments without a rhythm text, in databases that annotate all beats.
BACKGROUND = {"cudb": "organised"}


@dataclass(frozen=True)
class _Annotation:
    time_s: float
    symbol: str
    subtype: int
    text: str


def read_labels(path: str | Path, manifest: Manifest) -> tuple[tuple[Episode, ...], np.ndarray, tuple[str, ...]]:
    """Return the episodes of a record, the times of its beats in s, and the WFDB codes of its beats.

    `path` is the path of the record without suffix. For the errors, see `read_labelled`.
    """
    path = Path(path)
    file = open_wfdb(Path(f"{path}.hea"))
    channel = file.channels[choose_channels(file, None)[0]]
    end_s = channel.n_samples / channel.fs
    annotations = _read_annotations(path, manifest.annotator, file.frame_rate, end_s)
    beats = [annotation for annotation in annotations if annotation.symbol in BEAT_CODES]
    episodes = _build_episodes(
        _list_changes(path, annotations, manifest), _list_noise(annotations, manifest, end_s), end_s
    )
    return episodes, np.array([beat.time_s for beat in beats]), tuple(beat.symbol for beat in beats)


def list_codes(path: str | Path, annotator: str) -> tuple[str, ...]:
    """Return the rhythm codes of a record's annotations in order of time.

    `path` is the path of the record without suffix. Raise OSError if the header or the annotation file is missing.
    Raise ValueError if a file is damaged, or if its annotations are not in order of time or lie outside the record.
    """
    path = Path(path)
    file = open_wfdb(Path(f"{path}.hea"))
    channel = file.channels[choose_channels(file, None)[0]]
    annotations = _read_annotations(path, annotator, file.frame_rate, channel.n_samples / channel.fs)
    return tuple(annotation.text for annotation in annotations if _names_rhythm(annotation))


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
        The recording with its labels. Its episodes cover it from 0 s to its end, in order, without overlap.

    Raises
    ------
    OSError
        If the header, a signal file or the annotation file is missing.
    ValueError
        If the database has no such record, a file is damaged, an annotation or label lies outside the record, the
        annotations are not in order of time, a rhythm code is unknown, ``]`` comes without ``[``, ``[`` comes twice
        without ``]``, or the code between ``[`` and ``]`` is not VF.
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


def _read_annotations(path: Path, annotator: str, fs: float, end_s: float) -> list[_Annotation]:
    import wfdb

    file = Path(f"{path}.{annotator}")
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing; it holds the labels of {path.name}, so copy it to this folder")
    _check_end(file)
    with explain_damage(file, "WFDB annotations"):
        found = wfdb.rdann(str(path.absolute()), annotator)
        # If the file gives no sampling rate, wfdb takes it from the header, and may misread it.
        own = found.fs if b"## time resolution: " in file.read_bytes() else None
        times_s = found.sample / (own or fs)
        annotations = [
            _Annotation(float(time_s), str(symbol), int(subtype), text.rstrip("\0").strip())
            for time_s, symbol, subtype, text in zip(times_s, found.symbol, found.subtype, found.aux_note, strict=True)
        ]
    if not annotations:
        raise ValueError(f"{file} holds no annotations. {WHAT_TO_DO}")
    for before, annotation in zip(annotations, annotations[1:], strict=False):
        if annotation.time_s < before.time_s:
            raise ValueError(
                f"{file}: the annotations after {before.time_s:.3f} s are not in order of time; sort them, or fetch "
                "the file again"
            )
    if not (annotations[0].time_s >= 0 and annotations[-1].time_s < end_s):
        raise ValueError(
            f"{file} has annotations from {annotations[0].time_s:.3f} s to {annotations[-1].time_s:.3f} s, but "
            f"the record is from 0 to {end_s:.3f} s; compare the file and the header with their source, or "
            "fetch them again"
        )
    return annotations


def _check_end(file: Path) -> None:
    """Raise ValueError if an annotation file has no end marker, or has data after it."""
    content = file.read_bytes()
    at = 0
    while at + 2 <= len(content):
        word = int.from_bytes(content[at : at + 2], "little")
        at += 2
        if word == 0:
            if any(content[at:]):
                raise ValueError(f"{file} has data after its end marker. {WHAT_TO_DO}")
            return
        code, number = divmod(word, 1024)
        if code == SKIP_CODE:
            at += 4
        elif code == AUX_CODE:
            at += number + number % 2
    raise ValueError(f"{file} has no end marker, so annotations may be missing. {WHAT_TO_DO}")


def _list_changes(path: Path, annotations: Sequence[_Annotation], manifest: Manifest) -> list[tuple[float, str, str]]:
    """Return the time in s, the new rhythm and its code for every change of rhythm."""
    background = BACKGROUND.get(manifest.name, "unlabelled")
    rhythm, code = background, ""
    before_vf = rhythm, code
    text_times = [annotation.time_s for annotation in annotations if _names_rhythm(annotation)]
    bracket_open = False
    changes = [(0.0, rhythm, code)]
    for annotation in annotations:
        where = f"{path} at {annotation.time_s:.3f} s"
        if annotation.symbol in ("[", "]") and bracket_open == (annotation.symbol == "["):
            raise ValueError(f"{where}: {annotation.symbol!r} has no matching bracket; correct the annotations")
        if annotation.symbol == "[":
            bracket_open = True
        if annotation.symbol == "]":
            bracket_open = False
            if manifest.name in BACKGROUND:
                rhythm, code = background, ""
            elif rhythm == "vf" and not any(0 <= time_s - annotation.time_s <= LATE_TEXT_S for time_s in text_times):
                rhythm, code = before_vf
        if _names_rhythm(annotation):
            if annotation.text not in manifest.rhythm_codes:
                raise ValueError(
                    f"{where}: unknown rhythm code {annotation.text!r}; known are "
                    f"{', '.join(manifest.rhythm_codes)}; add the code to [rhythm_codes] in the manifest of "
                    f"{manifest.name}"
                )
            rhythm, code = manifest.rhythm_codes[annotation.text], annotation.text
            if bracket_open and rhythm != "vf":
                raise ValueError(f"{where}: {code!r} is inside '[' … ']', which enclose VF; correct the annotations")
        if bracket_open and rhythm != "vf":
            changes.append((annotation.time_s, "vf", "["))
        else:
            changes.append((annotation.time_s, rhythm, code))
        if rhythm != "vf":
            before_vf = rhythm, code
    return changes


def _names_rhythm(annotation: _Annotation) -> bool:
    return annotation.symbol == "+" or annotation.text.startswith("(")


def _list_noise(annotations: Sequence[_Annotation], manifest: Manifest, end_s: float) -> list[tuple[float, float]]:
    """Return the start and end in s of each segment that signal quality annotations mark as noise."""
    quality = [(annotation.time_s, annotation.subtype) for annotation in annotations if annotation.symbol == "~"]
    noise = []
    for (start_s, subtype), (stop_s, next_subtype) in zip(quality, [*quality[1:], (end_s, None)], strict=False):
        artefact = manifest.name == "cudb" and (subtype, next_subtype) == (LEAD_0_NOISY, LEAD_0_CLEAN)
        if subtype & LEAD_0_UNREADABLE or artefact:
            noise.append((start_s, stop_s))
    return noise


def _build_episodes(
    changes: Sequence[tuple[float, str, str]], noise: Sequence[tuple[float, float]], end_s: float
) -> tuple[Episode, ...]:
    """Return episodes from changes of rhythm and segments of noise; noise replaces the rhythm."""
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
