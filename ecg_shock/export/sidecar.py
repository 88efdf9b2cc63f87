"""Write and check the sidecar of an exported network, a JSON file with the information that a device needs.

The name of the sidecar is the name of the network's file with ``.json`` appended. It describes the preprocessing, the
decision, the origin of the network and its results on the validation subset. Its golden vectors are samples with the
expected results, for tests of an implementation.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.export.c_code import DEFAULT_STEP
from ecg_shock.export.rescoring import Rescoring, limits_of
from ecg_shock.export.runtimes import INT8_MAX, INT8_MIN, ONNX_PACKAGES, RUNTIMES, CCode, Runtime, Tensor, find_version
from ecg_shock.files import explain, sha256, versions
from ecg_shock.models.bundle import KERAS_NAME, LITERT_NAME, Bundle, logit_of
from ecg_shock.preprocessing import (
    FS,
    GAP_S,
    GRID_MV,
    MAX_MV,
    RESAMPLER_DELAY_SAMPLES,
    WARM_UP_S,
    Preprocessing,
    preprocess,
    rate_ratio,
    resampler_taps,
)

# Range of the int8 input. Larger amplitudes are clipped; a wider range would have coarser steps.
INT8_RANGE_MV = 3.0
INT8_STEP_MV = INT8_RANGE_MV / -INT8_MIN
INT8_ENDS_MV = (INT8_MIN * INT8_STEP_MV, INT8_MAX * INT8_STEP_MV)

DEVICE_RATES_HZ = (125, 250, 360, 500, 1000)
GOLDEN_SEED = 1  # the seed of synthetic training windows is 0
GOLDEN_KINDS = ("normal_sinus", "atrial_fibrillation", "asystole", "coarse_vf", "rapid_vt")
GOLDEN_MISSING_S = ((0.0, 0.02), (3.0, 3.2))
GOLDEN_MV_DIGITS, GOLDEN_FILTERED_DIGITS = 3, 6  # raw samples in steps of 1 µV, filtered ones in steps of 1 nV
GOLDEN_TOLERANCE = 1e-5  # for filtered samples in mV, and for the outputs of a float model
GOLDEN_STREAM_TOLERANCE = 1e-3  # for the logit of C code, which filters in single precision

STEPS = (
    f"The network takes a window of one lead in mV at {FS:g} Hz after these steps, which are all causal.",
    f"1. Replace each invalid sample (lead off, saturated, beyond {MAX_MV:g} mV) by the last valid one. Before the "
    "first valid sample the signal is 0.",
    f"2. Subtract the value of the first valid sample from all samples. After {GAP_S:g} s or more without a valid "
    "sample, change the subtracted value so that the next valid sample continues from the last value.",
    f"3. Resample to {FS:g} Hz: insert up - 1 zeros after each sample, filter with the taps (FIR), and keep the first "
    "and then every down-th sample. The package computes the taps for other sampling rates.",
    "4. Filter with the second-order sections in their order. A row is b0 b1 b2 a0 a1 a2; all states begin at 0. A "
    "mains notch, if any, is the last section.",
    "5. If grid_mv is a number, round to its multiples.",
    "6. The window consists of the last samples. For an int8 input divide by scale, round to nearest, add zero_point, "
    "and clip to -128 to 127.",
    "Not included: the quality rules. If a strip is unusable (flat, saturated, noisy, out of range, mostly missing, or "
    "ringing of the filter after a fault), no shock may be advised, whatever the network's output is; see "
    "ecg_shock.inference.quality.",
)


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
    units: str
    range_mv: tuple[float, float] | None = None


class Filter(_Table):
    """The preprocessing."""

    steps: tuple[str, ...]
    parameters: dict[str, Any]
    sos: list[list[float]]
    grid_mv: float | None
    resampler: dict[str, Any]  # delay in seconds, and taps for common sampling rates in Hz


class Golden(_Table):
    """A golden vector: a synthetic strip with the expected filtered samples, outputs and decision."""

    name: str
    synthetic: bool
    fs: float
    window: str
    logit: float
    probability: float
    shock: bool
    stored_logit: int | None = None
    stored_probability: int | None = None
    stored_window: list[int] | None = None
    preprocessed_mv: list[float]
    raw_mv: list[float | None]


class Sidecar(_Table):
    """The content of a sidecar."""

    format: Literal[1]
    notice: str
    kind: Literal["litert", "litert-int8", "onnx", "c", "c-int8"]
    file: str
    sha256: str
    bytes: int
    c: CFiles | None = None
    bundle: dict[str, Any]  # name, commit and digests of the exported bundle
    classes: tuple[str, str]
    decision: Decision
    input: Input
    outputs: tuple[Tensor, Tensor]
    kernels: str = ""
    preprocessing: Filter
    golden: tuple[Golden, ...]
    rescoring: dict[str, Any]  # subset, limits, and the fields of `Rescoring`
    versions: dict[str, str]


def sidecar_of(path: Path) -> Path:
    """Return the path of the sidecar of an exported network."""
    return path.with_name(f"{path.name}.json")


def write_sidecar(
    path: Path, to: Any, bundle: Bundle, exported: Runtime, rescoring: Rescoring, *, code: list[Path], fs: float
) -> Path:
    """Write the sidecar of an exported network, and return its path.

    Parameters
    ----------
    path : pathlib.Path
        The network's file.
    to : {"litert", "litert-int8", "onnx", "c", "c-int8"}
        Its format.
    bundle : Bundle
        The exported bundle.
    exported : Runtime
        The network, loaded from its file.
    rescoring : Rescoring
        Comparison with the bundle.
    code : list of pathlib.Path
        The files of C code; empty for the other formats.
    fs : float
        Sampling rate of the golden vectors in Hz; for C that of the device.
    """
    ecg: dict[str, Any] = {**asdict(exported.input), "fs": FS, "units": "mV"}
    optional: dict[str, Any] = {}
    if code:
        digests = {file.name: sha256(file) for file in code}
        optional["c"] = CFiles(fs=fs, weights="int8" if to == "c-int8" else "float", sha256=digests)
    if exported.input.dtype == "int8":
        ecg["range_mv"] = INT8_ENDS_MV
        optional["kernels"] = "LiteRT reference, equal to TFLite Micro"
    packages = {name: found for name in ONNX_PACKAGES if to == "onnx" and (found := find_version(name))}
    sidecar = Sidecar(
        format=1,
        notice="Not a medical device, and not a claim of conformity with any standard.",
        kind=to,
        file=path.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        bundle={
            "name": bundle.name,
            "commit": bundle.card.commit,
            "synthetic": bundle.synthetic,
            "sha256": {name: bundle.digests[name] for name in (KERAS_NAME, LITERT_NAME)},
        },
        classes=("nonshockable", "shockable"),
        decision=_decision(bundle.threshold, exported),
        input=Input(**ecg),
        outputs=(exported.logit, exported.probability),
        preprocessing=Filter(
            steps=STEPS,
            parameters=bundle.preprocessing.to_dict(),
            sos=bundle.preprocessing.sos.tolist(),
            grid_mv=GRID_MV if bundle.preprocessing.grid else None,
            resampler={
                "delay_s": RESAMPLER_DELAY_SAMPLES / FS,
                "rates_hz": {f"{rate}": _resampler_for(rate) for rate in DEVICE_RATES_HZ},
            },
        ),
        golden=_golden_vectors(bundle, exported, fs),
        rescoring={"part": "validation", "kept_within": limits_of(to), **asdict(rescoring)},
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
    decided = all(vector.shock == (vector.logit >= decision.threshold_logit) for vector in sidecar.golden)
    if sidecar.decision != decision or not decided:
        raise ValueError(
            f"the decision in {sidecar_of(path)} contradicts the threshold of {decision.threshold:g} or the golden "
            "vectors in this file: the file was changed. Export again."
        )
    for vector in sidecar.golden:
        _check_golden(path, exported, preprocessing, vector)


def _check_golden(path: Path, exported: Runtime, preprocessing: Preprocessing, vector: Golden) -> None:
    raw = np.array(vector.raw_mv, dtype=np.float64)  # None becomes NaN
    filtered = preprocess(raw, vector.fs, preprocessing)
    stored = exported.run(np.array([vector.preprocessed_mv[-exported.input.shape[1] :]]))
    wanted = [vector.logit, vector.probability]
    outputs = [exported.logit.read(stored[0]).item(), exported.probability.read(stored[1]).item()]
    streamed = exported.stream(raw) if isinstance(exported, CCode) else vector.logit
    # For int8, the outputs must be equal, because the tolerance is far below one step.
    if (
        not np.allclose(filtered, vector.preprocessed_mv, rtol=0, atol=GOLDEN_TOLERANCE)
        or not np.allclose(outputs, wanted, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE)
        or not np.isclose(streamed, vector.logit, rtol=GOLDEN_STREAM_TOLERANCE, atol=GOLDEN_STREAM_TOLERANCE)
    ):
        raise ValueError(
            f"{path} does not reproduce the golden vector {vector.name!r} of its sidecar: the filtered "
            f"samples differ, or logit and probability are {outputs} (logit from raw samples: {streamed}) instead of "
            f"{wanted}. Export again with this version of the package."
        )


def _decision(threshold: float, exported: Runtime) -> Decision:
    logit, rule = logit_of(threshold), "a shock is advised if logit >= threshold_logit"
    if exported.logit.dtype != "int8":
        return Decision(rule=rule, threshold=threshold, threshold_logit=logit)
    # If all possible logits are below the threshold, the stored threshold is 128, above every stored logit.
    below = np.sum(exported.logit.read(np.arange(INT8_MIN, INT8_MAX + 1)) < logit)
    rule += ", that is if the stored logit >= threshold_stored"
    return Decision(rule=rule, threshold=threshold, threshold_logit=logit, threshold_stored=INT8_MIN + int(below))


def _resampler_for(fs: float) -> dict[str, Any]:
    up, down = rate_ratio(fs)
    return {"up": up, "down": down, "taps": resampler_taps(up, down).tolist()}


def _golden_vectors(bundle: Bundle, exported: Runtime, fs: float) -> tuple[Golden, ...]:
    """Return simulated strips with their filtered samples, outputs and decisions."""
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

    vectors = []
    for name, raw in strips.items():
        filtered = preprocess(raw, fs, bundle.preprocessing).round(GOLDEN_FILTERED_DIGITS)
        logit, probability = exported.run(filtered[np.newaxis, -n:])
        stored: dict[str, Any] = {}
        if exported.input.dtype == "int8":
            window = exported.input.store(filtered[-n:]).tolist()
            stored = {"stored_logit": logit.item(), "stored_probability": probability.item(), "stored_window": window}
        value = exported.logit.read(logit).item()
        vectors.append(
            Golden(
                name=name,
                synthetic=True,
                fs=fs,
                window=f"the last {n} of preprocessed_mv",
                logit=value,
                probability=exported.probability.read(probability).item(),
                shock=value >= logit_of(bundle.threshold),
                preprocessed_mv=filtered.tolist(),
                raw_mv=[None if math.isnan(mv) else mv for mv in raw.tolist()],
                **stored,
            )
        )
    return tuple(vectors)


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
