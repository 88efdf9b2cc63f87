"""Write and check the sidecar of an exported network, a JSON file with the information that a device needs.

The name of the sidecar is the name of the network's file with ``.json`` appended. It describes the preprocessing, the
decision, the origin of the network and its results on the validation subset. Its golden vectors are samples with the
expected results, for tests of an implementation.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.export.c_code import DEFAULT_STEP, allowed_taps
from ecg_shock.export.rescoring import Rescoring, limits_of
from ecg_shock.export.rules import (
    C_CHECKS,
    CONSTANTS,
    QUALITY_CHECKS,
    QUALITY_RULE,
    QUALITY_TERMS,
    STREAM_STEPS,
    STRIP_STEPS,
    QualityCheck,
)
from ecg_shock.export.runtimes import (
    INT8_MAX,
    INT8_MIN,
    KERNELS,
    ONNX_PACKAGES,
    RUNTIMES,
    CCode,
    LiteRt,
    Runtime,
    Tensor,
    find_version,
)
from ecg_shock.files import explain, sha256, versions
from ecg_shock.inference.quality import unusable_reasons
from ecg_shock.models.bundle import KERAS_NAME, LITERT_NAME, Bundle, logit_of
from ecg_shock.preprocessing import (
    FS,
    GRID_MV,
    RESAMPLER_DELAY_SAMPLES,
    WARM_UP_S,
    Preprocessing,
    preprocess,
    rate_ratio,
)

# Range of the int8 input. Larger amplitudes are clipped; a wider range would have coarser steps.
INT8_RANGE_MV = 3.0
INT8_STEP_MV = INT8_RANGE_MV / -INT8_MIN
INT8_ENDS_MV = (INT8_MIN * INT8_STEP_MV, INT8_MAX * INT8_STEP_MV)

DEVICE_RATES_HZ = (125, 250, 360, 500, 1000)
GOLDEN_SEED = 1  # the seed of synthetic training windows is 0
GOLDEN_KINDS = ("normal_sinus", "atrial_fibrillation", "asystole", "coarse_vf", "rapid_vt")
GOLDEN_MISSING_S = ((0.0, 0.02), (3.0, 3.2))
GOLDEN_FAULTY = "rapid_vt"  # the network advises a shock for some of its faulty versions
MISSING_PROPORTION, CONSTANT_S, RANGE_MV, STEP_MV = 0.16, 1.2, 100.0, 300.0
CLIPPED_HZ, CLIPPED_MV, RAIL_MV, NOISE_MV = 3.3, 10.0, 1.0, 0.3
HUM_HZ, HUM_MV = 49.7, 2.0  # at exactly 50 Hz, samples at some rates repeat and look saturated
GOLDEN_MV_DIGITS, GOLDEN_FILTERED_DIGITS = 3, 6  # raw samples in steps of 1 µV, filtered ones in steps of 1 nV
GOLDEN_TOLERANCE = 1e-5  # for filtered samples in mV, and for the outputs of a float model
GOLDEN_STREAM_TOLERANCE = 1e-3  # for the logit of C code, which filters in single precision


class _Table(BaseModel):
    """Base class of the tables of the sidecar. Fields with a default are optional."""

    model_config = ConfigDict(frozen=True)


class CFiles(_Table):
    """The C code: sampling rate of the device in Hz, type of the weights, and digests of the files."""

    fs: float
    weights: Literal["float", "int8"]
    sha256: dict[str, str]


class Decision(_Table):
    """The smallest probability and the smallest logit at which a shock is advised; for int8 also the stored logit."""

    rule: str
    threshold: float
    threshold_logit: float
    threshold_stored: int | None = None


class Input(_Table):
    """The network's input: the fields of `Tensor`, the sampling rate in Hz, the units, and for int8 the range in mV."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None
    fs: float
    window_s: float
    units: str
    range_mv: tuple[float, float] | None = None


