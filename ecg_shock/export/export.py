"""Export a bundle to LiteRT, LiteRT int8, ONNX or C, and compare the export with the bundle on validation windows.

A bundle that all patients trained has no validation windows; its exports are compared on training windows.

An export consists of the network, which computes the logit and the probability of one window, and a JSON sidecar, see
`ecg_shock.export.sidecar`.

Notes
-----
An export to C includes code from raw samples to advice, see `ecg_shock.export.c_code`; ``"c-int8"`` has int8 weights
and float activations. The code is compiled on this machine, to compare its results with those of the bundle.

For LiteRT and ONNX, the network has other layers than that of the bundle. The results differ only by rounding errors:

- The convolutions are two-dimensional, because LiteRT would surround each Conv1D with two reshape operators.
- The last layer is a convolution with kernel length 1. TFLite Micro and LiteRT round a fully connected layer
  differently, but give the same bits for convolutions.
- The logit is an output too. It is compared with the threshold, because an int8 probability has steps of 1/256.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.data.datasets import load_subsets
from ecg_shock.data.windows import WindowSet
from ecg_shock.export.c_code import MODEL_NAME, allowed_taps, write_c
from ecg_shock.export.rescoring import Rescoring, check_tolerance, rescore
from ecg_shock.export.runtimes import RUNTIMES, Tensor, need_c_compiler, need_onnx
from ecg_shock.export.selftest import write_selftest
from ecg_shock.export.sidecar import INT8_ENDS_MV, INT8_STEP_MV, check_export, golden_vectors, write_sidecar
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.models.bundle import Bundle, check_threshold, load_bundle
from ecg_shock.models.cnn import import_keras
from ecg_shock.preprocessing import FS, MAX_WINDOW_S, MIN_WINDOW_S
from ecg_shock.quiet import without_lines

if TYPE_CHECKING:
    import keras

OnStage = Callable[[str, int], Callable[[], Any]]

MODEL_NAMES = {
    "litert": "ecg_shock.tflite",
    "litert-int8": "ecg_shock_int8.tflite",
    "onnx": "ecg_shock.onnx",
    "c": MODEL_NAME,
    "c-int8": MODEL_NAME,
}
C_KINDS = ("c", "c-int8")
DEFAULT_FS = 250.0
ONNX_OPSET = 17  # from 2022, so that older runtimes support it

INT8_ACTIVATIONS = ("relu", "tanh")  # LiteRT's reference kernels for int8 do not support elu and selu
REPRESENTATIVE_PER_CLASS = 100
REPRESENTATIVE_SEED = 0


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Parameters
    ----------
    bundle : Bundle
        The exported bundle.
    files : tuple of pathlib.Path
        The network is the first file, its sidecar the last.
    rescoring : Rescoring
        Comparison with the bundle on the validation subset.
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
    fs: float = DEFAULT_FS,
    threshold: float | None = None,
    window_s: float | None = None,
    data: Path | None = None,
    on_stage: OnStage = _silent,
) -> ExportResult:
    """Export a bundle, and compare the export with the bundle on its validation subset.

    Parameters
    ----------
    model : str, pathlib.Path, Bundle or None
        A bundle or its folder; None for the model that comes with the package.
    to : {"litert", "litert-int8", "onnx", "c", "c-int8"}
        The format.
    folder : pathlib.Path
        Folder for the files. It is not changed if the export fails.
    fs : float
        Sampling rate of the device in Hz, 100 to 2000. The golden vectors have this rate, and C code takes raw samples
        at this rate. The other formats take filtered windows at 125 Hz; their sidecar has the filter for this rate.
    threshold : float, optional
        The probability of *shockable* from which a shock is advised; the bundle's own if not given.
    window_s : float, optional
        Length of a window in seconds, 2 to 10; the bundle's own if not given.
    data : pathlib.Path, optional
        Folder of the databases, see `ecg_shock.data.manifests.data_dir`.
    on_stage : callable, optional
        Called with the name of a stage and its number of steps; returns a function that is called after each step.

    Returns
    -------
    ExportResult

    Raises
    ------
    ValueError
        If the export differs from the bundle by more than its format allows, if a value is not allowed, if packages or
        a C compiler are missing, if int8 does not support the network's activation, or if the bundle's card is
        incomplete.
    FileNotFoundError
        If the bundle or recordings are missing.

    Notes
    -----
    - int8 is calibrated only with training windows of the bundle, up to 100 of each AHA class.
    - With another threshold or window length, the bundle is compared at this threshold, on validation windows of this
      length. A network that was trained with windows of another length may be less accurate: compare Se and Sp in the
      result.
    """
    if to not in MODEL_NAMES:
        raise ValueError(f"to={to!r} is unknown; choose one of {', '.join(MODEL_NAMES)}.")
    if to == "onnx":
        need_onnx()
    if to in C_KINDS:
        need_c_compiler()
    allowed_taps(fs)  # raises if fs is not allowed
    own = model if isinstance(model, Bundle) else load_bundle(DEFAULT_BUNDLE if model is None else model)
    bundle = _with_settings(own, threshold, window_s)
    if to == "litert-int8" and bundle.spec.activation not in INT8_ACTIVATIONS:
        raise ValueError(
            f"{bundle.folder} has activation {bundle.spec.activation!r}; litert-int8 allows {INT8_ACTIVATIONS}. "
            "Export to litert, or train another network."
        )
    step = on_stage("reading the recordings", 1)
    train, compared = _windows(bundle, data)
    step()

    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".export-", dir=folder) as unfinished:
            path = Path(unfinished) / MODEL_NAMES[to]
            original = bundle.load_keras()
            step = on_stage("converting", 1)
            code: list[Path] = []
            if to in C_KINDS:
                *code, path = write_c(path.parent, bundle, original.get_weights(), fs=fs, int8=to == "c-int8")
            elif to == "onnx":
                _write_onnx(_one_window(original, bundle), path)
            else:
                representative = representative_windows(train) if to == "litert-int8" else None
                path.write_bytes(_litert(_one_window(original, bundle), representative))
            step()
            exported = RUNTIMES[to](path)
            if to == "litert-int8":
                _check_input(exported.input)
            part = "validation" if bundle.card.patients.validation else "training"
            step = on_stage(f"comparing on the {part} subset", len(compared))
            rescoring = rescore(original, exported, compared, bundle.threshold, part=part, on_window=step)
            check_tolerance(rescoring, to)
            golden = golden_vectors(bundle, exported, fs)
            if to in C_KINDS:
                code.append(write_selftest(path.parent, golden, bundle.spec.input_samples))
            sidecar = write_sidecar(path, to, bundle, own, exported, rescoring, golden, code=code)
            check_export(path)
            written = (path, *code, sidecar)
            files = tuple(folder / file.name for file in written)
            files[-1].unlink(missing_ok=True)  # so that a new network never has an old sidecar
            for file, final in zip(written, files, strict=True):
                file.replace(final)
    finally:
        if is_new:
            with suppress(OSError):  # fails if the export succeeded, since the folder is not empty
                folder.rmdir()
    return ExportResult(bundle, files, rescoring)


def representative_windows(train: WindowSet) -> np.ndarray:
    """Return training windows for the calibration of int8, shape (n_windows, n_samples), float32, in mV.

    Up to 100 random windows of each AHA class are clipped to the range of the input. Two more windows are scaled to the
    limits of this range, so that the converter uses exactly this range.
    """
    rng = np.random.default_rng(REPRESENTATIVE_SEED)
    chosen = []
    for aha_class in np.unique(train.aha_class):
        of_class = np.flatnonzero(train.aha_class == aha_class)
        chosen.append(rng.choice(of_class, min(REPRESENTATIVE_PER_CLASS, len(of_class)), replace=False))
    low, high = INT8_ENDS_MV
    highest = train.ecg[np.argmax(train.ecg.max(axis=1))]
    lowest = train.ecg[np.argmin(train.ecg.min(axis=1))]
    ends = [highest * max(1.0, high / highest.max()), lowest * max(1.0, low / lowest.min())]
    return np.clip(np.concatenate([train.ecg[np.concatenate(chosen)], ends]), low, high).astype(np.float32)


def _with_settings(bundle: Bundle, threshold: float | None, window_s: float | None) -> Bundle:
    """Return the bundle with the threshold and window length of the export."""
    if threshold is not None:
        check_threshold(threshold)
        bundle = replace(bundle, threshold=threshold)
    if window_s is not None:
        samples = round(window_s * FS) if MIN_WINDOW_S <= window_s <= MAX_WINDOW_S else 0
        if samples == 0 or not math.isclose(samples, window_s * FS):
            raise ValueError(
                f"window_s={window_s!r} is not allowed; give {MIN_WINDOW_S:g} to {MAX_WINDOW_S:g} s, in multiples of "
                f"{1 / FS:g} s."
            )
        bundle = replace(bundle, spec=replace(bundle.spec, input_samples=samples))
    return bundle


def _windows(bundle: Bundle, folder: Path | None) -> tuple[WindowSet, WindowSet]:
    """Load the training windows of the bundle, and those on which an export is compared, in its own window length.

    The windows of `DataConfig.extra` are excluded.
    """
    # The extra databases are excluded, so that an export does not need their files.
    own = {"window_s": bundle.spec.input_samples / FS, "preprocessing": bundle.preprocessing, "extra": ()}
    config = bundle.card.data.model_copy(update=own)
    subsets = load_subsets(config, folder)
    known = bundle.card.patients
    moved = set(subsets.validation.patient.tolist()).difference(known.validation)
    moved |= set(subsets.train.patient.tolist()).intersection(known.validation + known.test)
    if moved:
        raise ValueError(
            f"split {config.split!r} was changed after {bundle.folder} was trained: patients {sorted(moved)!r} "
            "are now in another subset. Train the model again."
        )
    return subsets.train, subsets.validation if len(subsets.validation) else subsets.train


def _one_window(original: keras.Model, bundle: Bundle) -> keras.Model:
    """Return the network for one window, with two-dimensional layers, and with logit and probability as outputs.

    Its tensors have fixed names, so that equal weights give equal bytes.
    """
    keras = import_keras()
    layers, spec = keras.layers, bundle.spec
    ecg = keras.Input((spec.input_samples, 1), batch_size=1, name="ecg")
    x = layers.Reshape((spec.input_samples, 1, 1), name="column")(ecg)
    for i, (filters, kernel) in enumerate(zip(spec.filters, spec.kernels, strict=True), start=1):
        x = layers.Conv2D(filters, (kernel, 1), padding=spec.padding, activation=spec.activation, name=f"conv_{i}")(x)
        x = layers.MaxPooling2D((spec.pool, 1), name=f"pool_{i}")(x)
    features = layers.GlobalMaxPooling2D(keepdims=True, name="global_pool")(x)
    if spec.global_pool == "max+average":
        average = layers.GlobalAveragePooling2D(keepdims=True, name="global_average")(x)
        features = layers.Concatenate(name="features")([features, average])
    x = layers.Conv2D(1, 1, name="sum")(features)
    logit = layers.Reshape((1,), name="logit")(x)
    probability = layers.Activation("sigmoid", name="probability")(logit)
    network = keras.Model(ecg, {"logit": logit, "probability": probability}, name="ecg_shock")
    shapes = [weights.shape for weights in network.get_weights()]
    network.set_weights([w.reshape(shape) for w, shape in zip(original.get_weights(), shapes, strict=True)])
    return network


def _signature(network: keras.Model) -> list[Any]:
    """Return the signature of the input with a batch size of 1, which Keras would otherwise leave undefined."""
    return [import_keras().InputSpec(shape=network.input.shape, dtype="float32", name="ecg")]


def _litert(network: keras.Model, representative: np.ndarray | None) -> bytes:
    """Return the network as a LiteRT model, with int8 weights and activations if `representative` is given."""
    import tensorflow as tf

    # format="litert" needs Keras 3.13, and so Python 3.11.
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
        with without_lines("fully_quantize:"):
            return converter.convert()


def _write_onnx(network: keras.Model, path: Path) -> None:
    network(np.zeros(network.input.shape, dtype=np.float32))  # Keras exports only models that have been called
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # raised by Keras 3.12 to 3.15
        network.export(
            path, format="onnx", verbose=False, input_signature=_signature(network), opset_version=ONNX_OPSET
        )


def _check_input(ecg: Tensor) -> None:
    """Raise ValueError if the int8 input does not have the intended scale and zero point."""
    if ecg.dtype != "int8" or ecg.zero_point != 0 or not math.isclose(ecg.scale or 0.0, INT8_STEP_MV, rel_tol=1e-6):
        raise ValueError(
            f"the converter made the input {ecg.dtype} with scale {ecg.scale!r} and zero point {ecg.zero_point!r}, "
            f"instead of int8 with {INT8_STEP_MV:g} mV and 0; install the tensorflow version that "
            "pyproject.toml requires."
        )
