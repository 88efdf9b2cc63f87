"""Simulate ECG recordings, so that the package can be tried without a download.

Results on synthetic recordings say nothing about patients. Beats are sums of Gaussians, as in McSharry et al. 2003
[1]_, with these deviations:

- The Gaussians are summed in time, not integrated as a dynamical system along a limit cycle.
- The delay and width of T waves scale with the square root of the RR interval; other waves do not move.
- RR intervals are a mean plus a respiratory sine, a 0.1 Hz sine and jitter, and are not drawn from a spectrum.
- Morphology, amplitude, polarity and noise are drawn for each patient, from much wider ranges than in healthy people.

Ventricular fibrillation is a carrier of varying frequency, multiplied by a slow random complex amplitude. Heart rates
and amplitudes were chosen by looking at strips of the MIT-BIH and Creighton databases, so these databases are not an
independent test of a network trained on synthetic recordings.

References
----------
.. [1] McSharry et al., IEEE Trans. Biomed. Eng. 50:289-294, 2003, doi:10.1109/TBME.2003.808805
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.rhythms import RHYTHMS

DATABASE = "synthetic"
FS_RANGE_HZ = (125.0, 2000.0)  # mains hum of 60 Hz must be below half the sampling rate
MIN_RHYTHM_S = 5.0

# Heart rates in beats per minute. Rapid and slow VT are at least 5 bpm from the limit between them, 150 bpm.
SINUS_BPM = (55.0, 120.0)  # databases label sinus tachycardia as normal sinus too
BRADYCARDIA_BPM = (28.0, 50.0)
AF_BPM = (60.0, 160.0)
SVT_BPM = (150.0, 220.0)
PACED_BPM = (60.0, 90.0)
ATRIAL_BPM = (65.0, 110.0)  # rate of P waves in heart block and asystole
ESCAPE_BPM = (28.0, 48.0)
IDIOVENTRICULAR_BPM = (20.0, 100.0)  # from agonal to accelerated
SLOW_VT_BPM = (115.0, 145.0)
RAPID_VT_BPM = (160.0, 250.0)
POLYMORPHIC_VT_BPM = (180.0, 260.0)
FLUTTER_BPM = (200.0, 350.0)

# Amplitudes in mV, peak to peak unless a comment says otherwise. Fine VF is below the limit of coarse VF, 0.2 mV.
QRS_MV = (0.3, 3.0)
VT_MV = (0.5, 4.5)
COARSE_VF_MV = (0.6, 4.5)
FINE_VF_MV = (0.13, 0.17)
FIBRILLATORY_WAVE_MV = (0.02, 0.12)  # root mean square
BLOCKED_P_WAVE_MV = 0.03  # in asystole
PACING_SPIKE_MV = (0.3, 2.0)

# Variation of RR intervals: standard deviation or amplitude over mean.
SINUS_RR_VARIATION = 0.02
SVT_RR_VARIATION = 0.005
PACED_RR_VARIATION = 0.001
VT_RR_VARIATION = (0.003, 0.02)
POLYMORPHIC_RR_VARIATION = 0.06
AF_RR_VARIATION = (0.15, 0.3)
RR_JITTER = 0.3  # standard deviation of the jitter over the variation
MAYER_HZ = 0.1  # blood pressure waves
BREATHING_HZ = (0.15, 0.35)
BREATHING_DEPTH = 0.08  # amplitude of the variation of a beat's height, over its mean
MIN_RR_S = 0.24
AF_WAVE_HZ = (4.0, 8.0)
VF_HZ = (3.0, 9.0)
VF_WANDER = (0.03, 0.15)  # standard deviation over mean of the carrier's frequency
VF_BANDWIDTH_HZ = (0.3, 3.0)  # bandwidth of the complex amplitude
VF_REGULARITY = (0.0, 2.5)  # constant part of the complex amplitude, over the standard deviation of its random part
VF_OVERTONE = (0.0, 0.45)  # amplitude of the overtone over that of the carrier
VF_BROADBAND = (0.05, 0.8)  # standard deviation of broadband noise, over that of the complex amplitude
VT_SWING = (0.0, 0.15)  # standard deviation over mean of the complexes' height
TORSADE_HZ = (0.08, 0.3)
TORSADE_SECOND_FORM = (0.3, 0.8)  # height of the second form of beat over that of the first
PREMATURITY = (0.5, 0.75)  # RR interval before a premature beat, over the usual one
PREMATURE_HEIGHT = (0.6, 1.8)  # height of a premature beat over that of the patient's usual QRS

# Waves: peak in mV, time before or after the R peak in s, and width (standard deviation of the Gaussian) in s.
P_MV, P_BEFORE_S, P_WIDTH_S = (0.03, 0.25), (0.13, 0.2), (0.015, 0.03)
NARROW_WIDTH_S, WIDE_WIDTH_S = (0.008, 0.014), (0.018, 0.032)  # Q, R and S waves
QRS_FORMS = (0.45, 0.15, 0.2, 0.2)  # proportion of patients: upright, downward, biphasic, notched (always wide)
WIDE_QRS = 0.2  # proportion of patients with a wide QRS among the first three forms
T_HEIGHT = (0.02, 0.4)  # over the height of the QRS
T_CENTRE_S, T_WIDTH_S = (0.26, 0.34), (0.03, 0.05)
T_FOOT, T_FOOT_BEFORE_S, T_FOOT_WIDTH_S = 0.6, 0.06, 0.06  # makes T waves rise slowly and fall fast
INVERTED_T = 0.25  # proportion of patients
ECTOPIC_WIDTH_S, ECTOPIC_T_WIDTH_S = (0.028, 0.06), (0.05, 0.09)
ECTOPIC_T_HEIGHT = (0.2, 0.9)
SQRT_RR = 0.5  # Bazett's exponent of the QT interval
WAVE_BEFORE_S, WAVE_AFTER_S = 0.6, 1.0  # a beat is zero outside this interval around its R peak

# Noise: root mean square in mV, drawn on a logarithmic scale for each patient.
WANDER_MV = (0.02, 0.5)
MUSCLE_MV = (0.002, 0.03)
MAINS_MV = (0.0005, 0.015)
MOTION_MV = (0.01, 0.12)
QUIET = 0.06  # factor for all noise in asystole and fine VF, which the noise would otherwise hide
GAIN_ERROR = 0.05
INVERTED_LEADS = 0.3  # proportion of patients
OFFSET_MV = 1.0
QUANTUM_MV = 0.005  # 12 bits over ±10.24 mV, as in vfdb
FULL_SCALE_MV = 10.24


@dataclass(frozen=True)
class _Patient:
    """A synthetic patient: random generator, samples per rhythm `n`, sampling rate `fs` in Hz, and waves of the beats.

    A beat is a sum of Gaussians, an array of shape (4, n_waves). Its rows are the peaks in mV, the centres in s from
    the R peak, the widths in s, and exponents: centres and widths are multiplied by (RR interval in s) ** exponent.
    """

    rng: np.random.Generator
    n: int
    fs: float
    p_wave: np.ndarray
    qrs_t: np.ndarray
    ectopic: np.ndarray
    other_ectopic: np.ndarray
    sinus_rr_s: float


# One rhythm without noise: signal in mV, times of the beats in s, and one code for all beats or a code for each.
_Segment = tuple[np.ndarray, np.ndarray, str | np.ndarray]
NO_BEATS = np.empty(0)


def synthetic_recordings(
    patients: int = 60, seed: int = 0, seconds_per_rhythm: float = 15.0, fs: float = 250.0
) -> Iterator[Recording]:
    """Yield one simulated recording per patient.

    Each recording has normal sinus rhythm, asystole, coarse VF or flutter, rapid VT, fine VF or slow VT, two of
    seven other rhythms, and noise, in random order. Any four consecutive patients together have all rhythms.
    The recording of a patient does not depend on the number of patients.

    Parameters
    ----------
    patients : int
        Number of patients, at least 1.
    seed : int
        Seed of all random numbers, 0 or more.
    seconds_per_rhythm : float
        Length of each of a patient's eight episodes in seconds, at least 5.
    fs : float
        Sampling rate in Hz, 125 to 2000.

    Returns
    -------
    iterator of Recording
        Recordings of the database ``"synthetic"`` with one lead, shape (8 · seconds_per_rhythm · fs, 1), in mV. The
        `code` of an episode is its kind, such as ``"fine_vf"``. VF, asystole and noise have no beats.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> recording = next(synthetic_recordings(patients=1, seed=0))
    >>> recording.patient, recording.duration_s, len(recording.episodes)
    ('synthetic/p001', 120.0, 8)
    """
    if patients < 1:
        raise ValueError(f"patients={patients!r} is not allowed; give 1 or more.")
    if seed < 0:
        raise ValueError(f"seed={seed!r} is not allowed; give 0 or more.")
    if not MIN_RHYTHM_S <= seconds_per_rhythm < np.inf:
        raise ValueError(f"seconds_per_rhythm={seconds_per_rhythm!r} is not allowed; give {MIN_RHYTHM_S:g} s or more.")
    low, high = FS_RANGE_HZ
    if not low <= fs <= high:
        raise ValueError(f"fs={fs!r} Hz is out of range; allowed are {low:g} to {high:g} Hz.")
    return (_record_patient(k, seed, seconds_per_rhythm, fs) for k in range(patients))


def _record_patient(k: int, seed: int, seconds: float, fs: float) -> Recording:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,)))
    n = round(seconds * fs)
    patient = _Patient(
        rng=rng,
        n=n,
        fs=fs,
        p_wave=np.array([[rng.uniform(*P_MV)], [-rng.uniform(*P_BEFORE_S)], [rng.uniform(*P_WIDTH_S)], [0.0]]),
        qrs_t=_draw_qrs_t(rng),
        ectopic=draw_ectopic(rng),
        other_ectopic=draw_ectopic(rng),
        sinus_rr_s=60 / rng.uniform(*SINUS_BPM),
    )
    codes = [str(code) for code in rng.permutation(_codes_of_patient(k))]
    segments = [KINDS[code][1](patient) for code in codes]
    edges_s = (np.arange(len(codes) + 1) * n / fs).tolist()
    quiet = np.repeat([code in ("asystole", "fine_vf") for code in codes], n)
    name = f"p{k + 1:03d}"
    return Recording(
        signal=_measure(patient, np.concatenate([signal for signal, _, _ in segments]), quiet)[:, None],
        fs=fs,
        leads=("II",),
        name=name,
        database=DATABASE,
        patient=f"{DATABASE}/{name}",
        episodes=tuple(
            Episode(start_s, end_s, KINDS[code][0], code)
            for start_s, end_s, code in zip(edges_s, edges_s[1:], codes, strict=False)
        ),
        beats_s=np.concatenate([start + beats_s for start, (_, beats_s, _) in zip(edges_s, segments, strict=False)]),
        beat_codes=tuple(np.concatenate([np.full(len(beats_s), code) for _, beats_s, code in segments]).tolist()),
    )


def _codes_of_patient(k: int) -> list[str]:
    """Return the kinds of the eight episodes of patient k; the last five differ from patient to patient."""
    return [
        "normal_sinus",
        "asystole",
        "noise",
        ("coarse_vf", "coarse_vf", "flutter")[k % 3],
        ("rapid_vt", "rapid_vt", "rapid_vt", "polymorphic_vt")[k % 4],
        ("fine_vf", "slow_vt")[k % 2],
        OTHER_NONSHOCKABLE[2 * k % len(OTHER_NONSHOCKABLE)],
        OTHER_NONSHOCKABLE[(2 * k + 1) % len(OTHER_NONSHOCKABLE)],
    ]


def _draw_qrs_t(rng: np.random.Generator) -> np.ndarray:
    """Draw the waves of a beat: Q, R, S and R' in one of four forms, and a T wave (two Gaussians)."""
    upright = (-rng.uniform(0, 0.2), 1.0, -rng.uniform(0, 0.4), 0.0)
    down = (rng.uniform(0, 0.1), rng.uniform(0.05, 0.3), -1.0, 0.0)
    biphasic = (0.0, 1.0, -rng.uniform(0.5, 1.2), 0.0)
    notched = (-rng.uniform(0, 0.3), 1.0, -rng.uniform(0, 0.4), rng.uniform(0.3, 0.9))
    form = rng.choice(len(QRS_FORMS), p=QRS_FORMS)
    qrs = np.array((upright, down, biphasic, notched)[form])
    wide = qrs[3] > 0 or rng.random() < WIDE_QRS
    width = rng.uniform(*(WIDE_WIDTH_S if wide else NARROW_WIDTH_S))
    qrs *= _draw_log_uniform(rng, QRS_MV) / np.ptp(qrs)
    t_peak = (-1 if rng.random() < INVERTED_T else 1) * rng.uniform(*T_HEIGHT) * np.ptp(qrs)
    t_centre = rng.uniform(*T_CENTRE_S)
    return np.array(
        [
            [*qrs, t_peak, T_FOOT * t_peak],
            [*(width * np.array([-2.2, 0.0, 2.2, 4.4])), t_centre, t_centre - T_FOOT_BEFORE_S],
            [*(width * np.array([0.8, 1.0, 1.0, 1.2])), rng.uniform(*T_WIDTH_S), T_FOOT_WIDTH_S],
            [0.0, 0.0, 0.0, 0.0, SQRT_RR, SQRT_RR],
        ]
    )