class Filter(_Table):
    """The preprocessing, in words and numbers."""

    steps: tuple[str, ...]
    strip_steps: tuple[str, ...]
    constants: dict[str, float]
    parameters: dict[str, Any]
    sos: list[list[float]]
    grid_mv: float | None
    resampler: dict[str, Any]  # delay in seconds; taps for common sampling rates in Hz and that of `golden`


class Quality(_Table):
    """The rule for unusable windows, in words and numbers."""

    rule: str
    terms: dict[str, str]
    checks: tuple[QualityCheck, ...]


class Kernels(_Table):
    """What computed the golden vectors; for int8 also the largest difference to LiteRT's default kernels in steps."""

    golden: str
    default_kernels_differ_by: int | None = None


class Golden(_Table):
    """A golden vector: a synthetic strip with the expected filtered samples, outputs, quality and decision."""

    name: str
    synthetic: bool
    fs: float
    rate: str  # the key of `fs` in rates_hz
    window: str
    raw_window: int  # number of last raw samples that the checks of the quality use
    logit: float
    probability: float
    usable: bool
    reason: str
    shock: bool
    stored_logit: int | None = None
    stored_probability: int | None = None
    stored_window: list[int] | None = None
    preprocessed_mv: list[float]
    raw_mv: list[float | None]


class Sidecar(_Table):
    """The content of a sidecar."""

    format: Literal[2]
    notice: str
    kind: Literal["litert", "litert-int8", "onnx", "c", "c-int8"]
    file: str
    sha256: str
    bytes: int
    c: CFiles | None = None
    bundle: dict[str, Any]  # name, commit, digests, and own threshold and window length of the exported bundle
    classes: tuple[str, str]
    decision: Decision
    input: Input
    outputs: tuple[Tensor, Tensor]
    kernels: Kernels
    preprocessing: Filter
    quality: Quality
    golden: tuple[Golden, ...]
    rescoring: dict[str, Any]  # subset, limits, and the fields of `Rescoring`
    versions: dict[str, str]


def sidecar_of(path: Path) -> Path:
    """Return the path of the sidecar of an exported network."""
    return path.with_name(f"{path.name}.json")


def write_sidecar(
    path: Path,
    to: Any,
    bundle: Bundle,
    original: Bundle,
    exported: Runtime,
    rescoring: Rescoring,
    golden: tuple[Golden, ...],
    *,
    code: list[Path],
) -> Path:
    """Write the sidecar of an exported network, and return its path.

    Parameters
    ----------
    path : pathlib.Path
        The network's file.
    to : {"litert", "litert-int8", "onnx", "c", "c-int8"}
        Its format.
    bundle : Bundle
        The exported bundle, with the threshold and the window length of the export.
    original : Bundle
        The same bundle with its own threshold and window length.
    exported : Runtime
        The network, loaded from its file.
    rescoring : Rescoring
        Comparison with the bundle.
    golden : tuple of Golden
        The result of `golden_vectors`.
    code : list of pathlib.Path
        The files of C code; empty for the other formats.
    """
    fs = golden[0].fs
    window_s = bundle.spec.input_samples / FS
    ecg: dict[str, Any] = {**asdict(exported.input), "fs": FS, "window_s": window_s, "units": "mV"}
    optional: dict[str, Any] = {}
    if code:
        digests = {file.name: sha256(file) for file in code}
        optional["c"] = CFiles(fs=fs, weights="int8" if to == "c-int8" else "float", sha256=digests)
    if exported.input.dtype == "int8":
        ecg["range_mv"] = INT8_ENDS_MV
    packages = {name: found for name in ONNX_PACKAGES if to == "onnx" and (found := find_version(name))}
    sidecar = Sidecar(
        format=2,
        notice="Not a medical device, and not a claim of conformity with any standard.",
        kind=to,
        file=path.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        bundle={
            "name": bundle.name,
            "commit": bundle.card.commit,
            "synthetic": bundle.synthetic,
            "threshold": original.threshold,
            "window_s": original.spec.input_samples / FS,
            "sha256": {name: bundle.digests[name] for name in (KERAS_NAME, LITERT_NAME)},
        },
        classes=("nonshockable", "shockable"),
        decision=_decision(bundle.threshold, exported),
        input=Input(**ecg),
        outputs=(exported.logit, exported.probability),
        preprocessing=Filter(
            steps=STREAM_STEPS,
            strip_steps=STRIP_STEPS,
            constants=CONSTANTS,
            parameters=bundle.preprocessing.to_dict(),
            sos=bundle.preprocessing.sos.tolist(),
            grid_mv=GRID_MV if bundle.preprocessing.grid else None,
            resampler={
                "delay_s": RESAMPLER_DELAY_SAMPLES / FS,
                "rates_hz": {_rate_key(rate): _resampler_for(rate) for rate in sorted({*DEVICE_RATES_HZ, fs})},
            },
        ),
        kernels=_kernels(path, to, exported, golden),
        quality=Quality(
            rule=QUALITY_RULE,
            terms=QUALITY_TERMS,
            checks=tuple(replace(check, included=bool(code) and check.name in C_CHECKS) for check in QUALITY_CHECKS),
        ),
        golden=golden,
        rescoring={"kept_within": limits_of(to), **asdict(rescoring)},
        versions={**versions(), **packages},
        **optional,
    )
    written = sidecar_of(path)
    written.write_text(_json(sidecar.model_dump(exclude_unset=True)) + "\n", encoding="utf-8")
    return written


