"""Find where training windows can be cut: in every labelled second of all leads, before the filter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ecg_shock.data.datasets import (
    SYNTHETIC,
    DataConfig,
    extra_patients,
    guard_s,
    labelled_recordings,
    training_recordings,
)
from ecg_shock.data.recordings import Recording
from ecg_shock.data.windows import WindowSet, cut_windows
from ecg_shock.preprocessing import FS, preprocess, resample_recording
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE

STEP_S = 0.5  # between candidates for augmentation; the offset within a step is drawn
SECOND_S = 1.0  # between windows of `EverySecond`
ARTEFACT = "artefact"  # the class of segments that a database of `DataConfig.extra` labels as noise


class EverySecond(BaseModel):
    """Training on the windows that begin in every labelled second of the training leads.

    Parameters
    ----------
    windows : int
        Number of windows that are drawn in an epoch, at least. An epoch is then not a round of all windows.
    patient_windows : int
        Together, the windows of one patient and AHA class have the weight of their number of windows that do not
        overlap, but at most that of `patient_windows` windows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows: int = Field(default=60_000, ge=2)
    patient_windows: int = Field(default=60, ge=1)


@dataclass(frozen=True, eq=False)
class Strips:
    """Candidates for training windows, in leads of several recordings.

    Parameters
    ----------
    signal : numpy.ndarray
        Shape (n,), float32, mV at 125 Hz: all leads, one after the other, before the band-pass, or preprocessed.
    start : numpy.ndarray
        Shape (n_candidates,), int: the first sample of each window in `signal`.
    span : numpy.ndarray
        Shape (n_candidates, 2), int: the segment around the window that has the window's class without interruption, as
        its first sample and the one after its last.
    lead : numpy.ndarray
        Shape (n_candidates, 2), int: the window's lead in `signal`, as its first sample and the one after its last.
    patient, database, aha_class : numpy.ndarray
        Shape (n_candidates,), strings. The class may be `ARTEFACT`.
    window_s : float
        Length of the windows in seconds.
    step_s : float
        From one candidate to the next, in seconds.
    """

    signal: np.ndarray
    start: np.ndarray
    span: np.ndarray
    lead: np.ndarray
    patient: np.ndarray
    database: np.ndarray
    aha_class: np.ndarray
    window_s: float
    step_s: float = STEP_S

    def __len__(self) -> int:
        return len(self.start)

    @property
    def shockable(self) -> np.ndarray:
        """Which candidates are shockable, shape (n_candidates,)."""
        return np.isin(self.aha_class, SHOCKABLE)


def load_strips(
    data: DataConfig, folder: Path | None = None, *, step_s: float = STEP_S, preprocessed: bool = False
) -> Strips:
    """Load the candidates of the training patients, including those of `data.supplement` and `data.extra`.

    Parameters
    ----------
    data : DataConfig
        Databases, split, fold and labels. All leads are loaded, or the first, as `data.train_leads` says.
    folder : pathlib.Path, optional
        Folder that holds the databases.
    step_s : float
        From one candidate to the next, in seconds.
    preprocessed : bool
        Whether the whole leads are preprocessed, as for the windows of `DataConfig`. There are then no candidates of
        the class `ARTEFACT`.

    Raises
    ------
    ValueError
        If a database has no labels, or differs from its manifest.
    FileNotFoundError
        If a database is missing.
    """
    guards = guard_s(data)
    collected = _Collected(data, frozenset(extra_patients(data)), step_s, preprocessed)
    for recording in training_recordings(data, folder):
        windows = cut_windows(
            recording,
            data.window_s,
            guard_s=guards[recording.database],
            leads=data.train_leads,
            preprocessing=data.preprocessing,
            policy=data.labels,
            step_s=step_s,
        )
        collected.add(recording, windows.select(~np.isin(windows.aha_class, INTERMEDIATE)))
    for recording in labelled_recordings(SYNTHETIC) if data.supplement else ():
        windows = cut_windows(recording, data.window_s, guard_s=guards[SYNTHETIC], policy=data.labels, step_s=step_s)
        collected.add(recording, windows.select(np.isin(windows.aha_class, data.supplement)))
    return collected.strips()


