"""Write a bundle as C99 code for a device without an operating system, from raw samples to advice.

The files ``c/ecg_shock.h`` and ``c/ecg_shock.c`` are the same for all models and are copied. ``ecg_shock_model.h``,
with the sizes and tables of the model, is generated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ecg_shock.export.runtimes import INT8_MAX
from ecg_shock.inference import quality
from ecg_shock.models.bundle import Bundle, logit_of
from ecg_shock.models.cnn import ACTIVATIONS, CnnSpec
from ecg_shock.preprocessing import FS, GAP_S, GRID_MV, Preprocessing, rate_ratio, resampler_taps

SOURCES = Path(__file__).resolve().parent / "c"
HEADER_NAME, CODE_NAME, MODEL_NAME = "ecg_shock.h", "ecg_shock.c", "ecg_shock_model.h"

MAX_TAPS = 25_000  # maximum length of the resampler, 100 kB: enough for every integer sampling rate
TILE, LANES = 4, 4  # numbers of samples and filters that convolve_tile computes at once
DEFAULT_STEP = 125  # ECG_SHOCK_STEP in ecg_shock.h
WORD_BYTES = 4  # size of every member of the struct
NUMBERS_PER_LINE = 8

_BlockRow = tuple[int, int, int, int, int, int, str, str, str]  # the members of struct `block` in ecg_shock.c


def write_c(folder: Path, bundle: Bundle, weights: Sequence[np.ndarray], *, fs: float, int8: bool) -> list[Path]:
    """Write C99 code that computes advice from raw samples.

    Parameters
    ----------
    folder : pathlib.Path
        Folder for the files, created if missing.
    bundle : Bundle
        The model.
    weights : sequence of numpy.ndarray
        The result of `get_weights` of the Keras model.
    fs : float
        Sampling rate of the device in Hz, 100 to 2000.
    int8 : bool
        Whether the weights of the convolutions are int8, with a float scale for each filter; otherwise they are float.

    Returns
    -------
    list of pathlib.Path
        The files; the last one is the generated header.

    Raises
    ------
    TypeError, ValueError
        If the sampling rate is not allowed or needs too many filter coefficients, or if the weights do not
        fit the network.

    Notes
    -----
    Differences from the Python package:

    - The C code computes in single precision. It filters differences between samples, so that an electrode's offset
      does not reduce the precision.
    - The C code has only the quality rules for missing, out-of-range and flat signals.
    """
    _check_weights(bundle.spec, weights)
    model = _model_header(bundle, weights, fs=fs, int8=int8)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in (HEADER_NAME, CODE_NAME):
        path = folder / name
        path.write_bytes((SOURCES / name).read_bytes())
        written.append(path)
    path = folder / MODEL_NAME
    path.write_text(model, encoding="ascii", newline="\n")
    return [*written, path]


def allowed_taps(fs: float) -> np.ndarray:
    """Return the coefficients of the resampler; raise ValueError if a device would need too many of them."""
    taps = resampler_taps(*rate_ratio(fs))
    if len(taps) > MAX_TAPS:
        raise ValueError(
            f"to resample fs={fs!r} Hz to {FS:g} Hz, {len(taps)} filter coefficients are needed, but at most "
            f"{MAX_TAPS} are allowed; give the nominal sampling rate, usually an integer"
        )
    return taps


def quantize_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel of shape (k, c_in, c_out) rounded to int8, and the float32 scale of each filter."""
    scales = (np.abs(kernel).max(axis=(0, 1)) / INT8_MAX).astype(np.float32)
    scales[scales == 0] = 1.0
    return np.clip(np.rint(kernel / scales), -INT8_MAX, INT8_MAX).astype(np.int8), scales


def _check_weights(spec: CnnSpec, weights: Sequence[np.ndarray]) -> None:
    inputs = (1, *spec.filters[:-1])
    kernels = [*zip(spec.kernels, inputs, spec.filters, strict=True), (spec.features, 1)]
    expected = [shape for kernel in kernels for shape in (kernel, kernel[-1:])]
    found = [np.shape(array) for array in weights]
    if found != expected:
        raise ValueError(
            f"the weights have shapes {found!r}, but the network needs {expected!r}; give the weights of the bundle"
        )
    largest = np.finfo(np.float32).max
    if not all((np.abs(array) <= largest).all() for array in weights):  # False for NaN
        raise ValueError("the weights have NaN, or values too large for single precision; train the network again")


