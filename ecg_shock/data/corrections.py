"""Read a human reader's corrections of labels, and apply them to recordings.

A file of corrections is a TOML file, as the page of `ecg-shock adjudicate` saves it. It has two lists with the same
keys (see `Reading`): `[[corrections]]` replace labels, and `[[unchanged]]` record that a reader agreed with a label, or
could not say. The package comes with no such file: corrections are the reader's own.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.files import explain, read_toml
from ecg_shock.rhythms import AHA_CLASSES, RHYTHMS, UNUSABLE

FILE_NAME = "corrections.toml"
NOISE, UNLABELLED, CANNOT_SAY = "noise", "unlabelled", "cannot_say"
NEW_LABELS = (*AHA_CLASSES, NOISE)
OLD_LABELS = (*RHYTHMS, *UNUSABLE)
CORRECTED_CODE = "corrected"  # the code of a corrected episode
TOLERANCE_S = 1e-3  # a shorter time is a rounding error

# The rhythm of a corrected segment
RHYTHM_OF = {
    **{"coarse_vf": "vf", "fine_vf": "vf", "rapid_vt": "vt", "other_vt": "vt", "other_nonshockable": "organised"},
    **{name: name for name in ("normal_sinus", "asystole", NOISE)},
}


@dataclass(frozen=True)
class Reading:
    """What a human reader says about a segment of a recording.

    Parameters
    ----------
    record : str
        The database and the record, such as ``"vfdb/424"``.
    start_s, end_s : float
        The segment, in seconds from the start of the recording; `end_s` is exclusive.
    old : str
        The rhythm that the database gives the whole segment: one of `OLD_LABELS`.
    new : str
        The reader's label: an AHA class or ``"noise"``; in `[[unchanged]]` also ``"cannot_say"``.
    reader : str
        Who read the segment.
    reason : str
        The reader's comment; may be empty.
    opinion_shown : bool
        True if the reader had looked at the networks' opinion before answering.
    """

    __pydantic_config__ = {"extra": "forbid"}

    record: str
    start_s: float
    end_s: float
    old: str
    new: str
    reader: str
    reason: str = ""
    opinion_shown: bool = False

    def __post_init__(self) -> None:
        if not all(self.record.partition("/")):
            raise ValueError(f"record is {self.record!r}; give database/record, such as vfdb/424")
        if not 0 <= self.start_s < self.end_s < math.inf:
            raise ValueError(
                f"the segment is from {self.start_s!r} to {self.end_s!r} s; give 0 <= start_s < end_s, in seconds"
            )
        if self.old not in OLD_LABELS:
            raise ValueError(f"old is {self.old!r}; allowed are {', '.join(OLD_LABELS)}")
        if self.new not in (*NEW_LABELS, CANNOT_SAY):
            raise ValueError(f"new is {self.new!r}; allowed are {', '.join(NEW_LABELS)}")
        if not self.reader.strip():
            raise ValueError("reader is empty; give the name of the person who read the segment")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    queue: str = ""
    corrections: tuple[Reading, ...] = ()
    unchanged: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class CorrectedSeconds:
    """The corrected seconds of one patient with the same old and new label.

    Parameters
    ----------
    patient, old, new : str
        The patient, and the labels as in `Reading`.
    seconds : float
        Their number, above 0.
    """

    patient: str
    old: str
    new: str
    seconds: float


@dataclass(frozen=True)
class Corrections:
    """The corrections of a file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    sha256 : str
        Its digest.
    entries : tuple of Reading
        The corrections, in the order of the file.
    places : tuple of str
        Where each correction is in the file, for errors.
    unchanged : tuple of Reading
        The readings that change nothing.
    """

    path: Path
    sha256: str
    entries: tuple[Reading, ...]
    places: tuple[str, ...]
    unchanged: tuple[Reading, ...] = ()

    def check_records(self, records: Mapping[str, Collection[str]]) -> None:
        """Raise ValueError if a correction names another record than these, which are given by database."""
        for entry, place in zip(self.entries, self.places, strict=True):
            database, _, record = entry.record.partition("/")
            if record not in records.get(database, ()):
                raise ValueError(
                    f"{place}: record is {entry.record!r}, which is not in {', '.join(records)}; correct the name, or "
                    "remove corrections of other databases."
                )

    def apply(self, recording: Recording) -> Recording:
        """Return a recording with the corrected labels; see `apply_readings`.

        Raises
        ------
        ValueError
            If a segment does not have the rhythm `old` over its whole length, or lies outside the recording.
        """
        name = f"{recording.database}/{recording.name}"
        entries = []
        for entry, place in zip(self.entries, self.places, strict=True):
            if entry.record != name:
                continue
            found = ", ".join(_rhythms_in(recording, entry))
            if found != entry.old:
                raise ValueError(
                    f"{place}: old is {entry.old!r}, but from {entry.start_s:g} to {entry.end_s:g} s the database "
                    f"labels {name} as {found}; the correction was made for other labels. Read the segment again, or "
                    "correct the times."
                )
            entries.append(entry)
        return apply_readings(recording, entries) if entries else recording

    def seconds(self, patients: Mapping[str, str]) -> tuple[CorrectedSeconds, ...]:
        """Count the corrected seconds of some records by patient and label.

        Parameters
        ----------
        patients : mapping of str to str
            The patient of each record that counts, by ``"database/record"``.
        """
        found: dict[tuple[str, str, str], float] = defaultdict(float)
        for entry in self.entries:
            if entry.record in patients:
                found[patients[entry.record], entry.old, entry.new] += entry.end_s - entry.start_s
        return tuple(CorrectedSeconds(*key, seconds) for key, seconds in sorted(found.items()))


def read_corrections(path: str | Path, sha256: str | None = None) -> Corrections:
    """Read and check a file of corrections.

    Parameters
    ----------
    path : str or pathlib.Path
        The file.
    sha256 : str, optional
        The digest that it must have.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not valid, two corrections overlap, or the digest differs. The error names the lines.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of corrections {path}; give its path, or remove it from the labels.")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, digest):
        raise ValueError(
            f"{path} has SHA-256 {digest}, but the model's card says {sha256}: the corrections have changed since the "
            "training. Restore the file, or train the model again."
        )
    raw = read_toml(path)
    text = content.decode()
    places = {table: _places(path, text, table, raw.get(table)) for table in ("corrections", "unchanged")}
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        faults = []
        for fault, line in zip(error.errors(), explain(error, _File), strict=True):
            table, number = (*fault["loc"], "", "")[:2]
            place = places[str(table)][number] if table in places and isinstance(number, int) else path
            faults.append(f"{place}: {line}")
        raise ValueError("; ".join(faults)) from error
    for entry, place in zip(file.corrections, places["corrections"], strict=True):
        if entry.new == CANNOT_SAY:
            raise ValueError(f"{place}: new is {CANNOT_SAY!r}, which corrects nothing; move it to [[unchanged]].")
    _check_overlap(file.corrections, places["corrections"])
    return Corrections(path, digest, file.corrections, tuple(places["corrections"]), file.unchanged)