def draw_ectopic(rng: np.random.Generator) -> np.ndarray:
    """Draw the waves of a wide ventricular beat: main deflection of 1 mV, a shoulder, and a discordant T wave.

    The result has the shape (4, 3): for each wave, the peak in mV, the centre in s from the R peak, the width in s, and
    the power of the RR interval in s by which centre and width are multiplied.
    """
    width = rng.uniform(*ECTOPIC_WIDTH_S)
    shoulder_s = rng.choice([-1.0, 1.0]) * rng.uniform(1.5, 2.2) * width
    return np.array(
        [
            [1.0, rng.uniform(-0.7, 0.7), -rng.uniform(*ECTOPIC_T_HEIGHT)],
            [0.0, shoulder_s, rng.uniform(*T_CENTRE_S)],
            [width, rng.uniform(0.6, 1.2) * width, rng.uniform(*ECTOPIC_T_WIDTH_S)],
            [0.0, 0.0, SQRT_RR],
        ]
    )


def _draw_sinus(p: _Patient, bpm: tuple[float, float] | None = None) -> _Segment:
    """Draw sinus rhythm at the patient's own heart rate, or at a random one in the range `bpm`."""
    beats_s, rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*bpm) if bpm else p.sinus_rr_s)
    return _draw_beats(p, np.hstack([p.p_wave, p.qrs_t]), beats_s, rr_s), beats_s, "N"