def check_export(path: Path) -> None:
    """Check an exported network against its sidecar: digest, decision, preprocessing and golden vectors.

    Parameters
    ----------
    path : pathlib.Path
        The network's file, with the sidecar in the same folder.

    Raises
    ------
    ValueError
        If the file was changed, or does not give the results of the golden vectors.
    FileNotFoundError
        If a file is missing.
    """
    try:
        sidecar = Sidecar.model_validate_json(sidecar_of(path).read_bytes())
        preprocessing = Preprocessing(**sidecar.preprocessing.parameters)
    except ValidationError as error:
        raise ValueError(f"{sidecar_of(path)} cannot be read as a sidecar: {'; '.join(explain(error))}") from error
    except TypeError as error:
        raise ValueError(f"{sidecar_of(path)} cannot be read as a sidecar: {error}") from error
    digests = {path.name: sidecar.sha256, **(sidecar.c.sha256 if sidecar.c else {})}
    for name, wanted in digests.items():
        file = path.with_name(Path(name).name)
        found = sha256(file)
        if found != wanted:
            raise ValueError(
                f"{file} has SHA-256 {found}, but its sidecar says {wanted}: the file was changed or damaged. "
                "Export again."
            )
    exported = RUNTIMES[sidecar.kind](path)
    decision = _decision(sidecar.decision.threshold, exported)
    decided = all(
        vector.shock == (vector.usable and vector.logit >= decision.threshold_logit) for vector in sidecar.golden
    )
    if sidecar.decision != decision or not decided:
        raise ValueError(
            f"the decision in {sidecar_of(path)} contradicts the threshold of {decision.threshold:g} or the golden "
            "vectors in this file: the file was changed. Export again."
        )
    for vector in sidecar.golden:
        _check_golden(path, exported, preprocessing, vector)
    wrong = exported.selftest() if isinstance(exported, CCode) else 0
    if wrong:
        raise ValueError(
            f"selftest.c in {path.parent} finds {wrong} wrong golden vectors on this machine. Export again."
        )


