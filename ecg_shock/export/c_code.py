"""A bundle as C99 for a device without an operating system: raw samples in, advice out.

The algorithm is C source that is copied as it is, ``c/ecg_shock.h`` and ``c/ecg_shock.c``. Generated are only sizes and
tables, in ``ecg_shock_model.h``.
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

MAX_TAPS = 25_000  # of the resampler, 100 kB: enough for every whole rate
TILE = 4  # samples times filters that convolve_tile computes at once
LANES = 4
DEFAULT_STEP = 125  # ECG_SHOCK_STEP in ecg_shock.h
WORD_BYTES = 4  # of every member of the struct
NUMBERS_PER_LINE = 8

_Row = tuple[int, int, int, int, int, int, str, str, str]  # of the struct `block` in ecg_shock.c


def write_c(folder: Path, bundle: Bundle, weights: Sequence[np.ndarray], *, fs: float, int8: bool) -> list[Path]:
    """Write the whole way from raw samples to advice as C99 without dependencies, and return the files.

    `weights` are those of the Keras model's `get_weights`; `fs` is the sampling rate of the device in Hz, 100 to 2000.
    With `int8` the convolutions' weights are int8, symmetric, with one float scale a filter; all else stays float.

    Raises
    ------
    TypeError, ValueError
        If the rate is not allowed, or needs a resampler that is too long for a device, or if the weights are not
        those of the network.

    Notes
    -----
    Where the C code deviates from the Python package:

    - it computes in single precision; the resampler works on differences to the newest sample and one zero of the
      band-pass is taken by differencing, so that an electrode's offset costs no precision;
    - of the rules for unusable strips it has those for missing, out-of-range and flat signals only.
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