class _Collected:
    """Leads and candidates, collected recording by recording."""

    def __init__(self, data: DataConfig, extra: frozenset[str], step_s: float, preprocessed: bool) -> None:
        self._data = data
        self._step_s, self._preprocessed = step_s, preprocessed
        self._extra = extra  # names of the databases whose noise is artefact of people without a shockable rhythm
        self._signals: list[np.ndarray] = []
        self._samples = 0
        self._rows: list[tuple[int, int, int, int, int, str, str, str]] = []

    def add(self, recording: Recording, windows: WindowSet) -> None:
        n = round(self._data.window_s * FS)
        leads = recording.leads if self._data.train_leads == "all" else recording.leads[:1]
        for column, lead in enumerate(leads):
            of_lead = [
                (round(start_s * FS), aha_class)
                for start_s, aha_class, name in zip(windows.start_s, windows.aha_class, windows.lead, strict=True)
                if name == lead
            ]
            with_artefact = recording.database in self._extra and not self._preprocessed
            artefact = list(_artefact_starts(recording, n)) if with_artefact else []
            candidates = [*of_lead, *((start, ARTEFACT) for start in artefact)]
            if not candidates:
                continue
            signal = self._prepare(recording.signal[:, column], recording.fs).astype(np.float32)
            spans = _spans(candidates, n)
            bounds = (self._samples, self._samples + len(signal))
            for (start, aha_class), span in zip(candidates, spans, strict=True):
                self._rows.append(
                    (
                        *(self._samples + start, self._samples + span[0], self._samples + span[1], *bounds),
                        *(recording.patient, recording.database, aha_class),
                    )
                )
            self._signals.append(signal)
            self._samples += len(signal)

    def _prepare(self, lead: np.ndarray, fs: float) -> np.ndarray:
        return preprocess(lead, fs, self._data.preprocessing) if self._preprocessed else resample_recording(lead, fs)

    def strips(self) -> Strips:
        columns = list(zip(*self._rows, strict=True))
        numbers = np.array(columns[:5], dtype=np.int64).T
        patient, database, aha_class = (np.array(column) for column in columns[5:])
        return Strips(
            signal=np.concatenate(self._signals),
            start=numbers[:, 0],
            span=numbers[:, 1:3],
            lead=numbers[:, 3:5],
            patient=patient,
            database=database,
            aha_class=aha_class,
            window_s=self._data.window_s,
            step_s=self._step_s,
        )


def candidate_weights(
    strips: Strips, patient_windows: int, extra: tuple[str, ...] = (), extra_weight: float = 0.4
) -> np.ndarray:
    """Return how much each candidate counts, shape (n_candidates,).

    The candidates of a patient and class count in proportion to their number, up to `patient_windows` windows that do
    not overlap. The nonshockable candidates of the databases `extra` together count `extra_weight`, and the others
    1 - `extra_weight`.
    """
    _, group, size = np.unique(
        np.char.add(np.char.add(strips.patient, "\t"), strips.aha_class), return_inverse=True, return_counts=True
    )
    windows = size * strips.step_s / strips.window_s  # that do not overlap
    weight = (np.minimum(windows, patient_windows) / size)[group]
    nonshockable = ~strips.shockable & (strips.aha_class != ARTEFACT)
    added = nonshockable & np.isin(strips.database, extra)
    if added.any() and (nonshockable & ~added).any():
        weight[added] *= extra_weight / weight[added].sum()
        weight[nonshockable & ~added] *= (1 - extra_weight) / weight[nonshockable & ~added].sum()
    return weight


def _artefact_starts(recording: Recording, n: int) -> Iterable[int]:
    """Yield the first sample at 125 Hz of candidates in segments labelled as noise."""
    for episode in recording.episodes:
        if episode.rhythm == "noise":
            first, last = np.ceil(episode.start_s * FS), np.floor(min(episode.end_s, recording.duration_s) * FS)
            yield from range(int(first), int(last) - n + 1, round(STEP_S * FS))


def _spans(candidates: list[tuple[int, str]], n: int) -> list[tuple[int, int]]:
    """Return the samples from the first to the last of the candidates of one class that follow without interruption."""
    spans: list[tuple[int, int]] = []
    first = 0
    for i, (start, aha_class) in enumerate(candidates):
        last = i + 1 == len(candidates)
        if last or candidates[i + 1][1] != aha_class or not 0 < candidates[i + 1][0] - start <= n:
            spans += [(candidates[first][0], start + n)] * (i + 1 - first)
            first = i + 1
    return spans