def _check_golden(path: Path, exported: Runtime, preprocessing: Preprocessing, vector: Golden) -> None:
    raw = np.array(vector.raw_mv, dtype=np.float64)  # None becomes NaN
    filtered = preprocess(raw, vector.fs, preprocessing)
    stored = exported.run(np.array([vector.preprocessed_mv[-exported.input.shape[1] :]]))
    wanted = [vector.logit, vector.probability]
    outputs = [exported.logit.read(stored[0]).item(), exported.probability.read(stored[1]).item()]
    streamed = exported.stream(raw) if isinstance(exported, CCode) else vector.logit
    reason = _reason(raw[-vector.raw_window :], vector.fs, filtered[-exported.input.shape[1] :])
    # For int8, the outputs must be equal, because the tolerance is far below one step.
    if (
        not np.allclose(filtered, vector.preprocessed_mv, rtol=0, atol=GOLDEN_TOLERANCE)
        or not np.allclose(outputs, wanted, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE)
        or not np.isclose(streamed, vector.logit, rtol=GOLDEN_STREAM_TOLERANCE, atol=GOLDEN_STREAM_TOLERANCE)
        or reason != vector.reason
        or vector.usable != (not reason)
    ):
        raise ValueError(
            f"{path} does not reproduce the golden vector {vector.name!r} of its sidecar: the filtered samples or the "
            f"quality differ, or logit and probability are {outputs} (logit from raw samples: {streamed}) instead of "
            f"{wanted}. Export again with this version of the package."
        )


def _decision(threshold: float, exported: Runtime) -> Decision:
    logit = logit_of(threshold)
    rule = "a shock is advised if no check of quality finds a fault and logit >= threshold_logit"
    if exported.logit.dtype != "int8":
        return Decision(rule=rule, threshold=threshold, threshold_logit=logit)
    # If all possible logits are below the threshold, the stored threshold is 128, above every stored logit.
    below = np.sum(exported.logit.read(np.arange(INT8_MIN, INT8_MAX + 1)) < logit)
    rule += ", that is the stored logit >= threshold_stored"
    return Decision(rule=rule, threshold=threshold, threshold_logit=logit, threshold_stored=INT8_MIN + int(below))


def _resampler_for(fs: float) -> dict[str, Any]:
    up, down = rate_ratio(fs)
    return {"up": up, "down": down, "taps": allowed_taps(fs).tolist()}


def _rate_key(fs: float) -> str:
    return f"{fs:.12g}"


def _kernels(path: Path, to: str, exported: Runtime, golden: tuple[Golden, ...]) -> Kernels:
    if to != "litert-int8":
        return Kernels(golden=KERNELS[to])
    n = exported.input.shape[1]
    stored, _ = LiteRt(path).run(np.array([vector.preprocessed_mv[-n:] for vector in golden]))
    steps = np.abs(stored.astype(int) - np.array([vector.stored_logit for vector in golden])).max()
    return Kernels(golden=KERNELS[to], default_kernels_differ_by=int(steps))


def _reason(raw: np.ndarray, fs: float, filtered: np.ndarray) -> str:
    return str(unusable_reasons(raw[np.newaxis], fs, filtered[np.newaxis])[0])


