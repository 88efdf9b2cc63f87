"""Export a bundle to LiteRT, LiteRT int8, ONNX or C, with all that a device needs to know, and score it again.

An export is two files: the network, which takes one window and gives logit and probability, and a sidecar of the same
name with ``.json`` after it, which says how samples become that window, from which logit on a shock is advised, and
what must come out for given samples.

Notes
-----
For C the whole way from raw samples to advice is written, see `ecg_shock.export.c_code`; ``"c-int8"`` has int8 weights
and float activations. It is compiled for this machine to be scored.

For LiteRT and ONNX the network is the bundle's in other words, of which nothing but rounding changes:

- It is written with two-dimensional layers, as LiteRT has no others: a Conv1D becomes a convolution between two
  reshapes, which are operators of their own.
- The last layer is a convolution of one sample. TFLite Micro rounds a fully connected layer otherwise than LiteRT does;
  of convolutions every bit is the same.
- The logit is exported too, and decides: the steps of an int8 sigmoid are 1/256, whatever the threshold.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.data.datasets import DataConfig, load_parts, shockable
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import WindowSet
from ecg_shock.export.c_code import DEFAULT_STEP, MODEL_NAME, write_c
from ecg_shock.export.runtimes import (
    INT8_MAX,
    INT8_MIN,
    ONNX_PACKAGES,
    ExportedModel,
    Tensor,
    find_version,
    need_c_compiler,
    need_onnx,
)
from ecg_shock.files import sha256, versions
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.models.bundle import KERAS_NAME, LITERT_NAME, Bundle, data_config, load_bundle, logit_of
from ecg_shock.models.cnn import import_keras
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
from ecg_shock.quiet import without_lines

if TYPE_CHECKING:
    import keras

OnStage = Callable[[str, int], Callable[[], Any]]

SIDECAR_FORMAT = 1
MODEL_NAMES = {
    "litert": "ecg_shock.tflite",
    "litert-int8": "ecg_shock_int8.tflite",
    "onnx": "ecg_shock.onnx",
    "c": MODEL_NAME,
    "c-int8": MODEL_NAME,
}
INT8_KINDS = ("litert-int8", "c-int8")
C_KINDS = ("c", "c-int8")
CLASSES = ("nonshockable", "shockable")
ONNX_OPSET = 17  # of 2022, so that older runtimes read it too

# What exceeds it is clipped; a wider range has coarser steps. Whether it fits a model, the re-scoring says.
INT8_RANGE_MV = 3.0
INT8_STEP_MV = INT8_RANGE_MV / -INT8_MIN
INT8_ACTIVATIONS = ("relu", "tanh")  # the reference kernels have no elu, and LiteRT makes selu of other operators
REPRESENTATIVE_PER_CLASS = 100
REPRESENTATIVE_SEED = 0

FLOAT_MAX_DIFFERENCE = 1e-5  # of probability; rounding alone makes 4e-7 of the shipped model: `ecg-shock export`
# Of the shipped model's 5,423 validation windows int8 changes 2 decisions, and neither Se nor Sp: `ecg-shock export`.
INT8_MAX_FLIPPED = 0.005
INT8_MAX_CHANGE = 0.005  # of Se and of Sp

BATCH = 256  # windows at once through the bundle's network

DEVICE_RATES_HZ = (125, 250, 360, 500, 1000)
GOLDEN_FS = 250.0
GOLDEN_SEED = 1  # training windows may be of seed 0
GOLDEN_KINDS = ("normal_sinus", "atrial_fibrillation", "asystole", "coarse_vf", "rapid_vt")
GOLDEN_MISSING_S = ((0.0, 0.02), (3.0, 3.2))
GOLDEN_MV_DIGITS, GOLDEN_FILTERED_DIGITS = 3, 6  # 1 µV, as a converter gives it; 1 nV
GOLDEN_TOLERANCE = 1e-5  # of filtered mV, and of what a float model gives
GOLDEN_STREAM_TOLERANCE = 1e-3  # of the logit of C code, which filters in single precision

STEPS = (
    f"The network takes a window of one lead in mV at {FS:g} Hz that has gone through these steps, all of them causal.",
    f"1. An invalid sample (lead off, saturated, beyond {MAX_MV:g} mV) is replaced by the last valid one. Until the "
    "first valid sample comes, the signal is 0.",
    f"2. The value of the first valid sample is subtracted from all. After {GAP_S:g} s and more without a valid sample "
    "the next one takes the value that was held: what is subtracted changes by the difference.",
    f"3. Resample to {FS:g} Hz: insert up - 1 zeros after each sample, filter with the taps (FIR), and keep every "
    "down-th result from the first on. Taps of other rates are computed by the package.",
    "4. Filter with the second-order sections in their order. A row is b0 b1 b2 a0 a1 a2; all states begin with 0. A "
    "mains notch, if any, is the last section.",
    "5. If grid_mv is a number, round to its multiples.",
    "6. The window is the last samples that came out. For an int8 input divide by scale, round to nearest, add "
    "zero_point, and clip to -128 to 127.",
    "Not included: the rule by which a strip is unusable (flat, saturated, noisy, out of range, mostly missing, or "
    "after a fault that the filter still rings with) and no shock is advised whatever the network says; see "
    "ecg_shock.inference.quality.",
)


@dataclass(frozen=True)
class Flip:
    """A window on which the exported model decides otherwise than the bundle.

    Parameters
    ----------
    database, record : str
        The recording.
    start_s : float
        Where the window begins, in seconds.
    aha_class : str
        Its rhythm.
    probability, exported : float
        Probability of *shockable* by the bundle, and by the exported model.
    """

    database: str
    record: str
    start_s: float
    aha_class: str
    probability: float
    exported: float


@dataclass(frozen=True)
class Rescoring:
    """What the bundle and its export say of the same windows.

    Parameters
    ----------
    windows, patients : int
        The whole validation part.
    sensitivity, specificity : float
        Of the bundle, 0 to 1.
    exported_sensitivity, exported_specificity : float
        Of the exported model.
    largest_probability_difference, largest_logit_difference : float
        Of any window.
    flips : tuple of Flip
        Decisions that differ.
    """

    windows: int
    patients: int
    sensitivity: float
    specificity: float
    exported_sensitivity: float
    exported_specificity: float
    largest_probability_difference: float
    largest_logit_difference: float
    flips: tuple[Flip, ...]


@dataclass(frozen=True)
class ExportResult:
    """What was written.

    Parameters
    ----------
    bundle : Bundle
        What was exported.
    files : tuple of pathlib.Path
        The network first, its sidecar last.
    rescoring : Rescoring
        How it does on the validation part.
    """

    bundle: Bundle
    files: tuple[Path, ...]
    rescoring: Rescoring


def _silent(stage: str, steps: int) -> Callable[[], None]:
    return lambda: None


def export(
    model: str | Path | Bundle | None,
    to: str,
    folder: Path,
    *,
    fs: float = GOLDEN_FS,
    data: Path | None = None,
    on_stage: OnStage = _silent,
) -> ExportResult:
    """Export a bundle, and score the export on the bundle's own validation part.

    Parameters
    ----------
    model : str, pathlib.Path, Bundle or None
        A bundle or its folder; None for the model that comes with the package.
    to : {"litert", "litert-int8", "onnx", "c", "c-int8"}
        What to export to.
    folder : pathlib.Path
        Where to write. Nothing in it changes unless the export passes.
    fs : float
        For C: sampling rate of the device in Hz, 100 to 2000. The other formats take windows at 125 Hz.
    data : pathlib.Path, optional
        Where the databases lie; see `ecg_shock.data.manifests.data_dir`.
    on_stage : callable, optional
        Takes a stage's name and its number of steps, and returns what is called after each step.

    Returns
    -------
    ExportResult

    Raises
    ------
    ValueError
        If the export differs from the bundle by more than its format allows, if packages or a C compiler are missing,
        if int8 cannot do the network's activation, or if the bundle does not say what it was trained on.
    FileNotFoundError
        If there is no bundle, or recordings are not there.

    Notes
    -----
    int8 is calibrated with training windows of the bundle, up to 100 of each AHA class, and never with others.
    """
    if to not in MODEL_NAMES:
        raise ValueError(f"to={to!r} is not known; choose one of {', '.join(MODEL_NAMES)}.")
    if to == "onnx":
        need_onnx()
    if to in C_KINDS:
        need_c_compiler()
    elif fs != GOLDEN_FS:
        raise ValueError(f"fs={fs!r} is for C; {to} takes windows at {FS:g} Hz. Leave fs out.")
    bundle = model if isinstance(model, Bundle) else load_bundle(DEFAULT_BUNDLE if model is None else model)
    if to == "litert-int8" and bundle.spec.activation not in INT8_ACTIVATIONS:
        raise ValueError(
            f"{bundle.folder} has activation {bundle.spec.activation!r}; litert-int8 takes {INT8_ACTIVATIONS}. "
            "Export to litert, or train another network."
        )
    step = on_stage("reading the recordings", 1)
    train, validation = _windows(bundle, data)
    step()

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".export-", dir=folder) as unfinished:
            path = Path(unfinished) / MODEL_NAMES[to]
            original = bundle.load_keras()
            step = on_stage("converting", 1)
            if to in C_KINDS:
                weights = [tuple(layer.get_weights()) for layer in original.layers if layer.get_weights()]
                *code, path = write_c(path.parent, bundle, weights, fs=fs, int8=to == "c-int8")
            else:
                code = []
                _write_network(_one_window(original, bundle), path, to, train)
            step()
            exported = _load(path, to)
            if to == "litert-int8":
                _check_input(exported.input)
            step = on_stage("scoring the validation part again", len(validation))
            rescoring = rescore(original, exported, validation, bundle.threshold, on_window=step)
            _check_tolerance(rescoring, to)
            sidecar = _sidecar_of(path)
            sidecar.write_text(
                _json(_describe(bundle, to, path, exported, rescoring, code, fs)) + "\n", encoding="utf-8"
            )
            check_export(path)
            written = (path, *code, sidecar)
            files = tuple(folder / file.name for file in written)
            files[-1].unlink(missing_ok=True)  # an old sidecar does not stand beside a new network, not for a moment
            for file, final in zip(written, files, strict=True):
                file.replace(final)
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty: the export passed
                folder.rmdir()
    return ExportResult(bundle, files, rescoring)


def rescore(
    original: keras.Model,
    exported: ExportedModel,
    windows: WindowSet,
    threshold: float,
    *,
    on_window: Callable[[], Any] | None = None,
) -> Rescoring:
    """Compare an exported model with the network that it was made of.

    Parameters
    ----------
    original : keras.Model
        The bundle's network.
    exported : ExportedModel
        The other.
    windows : WindowSet
        Of clear classes.
    threshold : float
        Probability from which on a shock is advised. The exported model decides by its logit.
    on_window : callable, optional
        Called without arguments after each window.

    Returns
    -------
    Rescoring

    Raises
    ------
    ValueError
        If there are no shockable or no nonshockable windows.
    """
    truth = shockable(windows)
    if truth.all() or not truth.any():
        raise ValueError(
            f"the validation part has {int(truth.sum())} shockable and {int((~truth).sum())} nonshockable windows; "
            "both are needed to score an export. Train on a split whose validation part has both."
        )
    keras = import_keras()
    last = original.layers[-1]
    weights, bias = (np.asarray(value, dtype=np.float64) for value in last.get_weights())
    both = keras.Model(original.input, [last.input, last.output])
    batches = [both(windows.ecg[i : i + BATCH, :, np.newaxis]) for i in range(0, len(windows), BATCH)]
    features, output = (
        np.concatenate([np.asarray(value) for value in values]) for values in zip(*batches, strict=True)
    )
    logit, probability = (features.astype(np.float64) @ weights + bias)[:, 0], output[:, 0].astype(np.float64)
    shock = probability >= threshold

    stored_logit, stored_probability = exported.run(windows.ecg, on_window)
    exported_logit = exported.logit.read(stored_logit)
    exported_probability = exported.probability.read(stored_probability)
    exported_shock = exported_logit >= logit_of(threshold)
    flips = tuple(
        Flip(
            database=str(windows.database[i]),
            record=str(windows.record[i]),
            start_s=float(windows.start_s[i]),
            aha_class=str(windows.aha_class[i]),
            probability=float(probability[i]),
            exported=float(exported_probability[i]),
        )
        for i in np.flatnonzero(shock != exported_shock)
    )
    return Rescoring(
        windows=len(windows),
        patients=len(set(windows.patient.tolist())),
        sensitivity=float(shock[truth].mean()),
        specificity=float((~shock)[~truth].mean()),
        exported_sensitivity=float(exported_shock[truth].mean()),
        exported_specificity=float((~exported_shock)[~truth].mean()),
        largest_probability_difference=float(np.abs(exported_probability - probability).max()),
        largest_logit_difference=float(np.abs(exported_logit - logit).max()),
        flips=flips,
    )


def check_export(path: Path) -> None:
    """Check an exported network against its sidecar: digest, preprocessing and golden vectors.

    Parameters
    ----------
    path : pathlib.Path
        The network's file; the sidecar lies beside it.

    Raises
    ------
    ValueError
        If the file is not the one that the sidecar describes, or something else comes out of the golden samples.
    FileNotFoundError
        If one of the two is missing.
    """
    sidecar_path = _sidecar_of(path)
    try:
        _check_against(path, json.loads(sidecar_path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{sidecar_path} cannot be read as a sidecar: {error!s} ({type(error).__name__})") from error


def _check_against(path: Path, sidecar: dict[str, Any]) -> None:
    digests = {path.name: sidecar["sha256"], **sidecar.get("c", {}).get("sha256", {})}
    for name, wanted in digests.items():
        file = path.with_name(Path(name).name)
        found = sha256(file)
        if found != wanted:
            raise ValueError(
                f"{file} has SHA-256 {found}, but its sidecar says {wanted}: it was changed or damaged. Export again."
            )
    exported = _load(path, sidecar["kind"])
    preprocessing = Preprocessing(**sidecar["preprocessing"]["parameters"])
    n = exported.input.shape[1]
    for vector in sidecar["golden"]:
        raw = np.array([math.nan if value is None else value for value in vector["raw_mv"]])
        filtered = preprocess(raw, vector["fs"], preprocessing)
        window = np.array(vector["preprocessed_mv"][-n:])
        stored = exported.run(window[np.newaxis])
        wanted = [vector["logit"], vector["probability"]]
        outputs = [exported.logit.read(stored[0]).item(), exported.probability.read(stored[1]).item()]
        streamed = exported.stream(raw) if sidecar["kind"] in C_KINDS else vector["logit"]
        # int8 has steps far above the tolerance, so that nothing but the same step passes.
        if (
            not np.allclose(filtered, vector["preprocessed_mv"], rtol=0, atol=GOLDEN_TOLERANCE)
            or not np.allclose(outputs, wanted, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE)
            or not np.isclose(streamed, vector["logit"], rtol=GOLDEN_STREAM_TOLERANCE, atol=GOLDEN_STREAM_TOLERANCE)
        ):
            raise ValueError(
                f"{path} gives logit and probability {outputs} for its golden vector {vector['name']!r} and logit "
                f"{streamed} from its raw samples, or filters it otherwise; its sidecar says {wanted}. Export again "
                "with this version of the package."
            )


def representative_windows(train: WindowSet) -> np.ndarray:
    """Pick the training windows that int8 is calibrated with.

    Parameters
    ----------
    train : WindowSet
        Training windows.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows, n_samples), float32, mV: up to 100 of each AHA class, clipped to the range of the input; the
        last two reach its ends, so that the converter takes this range and no other.
    """
    rng = np.random.default_rng(REPRESENTATIVE_SEED)
    picked = []
    for aha_class in np.unique(train.aha_class):
        of_class = np.flatnonzero(train.aha_class == aha_class)
        picked.append(rng.choice(of_class, min(REPRESENTATIVE_PER_CLASS, len(of_class)), replace=False))
    low, high = _int8_range_mv()
    highest = train.ecg[np.argmax(train.ecg.max(axis=1))]
    lowest = train.ecg[np.argmin(train.ecg.min(axis=1))]
    ends = [highest * max(1.0, high / highest.max()), lowest * max(1.0, low / lowest.min())]
    return np.clip(np.concatenate([train.ecg[np.concatenate(picked)], ends]), low, high).astype(np.float32)


def _windows(bundle: Bundle, folder: Path | None) -> tuple[WindowSet, WindowSet]:
    """Load what the bundle was trained and selected on, in windows of its own length."""
    config = data_config(bundle)
    config = DataConfig.model_validate(
        {
            **config.model_dump(),
            "window_s": bundle.spec.input_samples / FS,
            "preprocessing": bundle.preprocessing,
        }
    )
    parts = load_parts(config, folder)
    known = bundle.card.patients
    strange = set(parts.validation.patient.tolist()).difference(known.validation)
    strange |= set(parts.train.patient.tolist()).intersection(known.validation + known.test)
    if strange:
        raise ValueError(
            f"patients {sorted(strange)!r} have another job in split {config.split!r} than in {bundle.folder}: it was "
            "changed since. Train the model again."
        )
    return parts.train, parts.validation


def _one_window(original: keras.Model, bundle: Bundle) -> keras.Model:
    """Build the network again for one window, with logit and probability.

    With all names fixed, equal weights give equal bytes.
    """
    keras = import_keras()
    layers, spec = keras.layers, bundle.spec
    ecg = keras.Input((spec.input_samples, 1), batch_size=1, name="ecg")
    x = layers.Reshape((spec.input_samples, 1, 1), name="column")(ecg)
    for i, (filters, kernel) in enumerate(zip(spec.filters, spec.kernels, strict=True), start=1):
        x = layers.Conv2D(filters, (kernel, 1), padding=spec.padding, activation=spec.activation, name=f"conv_{i}")(x)
        x = layers.MaxPooling2D((spec.pool, 1), name=f"pool_{i}")(x)
    x = layers.GlobalMaxPooling2D(keepdims=True, name="global_pool")(x)
    x = layers.Conv2D(1, 1, name="sum")(x)
    logit = layers.Reshape((1,), name="logit")(x)
    probability = layers.Activation("sigmoid", name="probability")(logit)
    network = keras.Model(ecg, {"logit": logit, "probability": probability}, name="ecg_shock")
    shapes = [weights.shape for weights in network.get_weights()]
    network.set_weights([w.reshape(shape) for w, shape in zip(original.get_weights(), shapes, strict=True)])
    return network


def _write_network(network: keras.Model, path: Path, to: str, train: WindowSet) -> None:
    if to == "onnx":
        _write_onnx(network, path)
    elif to == "litert-int8":
        path.write_bytes(_litert(network, representative_windows(train)))
    else:
        path.write_bytes(_litert(network))


def _signature(network: keras.Model) -> list[Any]:
    """Describe the input to Keras, which would leave the batch open otherwise."""
    return [import_keras().InputSpec(shape=network.input.shape, dtype="float32", name="ecg")]


def _litert(network: keras.Model, representative: np.ndarray | None = None) -> bytes:
    """Convert to LiteRT; to int8 throughout if there are representative windows."""
    import tensorflow as tf

    # Not format="litert", which Keras has from 3.13 and so from Python 3.11 on.
    with TemporaryDirectory() as saved:
        network.export(saved, format="tf_saved_model", verbose=False, input_signature=_signature(network))
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if representative is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: (
                [window.reshape(network.input.shape)] for window in representative
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        with without_lines("fully_quantize:", "W0000", "I0000"):
            return converter.convert()


def _write_onnx(network: keras.Model, path: Path) -> None:
    network(np.zeros(network.input.shape, dtype=np.float32))  # Keras exports to ONNX what has been called only
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # keras 3.12 to 3.15 asks for it
        network.export(
            path, format="onnx", verbose=False, input_signature=_signature(network), opset_version=ONNX_OPSET
        )


def _load(path: Path, to: str) -> ExportedModel:
    return ExportedModel(path, reference_kernels=to == "litert-int8")


def _sidecar_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _int8_range_mv() -> tuple[float, float]:
    return INT8_MIN * INT8_STEP_MV, INT8_MAX * INT8_STEP_MV


def _check_input(ecg: Tensor) -> None:
    """Refuse a model whose int8 step is not the one that was asked for."""
    if ecg.dtype != "int8" or ecg.zero_point != 0 or not math.isclose(ecg.scale or 0.0, INT8_STEP_MV, rel_tol=1e-6):
        raise ValueError(
            f"the converter made the input {ecg.dtype} with scale {ecg.scale!r} and zero point {ecg.zero_point!r}, but "
            f"int8 with {INT8_STEP_MV:g} mV and 0 is wanted; use the tensorflow version of pyproject.toml."
        )


def _check_tolerance(rescoring: Rescoring, to: str) -> None:
    """Refuse an export that differs from its bundle too much."""
    flipped = len(rescoring.flips) / rescoring.windows
    changes = {
        "Se": rescoring.exported_sensitivity - rescoring.sensitivity,
        "Sp": rescoring.exported_specificity - rescoring.specificity,
    }
    faults = []
    if to in INT8_KINDS:
        if flipped > INT8_MAX_FLIPPED:
            faults.append(f"{100 * flipped:.2f} % of the decisions changed, allowed are {100 * INT8_MAX_FLIPPED:g} %")
        faults += [
            f"{name} changed by {100 * change:+.2f} points, allowed are {100 * INT8_MAX_CHANGE:g}"
            for name, change in changes.items()
            if abs(change) > INT8_MAX_CHANGE
        ]
        remedy = (
            f"Export to {to.removesuffix('-int8')}, or train with more patients or another network: this one lies too "
            "near its threshold"
        )
    else:
        if rescoring.flips:
            faults.append(f"{len(rescoring.flips)} decisions changed, allowed are 0")
        if not rescoring.largest_probability_difference <= FLOAT_MAX_DIFFERENCE:  # NaN is no pass
            faults.append(
                f"probabilities differ by up to {rescoring.largest_probability_difference:.2g}, allowed are "
                f"{FLOAT_MAX_DIFFERENCE:g}"
            )
        remedy = "Use the versions of pyproject.toml, or write the bundle again"
    if faults:
        raise ValueError(
            f"the export to {to} is not the bundle's model: {'; '.join(faults)} (validation part, "
            f"{rescoring.windows:,} windows of {rescoring.patients} patients). Nothing was written. {remedy}."
        )


def _describe(
    bundle: Bundle, to: str, path: Path, exported: ExportedModel, rescoring: Rescoring, code: list[Path], fs: float
) -> dict[str, Any]:
    """Say all that a device needs, and where the network comes from."""
    threshold_logit = logit_of(bundle.threshold)
    decision: dict[str, Any] = {
        "rule": "a shock is advised if logit >= threshold_logit",
        "threshold": bundle.threshold,
        "threshold_logit": threshold_logit,
    }
    ecg: dict[str, Any] = {**asdict(exported.input), "fs": FS, "units": "mV"}
    if to == "litert-int8":
        steps = np.arange(INT8_MIN, INT8_MAX + 1)
        # 128, which nothing reaches, for a network whose every logit is below the threshold.
        decision["threshold_stored"] = INT8_MIN + int(np.sum(exported.logit.read(steps) < threshold_logit))
        decision["rule"] += ", which is: the stored logit >= threshold_stored"
        ecg["range_mv"] = list(_int8_range_mv())
    of_c: dict[str, Any] = {}
    if to in C_KINDS:
        digests = {file.name: sha256(file) for file in code}
        of_c = {"c": {"fs": float(fs), "weights": "int8" if to == "c-int8" else "float", "sha256": digests}}
    packages = {name: found for name in ONNX_PACKAGES if to == "onnx" and (found := find_version(name))}
    return {
        "format": SIDECAR_FORMAT,
        "notice": "Not a medical device, and not a claim of conformity with any standard.",
        "kind": to,
        "file": path.name,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        **of_c,
        "bundle": {
            "name": bundle.name,
            "commit": bundle.card.commit,
            "synthetic": bundle.synthetic,
            "sha256": {name: bundle.digests[name] for name in (KERAS_NAME, LITERT_NAME)},
        },
        "classes": list(CLASSES),
        "decision": decision,
        "input": ecg,
        "outputs": [asdict(exported.logit), asdict(exported.probability)],
        **({"kernels": "LiteRT reference, equal to TFLite Micro"} if to == "litert-int8" else {}),
        "preprocessing": {
            "steps": list(STEPS),
            "parameters": bundle.preprocessing.to_dict(),
            "sos": bundle.preprocessing.sos.tolist(),
            "grid_mv": GRID_MV if bundle.preprocessing.grid else None,
            "resampler": {
                "delay_s": RESAMPLER_DELAY_SAMPLES / FS,
                "rates_hz": {f"{fs}": _resampler_of(fs) for fs in DEVICE_RATES_HZ},
            },
        },
        "golden": _golden(bundle, exported, fs),
        "rescoring": {"part": "validation", "kept_within": _limits(to), **asdict(rescoring)},
        "versions": {**versions(), **packages},
    }


def _limits(to: str) -> dict[str, float]:
    if to in INT8_KINDS:
        return {
            "flipped": INT8_MAX_FLIPPED,
            "sensitivity_change": INT8_MAX_CHANGE,
            "specificity_change": INT8_MAX_CHANGE,
        }
    return {"flipped": 0.0, "probability_difference": FLOAT_MAX_DIFFERENCE}


def _resampler_of(fs: float) -> dict[str, Any]:
    up, down = rate_ratio(fs)
    return {"up": up, "down": down, "taps": resampler_taps(up, down).tolist()}


def _golden(bundle: Bundle, exported: ExportedModel, fs: float) -> list[dict[str, Any]]:
    """Make synthetic strips, and say what becomes of them on the way to probability and decision."""
    n = bundle.spec.input_samples
    samples = _golden_samples(n, fs)
    every = 1 if fs >= FS else 2  # recordings are made up at 125 Hz and more
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
        stored_logit, stored_probability = exported.run(filtered[np.newaxis, -n:])
        logit = exported.logit.read(stored_logit).item()
        vector: dict[str, Any] = {
            "name": name,
            "synthetic": True,
            "fs": float(fs),
            "window": f"the last {n} of preprocessed_mv",
            "logit": logit,
            "probability": exported.probability.read(stored_probability).item(),
            "shock": logit >= logit_of(bundle.threshold),
        }
        if exported.input.dtype == "int8":
            vector["stored_logit"], vector["stored_probability"] = stored_logit.item(), stored_probability.item()
            vector["stored_window"] = exported.input.store(filtered[-n:]).tolist()
        vector["preprocessed_mv"] = filtered.tolist()
        vector["raw_mv"] = [None if math.isnan(value) else value for value in raw.tolist()]
        vectors.append(vector)
    return vectors


def _golden_samples(n: int, fs: float) -> int:
    """Count raw samples with which a window of n samples ends just when C code advises, after a warm-up at least."""
    up, down = rate_ratio(fs)
    for filtered in count(n + round(WARM_UP_S * FS), DEFAULT_STEP):
        samples = filtered * down // up
        if math.ceil(Fraction(samples * up, down)) == filtered:  # not so where one sample completes two at 125 Hz
            break
    return samples


def _json(value: Any, indent: str = "") -> str:
    """Write JSON for people: an entry a line, and lists of numbers on one."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        entries = ",\n".join(f"{inner}{json.dumps(key)}: {_json(entry, inner)}" for key, entry in value.items())
        return f"{{\n{entries}\n{indent}}}"
    if isinstance(value, (list, tuple)) and any(isinstance(entry, (dict, list, str)) for entry in value):
        return "[\n" + ",\n".join(f"{inner}{_json(entry, inner)}" for entry in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)