def _model_header(bundle: Bundle, weights: Sequence[np.ndarray], *, fs: float, int8: bool) -> str:
    spec, preprocessing = bundle.spec, bundle.preprocessing
    up, down = rate_ratio(fs)
    taps = _polyphase(fs)
    sections = _difference_sections(preprocessing)
    *convolutions, dense, dense_bias = weights
    arrays, rows = _blocks(spec, convolutions, int8=int8)
    arrays = {"taps": taps.ravel(), "sections": sections, "dense": dense[:, 0], **arrays}
    memory = [row[5] for row in rows]
    window_raw = round(spec.input_samples * down / up)
    sizes: dict[str, int | float] = {
        "WINDOW": spec.input_samples,
        "WINDOW_RAW": window_raw,
        "UP": up,
        "DOWN": down,
        "HISTORY": taps.shape[1],
        "SECTIONS": len(sections),
        "SCRATCH": max(a + b for a, b in zip(memory[:-1], memory[1:], strict=True)),
        "GAP_RAW": math.ceil(GAP_S * fs),
        "CONSTANT_RAW": round(quality.MAX_CONSTANT_S * fs),
        "MAX_INVALID_RAW": math.floor(quality.MAX_MISSING * window_raw),
        "INT8": int(int8),
        "HAS_GRID": int(preprocessing.grid),
        **{name.upper(): i for i, name in enumerate(ACTIVATIONS)},
        "ACTIVATION": ACTIVATIONS.index(spec.activation),
        "POOL": spec.pool,
        "BLOCKS": len(rows) - 1,
        "LAST_FILTERS": spec.filters[-1],
        "HAS_AVERAGE": int(spec.global_pool == "max+average"),
        "TILE": TILE,
        "LANES": LANES,
        "MAX_RANGE_MV": quality.MAX_RANGE_MV,
        "MIN_RANGE_MV": quality.MIN_RANGE_MV,
        "GRID_MV": GRID_MV,
        "FS": float(fs),
        "DENSE_BIAS": float(dense_bias[0]),
    }
    table_bytes = sum(a.size * (1 if a.dtype == np.int8 else WORD_BYTES) for a in arrays.values())
    lines = [
        "/*",
        " * Sizes and tables of one model. Generated by ecg_shock; do not edit.",
        " *",
        f" * model           {_comment(bundle.name or 'unnamed')}",
        f" * network         filters {list(spec.filters)}, kernels {list(spec.kernels)}, pool {spec.pool},",
        f" *                 {spec.padding} padding, {spec.activation}, global pooling {spec.global_pool},",
        f" *                 {spec.parameter_count()} parameters, {spec.macs()} multiply-adds a window",
        f" * weights         {'int8 with a float scale for each filter' if int8 else 'float'}; activations float",
        f" * input           mV at {float(fs):.12g} Hz; windows of {spec.input_samples / FS:.12g} s",
        f" * decision        a shock if the probability of shockable is at least {bundle.threshold!r}",
        f" * memory          {_struct_bytes(sizes, DEFAULT_STEP)} bytes: sizeof(ecg_shock) with advice every "
        f"{DEFAULT_STEP / FS:g} s, checked by the compiler;",
        f" *                 {WORD_BYTES * int(sizes['SCRATCH'])} of them are scratch memory of the network",
        f" * tables          {table_bytes} bytes of constants",
        " */",
        "#ifndef ECG_SHOCK_MODEL_H",
        "#define ECG_SHOCK_MODEL_H",
        "",
        *(f"#define ECG_SHOCK_{name} {_literal(value)}" for name, value in sizes.items()),
        "",
        "/* The smallest logit of a shock. For another probability p, define it in all compilation units: the value of",
        "   log(p / (1 - p)) as a number, such as -0.5f. */",
        "#ifndef ECG_SHOCK_THRESHOLD_LOGIT",
        f"#define ECG_SHOCK_THRESHOLD_LOGIT {_literal(logit_of(bundle.threshold))}",
        "#endif",
        "",
        "#endif",
        "",
        "#if defined(ECG_SHOCK_TABLES) && !defined(ECG_SHOCK_HAS_TABLES)",
        "#define ECG_SHOCK_HAS_TABLES",
        "",
    ]
    for name, array in arrays.items():
        c_type = "int8_t" if array.dtype == np.int8 else "float"
        lines += _array(f"static const {c_type} ecg_shock_{name}", array)
    lines.append("static const block ecg_shock_blocks[ECG_SHOCK_BLOCKS + 1] = {")
    lines += [f"    {{{', '.join(map(str, row))}}}," for row in rows]
    return "\n".join([*lines, "};", "", "#endif", ""])