def _draw_svt(p: _Patient) -> _Segment:
    """Draw supraventricular tachycardia. It has no P waves, because the T waves would hide them."""
    beats_s, rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*SVT_BPM), SVT_RR_VARIATION)
    return _draw_beats(p, p.qrs_t, beats_s, rr_s), beats_s, "A"


def _draw_af(p: _Patient) -> _Segment:
    beats_s, rr_s = _draw_irregular_times(p, 60 / p.rng.uniform(*AF_BPM), p.rng.uniform(*AF_RR_VARIATION))
    wave_hz = p.rng.uniform(*AF_WAVE_HZ)
    waves = _draw_band_noise(p, 0.85 * wave_hz, 1.15 * wave_hz)
    signal = _draw_beats(p, p.qrs_t, beats_s, rr_s)
    return signal + _draw_log_uniform(p.rng, FIBRILLATORY_WAVE_MV) * waves, beats_s, "N"


def _draw_ventricular_ectopy(p: _Patient) -> _Segment:
    """Draw sinus rhythm in which every second to sixth beat is premature, wide, and followed by a pause."""
    beats_s, rr_s = _draw_regular_times(p, p.sinus_rr_s)
    ectopic = np.arange(len(beats_s)) % p.rng.integers(2, 7) == 1
    beats_s = beats_s - np.where(ectopic, (1 - p.rng.uniform(*PREMATURITY)) * rr_s, 0.0)
    sinus = _draw_beats(p, np.hstack([p.p_wave, p.qrs_t]), beats_s[~ectopic], rr_s[~ectopic])
    scale = p.rng.uniform(*PREMATURE_HEIGHT) * np.ptp(p.qrs_t[0])
    wide = scale * _draw_beats(p, p.ectopic, beats_s[ectopic], rr_s[ectopic])
    inside = beats_s >= 0
    return sinus + wide, beats_s[inside], np.where(ectopic, "V", "N")[inside]


