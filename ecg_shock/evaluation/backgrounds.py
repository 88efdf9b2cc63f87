"""Backgrounds for global importance analysis: strips of a model's patients, and strips with random phases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.noise import randomise_phases
from ecg_shock.data.synthetic import DATABASE as SYNTHETIC
from ecg_shock.data.windows import amplitude_mv, cut_windows
from ecg_shock.evaluation.stress import cut_strips, draw_clear_windows
from ecg_shock.models.bundle import Bundle
from ecg_shock.preprocessing import FS, hold_invalid, preprocess_strips

SINUS, COARSE_VF, QUIET, RANDOMISED = "sinus rhythm", "coarse VF", "quiet line", "random phases"
KINDS = {"normal_sinus": SINUS, "coarse_vf": COARSE_VF}  # by AHA class
QUIET_MV = 0.05  # peak to peak after the filter; asystole is below 0.1
SUBSETS = ("test", "validation", "train")
MAX_PER_GROUP = 5  # strips of one patient and AHA class
MAX_PER_CLASS = 210  # strips of all patients, so that a model of many patients takes minutes; at least one each
MIN_AMPLITUDE_MV = 1e-6  # avoids a division by zero

# Takes the name of a stage and its number of steps; returns a function to call after each step.
OnStage = Callable[[str, int], Callable[[], Any]]


@dataclass(frozen=True, eq=False)
class Background:
    """Raw strips of one kind and one sampling rate, to which patterns are added.

    Parameters
    ----------
    kind : str
        What the strips show, such as ``"sinus rhythm"``.
    strips, fs : numpy.ndarray, float
        Shape (n_strips, n), mV, without invalid samples; and the sampling rate in Hz.
    patient : numpy.ndarray
        Shape (n_strips,), str.
    beats_s : tuple of numpy.ndarray
        For each strip, the times of the annotated beats in s from its start; empty if there are none.
    """

    kind: str
    strips: np.ndarray
    fs: float
    patient: np.ndarray
    beats_s: tuple[np.ndarray, ...]

    def select(self, chosen: np.ndarray) -> Background:
        """Return some of the strips; `chosen` is an array of bool."""
        beats = tuple(beats for beats, one in zip(self.beats_s, chosen.tolist(), strict=True) if one)
        return Background(self.kind, self.strips[chosen], self.fs, self.patient[chosen], beats)


def load_backgrounds(
    bundle: Bundle,
    folder: Path | None = None,
    *,
    seed: int = 0,
    on_stage: OnStage = lambda stage, steps: lambda: None,
) -> tuple[str, dict[str, list[Background]]]:
    """Cut strips of a model's patients from the first lead, and randomise the phases of the nonshockable strips.

    Returns
    -------
    subset : {"test", "validation", "train"}
        The subset of the patients whose strips were cut.
    backgrounds : dict of str to list of Background
        The backgrounds of each kind, one for each sampling rate.

    Raises
    ------
    ValueError
        If the card of the model does not name its patients, or if the patients have no strip of sinus rhythm.
    FileNotFoundError
        If a database is missing.
    """
    from ecg_shock.data.datasets import guard_s, labelled_recordings  # slow to import

    card = bundle.card
    config, window_s = card.data, bundle.spec.input_samples / FS
    subset = next((name for name in SUBSETS if getattr(card.patients, name)), "")
    chosen = frozenset(getattr(card.patients, subset)) if subset else frozenset()
    per_group = max(1, min(MAX_PER_GROUP, MAX_PER_CLASS // max(1, len(chosen))))
    step = on_stage("recordings", len(chosen))
    strips: dict[tuple[str, float], list[Background]] = {}
    for name in config.databases:
        manifest = None if name == SYNTHETIC else load_manifest(name)
        records = [record for record in manifest.records if manifest.patient_of(record) in chosen] if manifest else None
        for recording in labelled_recordings(name, folder, records):
            if recording.patient not in chosen:
                continue
            guard = guard_s(config)[recording.database]
            cut = cut_windows(
                recording, window_s, guard_s=guard, preprocessing=config.preprocessing, policy=config.labels
            )
            drawn = draw_clear_windows(cut, per_group, seed)
            for aha_class in sorted(set(drawn.aha_class.tolist()) - {"rapid_vt"}):
                start_s = drawn.start_s[drawn.aha_class == aha_class]
                one = Background(
                    aha_class,
                    hold_invalid(cut_strips(recording, recording.leads[0], start_s, window_s)),
                    recording.fs,
                    np.full(len(start_s), recording.patient),
                    tuple(_inside(recording.beats_s - first_s, window_s) for first_s in start_s),
                )
                strips.setdefault((aha_class, recording.fs), []).append(one)
            step()
    found: dict[str, list[Background]] = {SINUS: [], COARSE_VF: [], QUIET: [], RANDOMISED: []}
    rng = np.random.default_rng(seed)
    for (aha_class, fs), parts in sorted(strips.items()):
        joined = Background(
            KINDS.get(aha_class, aha_class),
            np.concatenate([part.strips for part in parts]),
            fs,
            np.concatenate([part.patient for part in parts]),
            tuple(beats for part in parts for beats in part.beats_s),
        )
        if aha_class in KINDS:
            found[joined.kind].append(joined)
        if aha_class != "coarse_vf":
            found[QUIET].append(without_beats(joined, rng, QUIET_MV))
            found[RANDOMISED].append(without_beats(joined, rng))
    if not found[SINUS]:
        raise ValueError(
            f"the patients on the card of {bundle.folder} have no strip of normal sinus rhythm of {window_s:g} s; give "
            "a model whose card names patients with such strips."
        )
    return subset, found


def _inside(beats_s: np.ndarray, window_s: float) -> np.ndarray:
    return beats_s[(beats_s >= 0) & (beats_s < window_s)]


def scale_to(strips: np.ndarray, fs: float, mv: float) -> np.ndarray:
    """Scale strips so that their peak-to-peak amplitude after the default filter is `mv`; see `amplitude_mv`."""
    return strips * (mv / np.maximum(amplitude_mv(preprocess_strips(strips, fs)), MIN_AMPLITUDE_MV))[:, None]


def without_beats(background: Background, rng: np.random.Generator, mv: float | None = None) -> Background:
    """Return a background with random phases, of the kind `RANDOMISED`, or scaled to `mv`, of the kind `QUIET`."""
    strips = randomise_phases(background.strips, rng)
    if mv is not None:
        strips = scale_to(strips, background.fs, mv)
    no_beats = (np.empty(0),) * len(strips)
    return Background(RANDOMISED if mv is None else QUIET, strips, background.fs, background.patient, no_beats)