def quantize_int8(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round a kernel of shape (k, c_in, c_out) to int8; return it, and one float32 scale for each filter."""
    scales = (np.abs(kernel).max(axis=(0, 1)) / INT8_MAX).astype(np.float32)
    scales[scales == 0] = 1.0
    return np.clip(np.rint(kernel / scales), -INT8_MAX, INT8_MAX).astype(np.int8), scales


def _check_weights(spec: CnnSpec, weights: Sequence[np.ndarray]) -> None:
    inputs = (1, *spec.filters[:-1])
    kernels = [*zip(spec.kernels, inputs, spec.filters, strict=True), (spec.filters[-1], 1)]
    expected = [shape for kernel in kernels for shape in (kernel, kernel[-1:])]
    found = [np.shape(array) for array in weights]
    if found != expected:
        raise ValueError(f"the weights have shapes {found!r}, but the network needs {expected!r}")
    largest = np.finfo(np.float32).max
    if not all((np.abs(array) <= largest).all() for array in weights):  # NaN is not either
        raise ValueError("the weights hold NaN, or values that single precision has not; train the network anew")


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
        "FEATURES": spec.filters[-1],
        "TILE": TILE,
        "LANES": LANES,
        "MAX_RANGE_MV": quality.MAX_RANGE_MV,
        "MIN_RANGE_MV": quality.MIN_RANGE_MV,
        "GRID_MV": GRID_MV,
        "FS": float(fs),
        "THRESHOLD_LOGIT": logit_of(bundle.threshold),
        "DENSE_BIAS": float(dense_bias[0]),
    }
    table_bytes = sum(a.size * (1 if a.dtype == np.int8 else WORD_BYTES) for a in arrays.values())
    lines = [
        "/*",
        " * Sizes and tables of one model, written by ecg_shock; not to be edited.",
        " *",
        f" * model           {_comment(bundle.name or 'unnamed')}",
        f" * network         filters {list(spec.filters)}, kernels {list(spec.kernels)}, pool {spec.pool},",
        f" *                 {spec.padding} padding, {spec.activation}, {spec.parameter_count()} parameters, "
        f"{spec.macs()} multiply-adds a window",
        f" * weights         {'int8 with one float scale a filter' if int8 else 'float'}; activations float",
        f" * input           mV at {float(fs):.12g} Hz; windows of {spec.input_samples / FS:.12g} s",
        f" * decision        a shock from probability {bundle.threshold!r} of shockable on",
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
    """Count the bytes of the struct in ecg_shock.h, whose members all have 4 bytes."""
    steps = -(-int(sizes["WINDOW"]) // step)
    flag_words = -(-int(sizes["WINDOW_RAW"]) // 32)
    counts = (sizes["HISTORY"], 2 * sizes["SECTIONS"], sizes["WINDOW"], sizes["SCRATCH"], flag_words, 2 * steps, 10)
    return WORD_BYTES * int(sum(counts))


def _polyphase(fs: float) -> np.ndarray:
    """Return the resampler's coefficients by phase, shape (up, n): one row for each output, newest sample first."""
    up, down = rate_ratio(fs)
    taps = resampler_taps(up, down)
    if len(taps) > MAX_TAPS:
        raise ValueError(
            f"fs={fs!r} Hz needs {len(taps)} filter coefficients to become {FS:g} Hz, more than {MAX_TAPS}; "
            "give the nominal rate, such as a whole number of Hz"
        )
    padded = np.zeros((-(-len(taps) // up), up))
    padded.ravel()[: len(taps)] = taps
    return padded.T


def _difference_sections(preprocessing: Preprocessing) -> np.ndarray:
    """Return b0 b1 b2 a1 a2 of each section, for an input that is differenced already.

    One zero at 0 Hz is divided out of a section that has one, and that section comes first: none after it meets an
    offset.
    """
    sections = preprocessing.sos
    sums = np.abs(sections[:, :3].sum(axis=1)) / np.abs(sections[:, :3]).sum(axis=1)
    first = int(np.argmin(sums))
    b0, b1 = sections[first, :2]
    differenced = np.concatenate([[b0, b0 + b1, 0.0], sections[first, 4:]])
    others = np.delete(sections, first, axis=0)
    return np.vstack([differenced, np.delete(others, 3, axis=1)])


def _blocks(spec: CnnSpec, weights: Sequence[np.ndarray], *, int8: bool) -> tuple[dict[str, np.ndarray], list[_Row]]:
    """Return the tables of the convolutions, and a row of the struct `block` for each and one for what they give."""
    arrays: dict[str, np.ndarray] = {}
    rows: list[_Row] = []
    reaching, inputs = spec.input_samples, 1
    for i, (kernel, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        length, _, filters = kernel.shape
        same = spec.padding == "same"
        before = (length - 1) // 2 if same else 0
        padded = reaching + length - 1 if same else reaching
        pooled = (padded - length + 1) // spec.pool
        last_tile = -(-pooled * spec.pool // TILE) * TILE  # it may read beyond what is used
        memory = max(padded, last_tile + length - 1) * inputs
        values, scales = quantize_int8(kernel) if int8 else (kernel.astype(np.float32), None)
        arrays |= {f"weights_{i}": _by_lanes(values), f"biases_{i}": bias}
        if scales is not None:
            arrays[f"scales_{i}"] = scales
        tables = (f"ecg_shock_weights_{i}", "0" if scales is None else f"ecg_shock_scales_{i}", f"ecg_shock_biases_{i}")
        rows.append((inputs, filters, length, before, pooled, memory, *tables))
        reaching, inputs = pooled, filters
    return arrays, [*rows, (inputs, 0, 0, 0, 0, reaching * inputs, "0", "0", "0")]


def _by_lanes(kernel: np.ndarray) -> np.ndarray:
    """Order weights as they are read: by groups of filters, the last one filled up with zeros."""
    length, inputs, filters = kernel.shape
    groups = -(-filters // LANES)
    padded = np.zeros((length * inputs, groups * LANES), dtype=kernel.dtype)
    padded[:, :filters] = kernel.reshape(-1, filters)
    return padded.reshape(-1, groups, LANES).swapaxes(0, 1).ravel()


def _comment(text: object) -> str:
    """Make a text safe inside a C comment."""
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