def _draw_heart_block(p: _Patient) -> _Segment:
    """Draw heart block.

    Either every second, third or fourth P wave is blocked, or all P waves are blocked and there is an escape rhythm.
    """
    p_s, p_rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*ATRIAL_BPM))
    if p.rng.random() < 0.5:
        beats_s, rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*ESCAPE_BPM))
    else:
        conducted = np.arange(len(p_s)) % p.rng.integers(2, 5) != 1
        beats_s, rr_s = p_s[conducted], p_rr_s[conducted]
    atria = _draw_beats(p, p.p_wave, p_s, p_rr_s)
    return atria + _draw_beats(p, p.qrs_t, beats_s, rr_s), beats_s, "N"


def _draw_paced(p: _Patient) -> _Segment:
    """Draw wide beats, each after a pacemaker spike."""
    beats_s, rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*PACED_BPM), PACED_RR_VARIATION)
    spike = np.array([[p.rng.choice([-1.0, 1.0]) * _draw_log_uniform(p.rng, PACING_SPIKE_MV)], [-0.08], [0.003], [0.0]])
    wide = _draw_log_uniform(p.rng, QRS_MV) * _draw_beats(p, p.other_ectopic, beats_s, rr_s)
    return wide + _draw_beats(p, spike, beats_s, rr_s), beats_s, "/"


