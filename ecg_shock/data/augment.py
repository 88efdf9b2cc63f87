"""Augmentation: training windows drawn anew for each epoch, and changed in ways that keep their label true.

A label depends on the heart rate (ventricular tachycardia), on the amplitude (ventricular fibrillation, asystole) and
on the morphology. Each change keeps what its window's label depends on. The changes follow the path of a recording:
first the heart's rate and amplitude, then artefact of electrodes and chest compressions, then the limits of the device,
and last the preprocessing that all windows share.

Artefact without a heart rhythm is added as *synthetic nonshockable* windows. `AugmentedWindows.rhythm` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ecg_shock.data.manifests import database_path
from ecg_shock.data.noise import NOISE_DATABASE, compressions, draw_noise
from ecg_shock.data.readers import read_record
from ecg_shock.data.strips import ARTEFACT, STEP_S, Strips, candidate_weights
from ecg_shock.data.windows import LabelPolicy, amplitude_mv, rate_bpm
from ecg_shock.preprocessing import FS, Preprocessing, preprocess_strips, resample_recording
from ecg_shock.rhythms import SHOCKABLE

SETTLING_S = 2.0  # of a window that is cut from a longer recording, whose filters have settled
NOISE_RECORDS = ("bw", "em", "ma")
NOISE_LEAD = 1  # the stress tests of validation reports use the other lead of the same records
AMPLITUDE_MARGIN = 1.1  # how far an amplitude that was changed stays from a limit of the label policy
RATE_MARGIN = 1.05  # and a rate
MIN_AMPLITUDE_MV = 0.1  # noise relative to a smaller amplitude, such as that of asystole, is relative to 1 mV
REFERENCE_MV = 1.0
REMOVED_SETTINGS = ("slowed_vt", "slowed_vt_bpm")
ARTEFACT_KINDS = ("labelled", "recorded", "walk", "coloured", "wander", "sawtooth", "compressions", "hum")


class Augmentation(BaseModel):
    """How training windows are drawn and changed.

    Parameters
    ----------
    windows : int
        Number of windows in an epoch. Half of them are shockable.
    patient_windows : int
        Within a class, a patient is drawn in proportion to the number of windows that do not overlap. Patients with
        more than `patient_windows` of these count as if they had this number.
    warp : float
        Largest change of the heart rate, as a proportion. Rapid VT stays above the limit of *rapid*.
    gain : float
        Largest factor by which an amplitude is multiplied or divided. VF stays coarse, and asystole below its limit.
    polarity : bool
        Whether half of the windows are inverted.
    reversal : float
        Proportion of shockable windows that run backwards in time, which changes neither rate nor amplitude. VF has no
        direction, and VT gets another shape of wide beats.
    noise, compressions, mains, clipping, electrode, band : float
        Proportions of windows with recorded noise of nstdb at 0 to 18 dB, modelled chest compressions, mains hum,
        clipped peaks, an electrode that moves or comes off, and the narrower pass band of another device.
    artefact : float
        Proportion of nonshockable windows that are artefact without a heart rhythm: recorded noise, segments that a
        database of `DataConfig.extra` labels as noise, and modelled artefact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    windows: int = Field(default=8192, ge=2)
    patient_windows: int = Field(default=60, ge=1)
    warp: float = Field(default=0.0, ge=0, le=0.5)
    gain: float = Field(default=1.0, ge=1, le=10)
    polarity: bool = False
    reversal: float = Field(default=0.0, ge=0, le=1)
    noise: float = Field(default=0.0, ge=0, le=1)
    compressions: float = Field(default=0.0, ge=0, le=1)
    mains: float = Field(default=0.0, ge=0, le=1)
    clipping: float = Field(default=0.0, ge=0, le=1)
    electrode: float = Field(default=0.0, ge=0, le=1)
    band: float = Field(default=0.0, ge=0, le=1)
    artefact: float = Field(default=0.0, ge=0, lt=0.5)

    @model_validator(mode="before")
    @classmethod
    def _drop_removed_settings(cls, settings: Any) -> Any:
        """Accept the cards of older models, which were trained without slowed VT."""
        if not isinstance(settings, Mapping):
            return settings
        if settings.get("slowed_vt"):
            raise ValueError(f"slowed_vt = {settings['slowed_vt']!r} is not supported any more; leave it out")
        return {name: value for name, value in settings.items() if name not in REMOVED_SETTINGS}

    @property
    def needs_recorded_noise(self) -> bool:
        """Whether recorded noise is added anywhere."""
        return self.noise > 0 or self.artefact > 0