def _struct_bytes(sizes: dict[str, int | float], step: int) -> int:
    """Count the bytes of the struct in ecg_shock.h, in which every member has 4 bytes."""
    steps = -(-int(sizes["WINDOW"]) // step)
    flag_words = -(-int(sizes["WINDOW_RAW"]) // 32)
    counts = (sizes["HISTORY"], 2 * sizes["SECTIONS"], sizes["WINDOW"], sizes["SCRATCH"], flag_words, 2 * steps, 10)
    return WORD_BYTES * int(sum(counts))


def _polyphase(fs: float) -> np.ndarray:
    """Return the coefficients of the resampler, shape (up, n): a row for each phase, newest sample first."""
    up, _ = rate_ratio(fs)
    taps = allowed_taps(fs)
    padded = np.zeros((-(-len(taps) // up), up))
    padded.ravel()[: len(taps)] = taps
    return padded.T


def _difference_sections(preprocessing: Preprocessing) -> np.ndarray:
    """Return b0 b1 b2 a1 a2 of each section of the band-pass, for an input of differences between samples.

    Taking differences replaces one zero at 0 Hz, so this zero is removed from one section. This section comes first.
    """
    sections = preprocessing.sos
    sums = np.abs(sections[:, :3].sum(axis=1)) / np.abs(sections[:, :3]).sum(axis=1)
    first = int(np.argmin(sums))
    b0, b1 = sections[first, :2]
    differenced = np.concatenate([[b0, b0 + b1, 0.0], sections[first, 4:]])
    others = np.delete(sections, first, axis=0)
    return np.vstack([differenced, np.delete(others, 3, axis=1)])


def _blocks(
    spec: CnnSpec, weights: Sequence[np.ndarray], *, int8: bool
) -> tuple[dict[str, np.ndarray], list[_BlockRow]]:
    """Return the tables of the convolutions, and the rows of `ecg_shock_blocks`: convolutions, then their output."""
    arrays: dict[str, np.ndarray] = {}
    rows: list[_BlockRow] = []
    samples, inputs = spec.input_samples, 1
    for i, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        length, _, filters = kernel.shape
        same = spec.padding == "same"
        before = (length - 1) // 2 if same else 0
        padded = samples + length - 1 if same else samples
        pooled = (padded - length + 1) // spec.pool
        last_tile = -(-pooled * spec.pool // TILE) * TILE  # tiles may extend beyond the last pooled sample
        memory = max(padded, last_tile + length - 1) * inputs
        values, scales = quantize_int8(kernel) if int8 else (kernel.astype(np.float32), None)
        arrays |= {f"weights_{i}": _by_lanes(values), f"biases_{i}": bias}
        if scales is not None:
            arrays[f"scales_{i}"] = scales
        tables = (f"ecg_shock_weights_{i}", "0" if scales is None else f"ecg_shock_scales_{i}", f"ecg_shock_biases_{i}")
        rows.append((inputs, filters, length, before, pooled, memory, *tables))
        samples, inputs = pooled, filters
    return arrays, [*rows, (inputs, 0, 0, 0, 0, samples * inputs, "0", "0", "0")]


def _by_lanes(kernel: np.ndarray) -> np.ndarray:
    """Return weights in the order in which the C code reads them: in groups of LANES filters, padded with zeros."""
    length, inputs, filters = kernel.shape
    groups = -(-filters // LANES)
    padded = np.zeros((length * inputs, groups * LANES), dtype=kernel.dtype)
    padded[:, :filters] = kernel.reshape(-1, filters)
    return padded.reshape(-1, groups, LANES).swapaxes(0, 1).ravel()


def _comment(text: object) -> str:
    """Return a text for a C comment, which it can neither end nor continue on the next line."""
    plain = " ".join(str(text).split()).encode("ascii", "replace").decode()
    return plain.replace("*/", "* /").replace("/*", "/ *").replace("\\", "/")


def _literal(value: int | float) -> str:
    if isinstance(value, int):
        return str(value)
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(c in text for c in ".e") else f"{text}.0f"


def _array(declaration: str, array: np.ndarray) -> Iterable[str]:
    values = array.ravel()
    texts = [str(v) for v in values.tolist()] if array.dtype == np.int8 else [_literal(float(v)) for v in values]
    if array.ndim == 2:
        rows = [", ".join(texts[i : i + array.shape[1]]) for i in range(0, len(texts), array.shape[1])]
        body = [f"    {{{row}}}," for row in rows]
        return [f"{declaration}[{len(rows)}][{array.shape[1]}] = {{", *body, "};", ""]
    body = [f"    {', '.join(texts[i : i + NUMBERS_PER_LINE])}," for i in range(0, len(texts), NUMBERS_PER_LINE)]
    return [f"{declaration}[{len(texts)}] = {{", *body, "};", ""]