def golden_vectors(bundle: Bundle, exported: Runtime, fs: float) -> tuple[Golden, ...]:
    """Return simulated strips with their filtered samples, outputs, quality and decisions.

    Parameters
    ----------
    bundle : Bundle
        The exported bundle.
    exported : Runtime
        The network, loaded from its file.
    fs : float
        Sampling rate of the strips in Hz.
    """
    n = bundle.spec.input_samples
    samples = _golden_samples(n, fs)
    every = 1 if fs >= FS else 2  # synthetic recordings need at least 125 Hz
    recording = next(iter(synthetic_recordings(1, GOLDEN_SEED, fs=every * fs)))
    first = {episode.code: round(episode.start_s * recording.fs) for episode in recording.episodes}
    strips = {
        kind: recording.signal[first[kind] :: every, 0][:samples].round(GOLDEN_MV_DIGITS) for kind in GOLDEN_KINDS
    }
    missing = strips[GOLDEN_KINDS[0]].copy()
    for first_s, last_s in GOLDEN_MISSING_S:
        missing[round(first_s * fs) : round(last_s * fs)] = np.nan
    strips[f"{GOLDEN_KINDS[0]}, invalid samples"] = missing
    raw_window = round(Fraction(n * rate_ratio(fs)[1], rate_ratio(fs)[0]))
    strips |= _with_faults(strips[GOLDEN_FAULTY], fs, raw_window)

    vectors = []
    for name, raw in strips.items():
        filtered = preprocess(raw, fs, bundle.preprocessing).round(GOLDEN_FILTERED_DIGITS)
        logit, probability = exported.run(filtered[np.newaxis, -n:])
        stored: dict[str, Any] = {}
        if exported.input.dtype == "int8":
            window = exported.input.store(filtered[-n:]).tolist()
            stored = {"stored_logit": logit.item(), "stored_probability": probability.item(), "stored_window": window}
        value = exported.logit.read(logit).item()
        reason = _reason(raw[-raw_window:], fs, filtered[-n:])
        vectors.append(
            Golden(
                name=name,
                synthetic=True,
                fs=fs,
                rate=_rate_key(fs),
                window=f"the last {n} of preprocessed_mv",
                raw_window=raw_window,
                logit=value,
                probability=exported.probability.read(probability).item(),
                usable=not reason,
                reason=reason,
                shock=not reason and value >= logit_of(bundle.threshold),
                preprocessed_mv=filtered.tolist(),
                raw_mv=[None if math.isnan(mv) else mv for mv in raw.tolist()],
                **stored,
            )
        )
    return tuple(vectors)


def _with_faults(ecg: np.ndarray, fs: float, raw_window: int) -> dict[str, np.ndarray]:
    """Return a strip with each fault that the checks of the quality find; the names end with those of the checks."""
    window = slice(len(ecg) - raw_window, len(ecg))
    middle = window.start + raw_window // 4
    time = np.arange(len(ecg)) / fs
    missing, flat, ringing = ecg.copy(), ecg.copy(), ecg.copy()
    missing[middle : middle + round(MISSING_PROPORTION * raw_window)] = np.nan
    flat[middle : middle + math.ceil(CONSTANT_S * fs)] = flat[middle]
    ringing[: window.start] += STEP_MV
    clipped = CLIPPED_MV * np.cos(2 * np.pi * CLIPPED_HZ * time)
    faults = {
        f"{GOLDEN_FAULTY}, missing": missing,
        f"{GOLDEN_FAULTY}, out of range": ecg * RANGE_MV / np.ptp(ecg[window]),
        f"{GOLDEN_FAULTY}, flat": flat,
        "saturated": np.clip(clipped, -RAIL_MV, RAIL_MV),
        f"{GOLDEN_FAULTY}, ringing": ringing,
        "mains hum": HUM_MV * np.cos(2 * np.pi * HUM_HZ * time),
        "broadband noise": np.random.default_rng(GOLDEN_SEED).normal(0, NOISE_MV, len(ecg)),
    }
    return {name: strip.round(GOLDEN_MV_DIGITS) for name, strip in faults.items()}


def _golden_samples(n: int, fs: float) -> int:
    """Return the number of raw samples of a golden vector: a warm-up and a window, up to an advice of the C code."""
    up, down = rate_ratio(fs)
    for filtered in count(n + round(WARM_UP_S * FS), DEFAULT_STEP):
        samples = filtered * down // up
        if math.ceil(Fraction(samples * up, down)) == filtered:  # not if one sample completes two at 125 Hz
            break
    return samples


def _json(value: Any, indent: str = "") -> str:
    """Return readable JSON: each entry on its own line, and each list of numbers on one line."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        entries = ",\n".join(f"{inner}{json.dumps(key)}: {_json(entry, inner)}" for key, entry in value.items())
        return f"{{\n{entries}\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (dict, list, str)) for entry in value):
        return "[\n" + ",\n".join(f"{inner}{_json(entry, inner)}" for entry in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)