def _draw_idioventricular(p: _Patient) -> _Segment:
    beats_s, rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*IDIOVENTRICULAR_BPM))
    return _draw_log_uniform(p.rng, QRS_MV) * _draw_beats(p, p.ectopic, beats_s, rr_s), beats_s, "V"


def _draw_flutter(p: _Patient) -> _Segment:
    """Draw ventricular flutter. The segment has no beats, because the databases annotate no beats in flutter."""
    return _draw_tachycardia(p, FLUTTER_BPM)[0], NO_BEATS, ""


def _draw_tachycardia(p: _Patient, bpm: tuple[float, float]) -> _Segment:
    beats_s, rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*bpm), p.rng.uniform(*VT_RR_VARIATION))
    signal = _draw_beats(p, p.ectopic, beats_s, rr_s)
    swing = 1 + p.rng.uniform(*VT_SWING) * _draw_band_noise(p, 0.05, 0.5)
    return _scale(signal * swing, _draw_log_uniform(p.rng, VT_MV)), beats_s, "V"


def _draw_polymorphic_vt(p: _Patient) -> _Segment:
    """Draw torsade de pointes: the weights of two forms of beat vary as a slow cosine and sine."""
    beats_s, rr_s = _draw_irregular_times(p, 60 / p.rng.uniform(*POLYMORPHIC_VT_BPM), POLYMORPHIC_RR_VARIATION)
    turn = 2 * np.pi * (p.rng.uniform(*TORSADE_HZ) * np.arange(p.n) / p.fs + p.rng.random())
    signal = np.cos(turn) * _draw_beats(p, p.ectopic, beats_s, rr_s)
    signal += p.rng.uniform(*TORSADE_SECOND_FORM) * np.sin(turn) * _draw_beats(p, p.other_ectopic, beats_s, rr_s)
    return _scale(signal, _draw_log_uniform(p.rng, VT_MV)), beats_s, "V"


def _draw_coarse_vf(p: _Patient) -> _Segment:
    return _draw_fibrillation(p, _draw_log_uniform(p.rng, COARSE_VF_MV)), NO_BEATS, ""


def _draw_fine_vf(p: _Patient) -> _Segment:
    return _draw_fibrillation(p, p.rng.uniform(*FINE_VF_MV)), NO_BEATS, ""