def apply_readings(recording: Recording, readings: Iterable[Reading]) -> Recording:
    """Replace the labels of segments of a recording.

    Parameters
    ----------
    recording : Recording
        The recording; it is not changed.
    readings : iterable of Reading
        Segments of this recording without overlap.

    Returns
    -------
    Recording
        Each segment is an episode of its own, whose `aha_class` is the reader's label, unless that is noise.
    """
    added = [
        Episode(
            reading.start_s,
            min(reading.end_s, recording.duration_s),
            RHYTHM_OF[reading.new],
            CORRECTED_CODE,
            "" if reading.new == NOISE else reading.new,
        )
        for reading in sorted(readings, key=lambda reading: reading.start_s)
    ]
    episodes = list(added)
    for episode in recording.episodes:
        start_s = episode.start_s
        for segment in added:
            if segment.start_s >= episode.end_s or segment.end_s <= start_s:
                continue
            if segment.start_s > start_s:
                episodes.append(replace(episode, start_s=start_s, end_s=segment.start_s))
            start_s = segment.end_s
        if start_s < episode.end_s:
            episodes.append(replace(episode, start_s=start_s))
    return replace(recording, episodes=tuple(sorted(episodes, key=lambda episode: episode.start_s)))


def _rhythms_in(recording: Recording, entry: Reading) -> list[str]:
    """Return what the database calls the parts of a segment, in order of time, each name once."""
    found, covered_s = [], 0.0
    for episode in recording.episodes:
        shared_s = min(episode.end_s, entry.end_s) - max(episode.start_s, entry.start_s)
        if shared_s > TOLERANCE_S:
            found.append(episode.rhythm)
            covered_s += shared_s
    if covered_s < entry.end_s - entry.start_s - 2 * TOLERANCE_S:
        beyond = entry.end_s > recording.duration_s + TOLERANCE_S
        found.append("no part of the recording" if beyond else UNLABELLED)
    return list(dict.fromkeys(found))


def _places(path: Path, text: str, table: str, entries: object) -> list[str]:
    """Return the place of each entry of a list in the file: its line, or its number if the lines cannot be told."""
    count = len(entries) if isinstance(entries, list) else 0
    lines = [n for n, line in enumerate(text.split("\n"), 1) if re.match(rf"\s*\[\[\s*{table}\s*\]\]", line)]
    if len(lines) == count:
        return [f"{path}, line {line}" for line in lines]
    return [f"{path}, entry {number} of {table}" for number in range(1, count + 1)]


def _check_overlap(entries: Iterable[Reading], places: Iterable[str]) -> None:
    ordered = sorted(zip(entries, places, strict=True), key=lambda pair: (pair[0].record, pair[0].start_s))
    for (before, place), (after, other) in zip(ordered, ordered[1:], strict=False):
        if before.record == after.record and after.start_s < before.end_s - TOLERANCE_S:
            raise ValueError(f"{other}: the correction overlaps with that of {place}; keep one of the two.")