@dataclass(frozen=True, eq=False)
class AugmentedWindows:
    """Windows of one epoch.

    Parameters
    ----------
    ecg : numpy.ndarray
        Shape (n_windows, n_samples), float32, mV, preprocessed, at 125 Hz.
    rhythm : numpy.ndarray
        Shape (n_windows,), strings: the AHA class, or ``"artefact"``.
    shockable : numpy.ndarray
        Shape (n_windows,), bool.
    patient : numpy.ndarray
        Shape (n_windows,), strings; empty for modelled and recorded artefact.
    """

    ecg: np.ndarray
    rhythm: np.ndarray
    shockable: np.ndarray
    patient: np.ndarray


def read_training_noise(folder: Path | None = None) -> dict[str, np.ndarray]:
    """Read the noise of the MIT-BIH Noise Stress Test Database (nstdb).

    Returns
    -------
    dict of str to numpy.ndarray
        The second lead of the records bw, em and ma, by record name, resampled to 125 Hz. The records are not
        calibrated, so the unit is arbitrary.
    """
    found = {}
    for record in NOISE_RECORDS:
        recording = read_record(database_path(NOISE_DATABASE, folder, f"{record}.hea"))
        found[record] = resample_recording(recording.signal[:, NOISE_LEAD], recording.fs).astype(np.float32)
    return found