def _draw_fibrillation(p: _Patient, peak_to_peak_mv: float) -> np.ndarray:
    """Draw ventricular fibrillation in mV: a carrier of varying frequency and amplitude, an overtone, and noise."""
    hz = p.rng.uniform(*VF_HZ) * (1 + p.rng.uniform(*VF_WANDER) * _draw_band_noise(p, 0.05, 0.8))
    carrier = np.exp(2j * np.pi * np.cumsum(hz) / p.fs)
    bandwidth_hz = _draw_log_uniform(p.rng, VF_BANDWIDTH_HZ)
    amplitude = _draw_band_noise(p, 0, bandwidth_hz) + 1j * _draw_band_noise(p, 0, bandwidth_hz)
    amplitude += p.rng.uniform(*VF_REGULARITY)
    overtone = p.rng.uniform(*VF_OVERTONE) * np.exp(2j * np.pi * p.rng.random()) * carrier
    broadband = _draw_log_uniform(p.rng, VF_BROADBAND) * _draw_band_noise(p, 1.0, 12.0)
    return _scale((amplitude * carrier * (1 + overtone)).real + broadband, peak_to_peak_mv)


def _draw_asystole(p: _Patient) -> _Segment:
    """Draw asystole: a flat line, or P waves without beats."""
    p_s, p_rr_s = _draw_regular_times(p, 60 / p.rng.uniform(*ATRIAL_BPM))
    p_wave = np.array([[p.rng.choice([0.0, BLOCKED_P_WAVE_MV])], [0.0], [0.03], [0.0]])
    return _draw_beats(p, p_wave, p_s, p_rr_s), NO_BEATS, ""


def _draw_noise(p: _Patient) -> _Segment:
    """Draw sinus rhythm with strong broadband noise, motion artefacts, or steps between two levels."""
    broadband = _draw_band_noise(p, 1.0, 100.0)
    motion = _draw_band_noise(p, 0.3, 8.0) * np.exp(_draw_band_noise(p, 0.05, 0.5))
    steps = np.sign(_draw_band_noise(p, 0.2, 3.0))
    level = _draw_log_uniform(p.rng, (0.4, 3.0))
    beats = _draw_sinus(p)[0]
    return beats + level * (broadband, motion, steps)[p.rng.integers(3)], NO_BEATS, ""


# For each kind of episode, its name in `ecg_shock.rhythms` and the function that draws it.
KINDS: dict[str, tuple[str, Callable[[_Patient], _Segment]]] = {
    "normal_sinus": ("normal_sinus", _draw_sinus),
    "atrial_fibrillation": ("atrial_fibrillation", _draw_af),
    "svt": ("svt", _draw_svt),
    "ventricular_ectopy": ("ventricular_ectopy", _draw_ventricular_ectopy),
    "sinus_bradycardia": ("sinus_bradycardia", partial(_draw_sinus, bpm=BRADYCARDIA_BPM)),
    "heart_block": ("heart_block", _draw_heart_block),
    "paced": ("paced", _draw_paced),
    "idioventricular": ("idioventricular", _draw_idioventricular),
    "asystole": ("asystole", _draw_asystole),
    "coarse_vf": ("vf", _draw_coarse_vf),
    "fine_vf": ("vf", _draw_fine_vf),
    "flutter": ("vf", _draw_flutter),
    "rapid_vt": ("vt", partial(_draw_tachycardia, bpm=RAPID_VT_BPM)),
    "polymorphic_vt": ("vt", _draw_polymorphic_vt),
    "slow_vt": ("vt", partial(_draw_tachycardia, bpm=SLOW_VT_BPM)),
    "noise": ("noise", _draw_noise),
}
OTHER_NONSHOCKABLE = [kind for kind, (rhythm, _) in KINDS.items() if RHYTHMS.get(rhythm) == "other_nonshockable"]


def _measure(p: _Patient, signal: np.ndarray, quiet: np.ndarray) -> np.ndarray:
    """Return the recorded signal in mV: with noise, gain error and offset, quantised and clipped.

    `quiet` marks samples with little noise.
    """
    p = replace(p, n=len(signal))
    motion_bursts = np.clip(_draw_band_noise(p, 0.02, 0.3) - 1, 0, None)
    mains_hz = p.rng.choice([50.0, 60.0])
    noise = (
        _draw_log_uniform(p.rng, WANDER_MV) * _draw_band_noise(p, 0.03, 0.5)
        + _draw_log_uniform(p.rng, MUSCLE_MV) * _draw_band_noise(p, 5.0, 100.0)
        + _draw_log_uniform(p.rng, MAINS_MV) * np.sqrt(2) * np.cos(2 * np.pi * mains_hz * np.arange(p.n) / p.fs)
        + _draw_log_uniform(p.rng, MOTION_MV) * motion_bursts * _draw_band_noise(p, 0.5, 10.0)
    )
    one_second = np.ones(round(p.fs)) / round(p.fs)
    level = np.convolve(np.where(quiet, QUIET, 1.0), one_second, mode="same")
    gain = p.rng.uniform(1 - GAIN_ERROR, 1 + GAIN_ERROR) * (-1 if p.rng.random() < INVERTED_LEADS else 1)
    measured = gain * signal + level * noise + p.rng.uniform(-OFFSET_MV, OFFSET_MV)
    return np.clip(np.round(measured / QUANTUM_MV) * QUANTUM_MV, -FULL_SCALE_MV, FULL_SCALE_MV)


