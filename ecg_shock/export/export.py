"""Export a bundle to LiteRT, LiteRT int8, ONNX or C, with all that a device needs to know, and score it again.

An export is two files: the network, which takes one window and gives logit and probability, and the JSON beside it, see
`ecg_shock.export.sidecar`.

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

import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ecg_shock.data.datasets import load_subsets
from ecg_shock.data.windows import WindowSet
from ecg_shock.export.c_code import MODEL_NAME, write_c
from ecg_shock.export.rescoring import Rescoring, check_tolerance, rescore
from ecg_shock.export.runtimes import RUNTIMES, Tensor, need_c_compiler, need_onnx
from ecg_shock.export.sidecar import INT8_ENDS_MV, INT8_STEP_MV, check_export, write_sidecar
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.models.bundle import Bundle, load_bundle
from ecg_shock.models.cnn import import_keras
from ecg_shock.preprocessing import FS
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
ONNX_OPSET = 17  # of 2022, so that older runtimes read it too

INT8_ACTIVATIONS = ("relu", "tanh")  # the reference kernels have no elu, and LiteRT makes selu of other operators
REPRESENTATIVE_PER_CLASS = 100
REPRESENTATIVE_SEED = 0


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
        How it does on the validation subset.
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
    data: Path | None = None,
    on_stage: OnStage = _silent,
) -> ExportResult:
    """Export a bundle, and score the export on the bundle's own validation subset.

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
    elif fs != DEFAULT_FS:
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
            step = on_stage("scoring the validation subset again", len(validation))
            rescoring = rescore(original, exported, validation, bundle.threshold, on_window=step)
            check_tolerance(rescoring, to)
            sidecar = write_sidecar(path, to, bundle, exported, rescoring, code=code, fs=fs)
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


def representative_windows(train: WindowSet) -> np.ndarray:
    """Pick the training windows that int8 is calibrated with.

    They have shape (n_windows, n_samples), float32, mV: up to 100 of each AHA class, clipped to the range of the input.
    The last two reach its ends, so that the converter takes this range and no other.
    """
    rng = np.random.default_rng(REPRESENTATIVE_SEED)
    picked = []
    for aha_class in np.unique(train.aha_class):
        of_class = np.flatnonzero(train.aha_class == aha_class)
        picked.append(rng.choice(of_class, min(REPRESENTATIVE_PER_CLASS, len(of_class)), replace=False))
    low, high = INT8_ENDS_MV
    highest = train.ecg[np.argmax(train.ecg.max(axis=1))]
    lowest = train.ecg[np.argmin(train.ecg.min(axis=1))]
    ends = [highest * max(1.0, high / highest.max()), lowest * max(1.0, low / lowest.min())]
    return np.clip(np.concatenate([train.ecg[np.concatenate(picked)], ends]), low, high).astype(np.float32)


def _windows(bundle: Bundle, folder: Path | None) -> tuple[WindowSet, WindowSet]:
    """Load what the bundle was trained and selected on, in windows of its own length."""
    # Patients of the split are enough here, and an export needs no databases that only trained.
    own = {"window_s": bundle.spec.input_samples / FS, "preprocessing": bundle.preprocessing, "extra": ()}
    config = bundle.card.data.model_copy(update=own)
    subsets = load_subsets(config, folder)
    known = bundle.card.patients
    strange = set(subsets.validation.patient.tolist()).difference(known.validation)
    strange |= set(subsets.train.patient.tolist()).intersection(known.validation + known.test)
    if strange:
        raise ValueError(
            f"patients {sorted(strange)!r} are in another subset of split {config.split!r} than in {bundle.folder}: it "
            "was changed since. Train the model again."
        )
    return subsets.train, subsets.validation


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


def _signature(network: keras.Model) -> list[Any]:
    """Describe the input to Keras, which would leave the batch open otherwise."""
    return [import_keras().InputSpec(shape=network.input.shape, dtype="float32", name="ecg")]


def _litert(network: keras.Model, representative: np.ndarray | None) -> bytes:
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
        with without_lines("fully_quantize:"):
            return converter.convert()


def _write_onnx(network: keras.Model, path: Path) -> None:
    network(np.zeros(network.input.shape, dtype=np.float32))  # Keras exports to ONNX what has been called only
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)  # keras 3.12 to 3.15 asks for it
        network.export(
            path, format="onnx", verbose=False, input_signature=_signature(network), opset_version=ONNX_OPSET
        )


def _check_input(ecg: Tensor) -> None:
    """Refuse a model whose int8 step is not the one that was asked for."""
    if ecg.dtype != "int8" or ecg.zero_point != 0 or not math.isclose(ecg.scale or 0.0, INT8_STEP_MV, rel_tol=1e-6):
        raise ValueError(
            f"the converter made the input {ecg.dtype} with scale {ecg.scale!r} and zero point {ecg.zero_point!r}, but "
            f"int8 with {INT8_STEP_MV:g} mV and 0 is wanted; use the tensorflow version of pyproject.toml."
        )