class Augmenter:
    """Draw the windows of an epoch.

    Parameters
    ----------
    strips : Strips
        The candidates.
    settings : Augmentation
        What is changed, and how often.
    noise : dict of str to numpy.ndarray
        Recorded noise, as `read_training_noise` returns it; may be empty if `settings` need none.
    policy : LabelPolicy
        The limits between classes.
    preprocessing : Preprocessing
        The filter.
    extra : tuple of str
        Names of the databases of `DataConfig.extra`.
    extra_weight : float
        Proportion of the drawn nonshockable windows that is from these databases. Artefact does not count.
    seed : int
        Seed of all random numbers. The windows of an epoch depend only on the seed and on the number of the epoch.

    Raises
    ------
    ValueError
        If there are no candidates for a kind of window that the settings ask for.
    """

    def __init__(
        self,
        strips: Strips,
        settings: Augmentation,
        noise: dict[str, np.ndarray],
        *,
        policy: LabelPolicy,
        preprocessing: Preprocessing,
        extra: tuple[str, ...] = (),
        extra_weight: float = 0.4,
        seed: int = 0,
    ) -> None:
        self.strips = strips
        self._settings = settings
        self._noise = noise
        self._policy = policy
        self._preprocessing = preprocessing
        self._seed = seed
        self._n = round(strips.window_s * FS)
        self._before = round(SETTLING_S * FS)
        self._probabilities = _candidate_probabilities(strips, settings.patient_windows, extra, extra_weight)
        self._artefact = np.flatnonzero(strips.aha_class == ARTEFACT)

    def draw(self, epoch: int) -> AugmentedWindows:
        """Draw the windows of an epoch, counted from 1."""
        settings = self._settings
        rng = np.random.default_rng([self._seed, epoch])
        shockable_count = settings.windows // 2
        nonshockable_count = settings.windows - shockable_count
        artefact = round(settings.artefact * nonshockable_count)
        picked = np.concatenate(
            [
                self._pick("shockable", shockable_count, rng),
                self._pick("nonshockable", nonshockable_count - artefact, rng),
            ]
        )
        raw, clean = self._cut(picked, rng)
        raw = raw * self._gains(picked, clean, rng)[:, np.newaxis]
        clean_amplitude = amplitude_mv(clean)
        rhythm = self.strips.aha_class[picked]
        patient = self.strips.patient[picked]
        if artefact:
            strips, of_patient = self._draw_artefact(artefact, rng)
            raw = np.concatenate([raw, strips])
            clean_amplitude = np.concatenate([clean_amplitude, amplitude_mv(strips[:, self._before :])])
            rhythm = np.concatenate([rhythm, np.full(artefact, ARTEFACT)])
            patient = np.concatenate([patient, of_patient])
        amplitude = np.where(clean_amplitude < MIN_AMPLITUDE_MV, REFERENCE_MV, clean_amplitude)
        ecg = self._record(raw, amplitude, rng)
        order = rng.permutation(len(ecg))
        rhythm = rhythm[order]
        return AugmentedWindows(
            ecg=ecg[order], rhythm=rhythm, shockable=np.isin(rhythm, SHOCKABLE), patient=patient[order]
        )

    def _pick(self, kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
        if not count:
            return np.empty(0, dtype=np.int64)
        candidates, cumulative = self._probabilities[kind]
        if not len(candidates):
            raise ValueError(f"the training recordings hold no {kind} window; choose other databases or another fold.")
        return candidates[np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")]

    def _cut(self, picked: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Cut windows with the samples before them, at drawn offsets and speeds; return them raw and filtered."""
        strips, settings = self.strips, self._settings
        speed = (1.0 + settings.warp) ** rng.uniform(-1, 1, len(picked))
        vt = np.flatnonzero(strips.aha_class[picked] == "rapid_vt")
        if len(vt) and settings.warp:
            at_rest = self._filter(self._read(strips.start[picked[vt]], np.ones(len(vt)), picked[vt]))
            bpm = np.array([rate_bpm(window) for window in at_rest])
            fast_enough = bpm * speed[vt] >= RATE_MARGIN * self._policy.rapid_vt_bpm  # False where no rate was measured
            speed[vt] = np.where(fast_enough, speed[vt], 1.0)
        needed = np.ceil(speed * self._n)
        first, last = strips.span[picked].T
        speed = np.where(needed <= last - first, speed, 1.0)
        needed = np.ceil(speed * self._n)
        # Anywhere in the window's class that includes most of the candidate.
        offset = rng.integers(0, round(STEP_S * FS), len(picked))
        start = np.clip(strips.start[picked] + offset, first, last - needed)
        if settings.reversal:
            backwards = np.isin(strips.aha_class[picked], SHOCKABLE)
            backwards &= rng.random(len(picked)) < settings.reversal
            start = np.where(backwards, start + speed * (self._n - 1), start)
            speed = np.where(backwards, -speed, speed)
        raw = self._read(start, speed, picked)
        return raw, self._filter(raw)

    def _read(self, start: np.ndarray, speed: np.ndarray, picked: np.ndarray) -> np.ndarray:
        """Return strips that begin before the window, interpolated by cubic polynomials (Catmull and Rom).

        A negative speed reads backwards from `start`.
        """
        at = start[:, np.newaxis] + speed[:, np.newaxis] * np.arange(-self._before, self._n)
        lead = self.strips.lead[picked]
        at = np.clip(at, lead[:, :1], lead[:, 1:] - 1)
        whole = np.floor(at).astype(np.int64)
        t = (at - whole).astype(np.float32)
        signal = self.strips.signal

        def samples(shift: int) -> np.ndarray:
            return signal[np.clip(whole + shift, lead[:, :1], lead[:, 1:] - 1)]

        p1 = samples(0)
        moved = np.flatnonzero(t.any(axis=1))
        if len(moved):
            whole, t, lead = whole[moved], t[moved], lead[moved]
            p0, q1, p2, p3 = samples(-1), samples(0), samples(1), samples(2)
            p1[moved] = q1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * q1 + 4 * p2 - p3 + t * (3 * (q1 - p2) + p3 - p0)))
        return p1 - p1[:, self._before : self._before + 1]

    def _filter(self, raw: np.ndarray) -> np.ndarray:
        return preprocess_strips(raw[:, self._before :], FS, self._preprocessing)

    def _gains(self, picked: np.ndarray, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gain = self._settings.gain ** rng.uniform(-1, 1, len(picked))
        amplitude = np.maximum(amplitude_mv(clean), np.finfo(float).tiny)
        aha_class = self.strips.aha_class[picked]
        vf, asystole = aha_class == "coarse_vf", aha_class == "asystole"
        lowest = np.minimum(1.0, AMPLITUDE_MARGIN * self._policy.coarse_vf_mv / amplitude)
        highest = np.maximum(1.0, self._policy.asystole_mv / AMPLITUDE_MARGIN / amplitude)
        gain = np.where(vf, np.maximum(gain, lowest), np.where(asystole, np.minimum(gain, highest), gain))
        return gain * (rng.choice([-1.0, 1.0], len(picked)) if self._settings.polarity else 1.0)

    def _record(self, raw: np.ndarray, amplitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add artefact, apply the limits of a device, and preprocess. `amplitude` is that of each ECG, in mV."""
        settings = self._settings
        raw = raw.astype(np.float64)

        def some(proportion: float) -> np.ndarray:
            return np.flatnonzero(rng.random(len(raw)) < proportion)

        n = raw.shape[1]
        if len(rows := some(settings.noise)):
            for record, of_record in zip(
                NOISE_RECORDS, np.array_split(rng.permutation(rows), len(NOISE_RECORDS)), strict=True
            ):
                drawn = draw_noise(self._noise[record], len(of_record), n, rng)
                power = drawn[:, self._before :].var(axis=1)
                snr = 10 ** (rng.uniform(0, 18, len(of_record)) / 10)
                scale = np.sqrt(amplitude[of_record] ** 2 / 8 / snr / np.maximum(power, np.finfo(float).tiny))
                raw[of_record] += scale[:, np.newaxis] * drawn
        if len(rows := some(settings.compressions)):
            size = amplitude[rows] * 3.0 ** rng.uniform(-1, 1, len(rows))
            raw[rows] += size[:, np.newaxis] * compressions(len(rows), n, FS, rng)
        if len(rows := some(settings.mains)):
            raw[rows] += _hum(len(rows), n, rng) * (amplitude[rows] * rng.uniform(0.05, 0.5, len(rows)))[:, np.newaxis]
        if len(rows := some(settings.electrode)):
            raw[rows] = _move_electrode(raw[rows], amplitude[rows], rng)
        if len(rows := some(settings.clipping)):
            raw[rows] = _clip(raw[rows], rng)
        if len(rows := some(settings.band)):
            raw[rows] = _narrow_band(raw[rows], rng)
        # Half of them as predict filters a strip, half as a stream or a recording, whose filters have settled.
        as_strip = rng.random(len(raw)) < 0.5
        ecg = np.empty((len(raw), self._n), dtype=np.float32)
        ecg[as_strip] = self._filter(raw[as_strip])
        ecg[~as_strip] = preprocess_strips(raw[~as_strip], FS, self._preprocessing)[:, self._before :]
        return ecg

    def _draw_artefact(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw artefact without a heart rhythm, or labelled as noise; return the strips and their patients."""
        n = self._before + self._n
        kinds = ARTEFACT_KINDS if len(self._artefact) else ARTEFACT_KINDS[1:]
        weights = np.array([4.0 if kind in ("labelled", "recorded") else 1.0 for kind in kinds])
        kind = rng.choice(kinds, count, p=weights / weights.sum())
        strips = np.empty((count, n))
        patient = np.full(count, "", dtype=self.strips.patient.dtype)
        for name in kinds:
            rows = np.flatnonzero(kind == name)
            if not len(rows):
                continue
            if name == "labelled":
                chosen = rng.choice(self._artefact, len(rows))
                strips[rows] = self._read(self.strips.start[chosen], np.ones(len(rows)), chosen)
                patient[rows] = self.strips.patient[chosen]
                continue
            if name == "recorded":
                record = NOISE_RECORDS[int(rng.integers(len(NOISE_RECORDS)))]
                drawn = draw_noise(self._noise[record], len(rows), n, rng).astype(np.float64)
            else:
                drawn = _model_artefact(name, len(rows), n, rng)
            height = np.maximum(amplitude_mv(self._filter(drawn)), np.finfo(float).tiny)
            strips[rows] = drawn * (rng.choice([0.15, 0.3, 0.6, 1.2, 2.4, 4.8], len(rows)) / height)[:, np.newaxis]
        return strips, patient


def _candidate_probabilities(
    strips: Strips, patient_windows: int, extra: tuple[str, ...], extra_weight: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the candidates of each kind, and their cumulative probabilities."""
    weight = candidate_weights(strips, patient_windows, extra, extra_weight)
    nonshockable = ~strips.shockable & (strips.aha_class != ARTEFACT)
    kinds = {"shockable": strips.shockable, "nonshockable": nonshockable}
    return {kind: (np.flatnonzero(mask), np.cumsum(weight[mask])) for kind, mask in kinds.items()}


def _hum(count: int, n: int, rng: np.random.Generator) -> np.ndarray:
    hz = rng.choice([50.0, 60.0], (count, 1))
    return 0.5 * np.sin(2 * np.pi * (hz * np.arange(n) / FS + rng.random((count, 1))))


def _move_electrode(raw: np.ndarray, amplitude: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a step that decays, or replace a part of each strip by a constant: an electrode that moves or comes off."""
    count, n = raw.shape
    time_s = np.arange(n) / FS
    begin_s = rng.uniform(0, n / FS, (count, 1))
    height = (amplitude * rng.uniform(0.5, 6, count) * rng.choice([-1, 1], count))[:, np.newaxis]
    decay_s = rng.uniform(0.05, 1.5, (count, 1))
    after_s = time_s - begin_s
    pop = np.where(after_s >= 0, height * np.exp(-np.maximum(after_s, 0) / decay_s), 0.0)
    off = (after_s >= 0) & (after_s < rng.uniform(0.2, 1.5, (count, 1)))
    return np.where(
        rng.random((count, 1)) < 0.5, raw + pop, np.where(off, raw.mean(axis=1, keepdims=True) + height, raw)
    )


def _clip(raw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clip each strip at a drawn level above and below its median, or only on one side."""
    centre = np.median(raw, axis=1, keepdims=True)
    level = np.abs(raw - centre).max(axis=1, keepdims=True) * rng.uniform(0.25, 0.9, (len(raw), 1))
    side = rng.integers(0, 3, (len(raw), 1))
    upper = np.where(side == 0, np.inf, level)
    lower = np.where(side == 1, -np.inf, -level)
    return np.clip(raw - centre, lower, upper)


def _narrow_band(raw: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filter each strip by a high-pass and a low-pass of first order, as another device might."""
    count, n = raw.shape
    size = 2 * n
    frequency = np.fft.rfftfreq(size, 1 / FS)
    low, high = rng.uniform(0.3, 2.0, (count, 1)), rng.uniform(12.0, 40.0, (count, 1))
    at = 1j * frequency
    response = at / (at + low) / (1 + at / high)
    return np.fft.irfft(np.fft.rfft(raw, size, axis=1) * response, size, axis=1)[:, :n]


def _model_artefact(kind: str, count: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Model artefact, shape (count, n), in an arbitrary unit."""
    time_s = np.arange(n) / FS
    if kind == "walk":
        return np.cumsum(rng.standard_normal((count, n)), axis=1)
    if kind == "coloured":
        frequency = np.maximum(np.fft.rfftfreq(n, 1 / FS), FS / n)
        exponent = rng.uniform(0, 1.0, (count, 1))
        spectrum = np.fft.rfft(rng.standard_normal((count, n)), axis=1) * frequency**-exponent
        return np.fft.irfft(spectrum, n, axis=1)
    if kind == "wander":
        hz = rng.uniform(0.1, 1.2, (count, 4, 1))
        return (rng.random((count, 4, 1)) * np.sin(2 * np.pi * (hz * time_s + rng.random((count, 4, 1))))).sum(axis=1)
    if kind == "sawtooth":
        hz, rise = rng.uniform(0.5, 2.0, (count, 1)), rng.uniform(0.02, 0.98, (count, 1))
        phase = (hz * time_s + rng.random((count, 1))) % 1
        return np.where(phase < rise, phase / rise, (1 - phase) / (1 - rise))
    if kind == "compressions":
        return compressions(count, n, FS, rng)
    return _hum(count, n, rng) + 0.1 * rng.standard_normal((count, n))