def _draw_regular_times(
    p: _Patient, rr_s: float, variation: float = SINUS_RR_VARIATION
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the times and RR intervals of beats in s. The RR intervals vary with respiration, at 0.1 Hz, and by jitter.

    `variation` is the amplitude of the respiratory variation, and of the 0.1 Hz variation, over the mean RR interval.
    """
    at_s = rr_s * np.arange(int(p.n / p.fs / rr_s * 1.3) + 3)
    respiratory = np.sin(2 * np.pi * (p.rng.uniform(*BREATHING_HZ) * at_s + p.rng.random()))
    slow = np.sin(2 * np.pi * (MAYER_HZ * at_s + p.rng.random()))
    jitter = RR_JITTER * p.rng.standard_normal(len(at_s))
    return _beats_from_intervals(p, rr_s * (1 + variation * (respiratory + slow + jitter)))


def _draw_irregular_times(p: _Patient, rr_s: float, variation: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw times and RR intervals of beats in s, with independent RR intervals."""
    intervals = rr_s * np.exp(variation * p.rng.standard_normal(int(p.n / p.fs / rr_s * 2) + 8))
    return _beats_from_intervals(p, np.maximum(intervals, MIN_RR_S))


def _beats_from_intervals(p: _Patient, rr_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    beats_s = np.cumsum(rr_s) - p.rng.random() * rr_s[0]
    inside = beats_s < p.n / p.fs
    return beats_s[inside], rr_s[inside]


def _draw_beats(p: _Patient, beat: np.ndarray, beats_s: np.ndarray, rr_s: np.ndarray) -> np.ndarray:
    """Return the sum of all beats in mV, shape (n,). The height of the beats varies with breathing."""
    before, after = round(WAVE_BEFORE_S * p.fs), round(WAVE_AFTER_S * p.fs)
    samples = np.round(beats_s * p.fs).astype(int)[:, None] + np.arange(-before, after)
    peak_mv, centre_s, width_s, power = beat
    stretch = rr_s[:, None] ** power
    at_s = beats_s[:, None] + centre_s * stretch
    distance = (samples[:, None, :] / p.fs - at_s[:, :, None]) / (width_s * stretch)[:, :, None]
    waves = np.einsum("w,bwt->bt", peak_mv, np.exp(-0.5 * distance**2))
    breath = 1 + BREATHING_DEPTH * np.sin(2 * np.pi * (p.rng.uniform(*BREATHING_HZ) * beats_s + p.rng.random()))
    padded = np.bincount((samples + before).ravel(), (waves * breath[:, None]).ravel(), p.n + before + after)
    return padded[before : before + p.n]


def _draw_band_noise(p: _Patient, low_hz: float, high_hz: float) -> np.ndarray:
    """Draw Gaussian noise of unit power whose spectrum is flat in a band and zero elsewhere."""
    hz = np.fft.rfftfreq(p.n, 1 / p.fs)
    band = (hz >= low_hz) & (hz <= high_hz) & (hz > 0)
    spectrum = np.zeros(len(hz), dtype=complex)
    spectrum[band] = p.rng.standard_normal(band.sum()) + 1j * p.rng.standard_normal(band.sum())
    noise = np.fft.irfft(spectrum, p.n)
    return noise / noise.std()


def _scale(signal: np.ndarray, peak_to_peak_mv: float) -> np.ndarray:
    return signal * (peak_to_peak_mv / np.ptp(signal))


def _draw_log_uniform(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
