"""Read NumPy files and plain MATLAB files, which have no units and no lead names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_shock.data.columns import choose_columns
from ecg_shock.data.lead_labels import listed, quoted
from ecg_shock.data.recordings import MV_PER_UNIT, Recording, is_finite
from ecg_shock.data.signal_files import WHAT_TO_DO, build_recording, find_columns, lead_names

MATLAB_NUMBERS = frozenset(
    {"double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
)
FS_NAMES = frozenset({"fs", "sf", "srate", "sfreq", "samplerate", "samplingrate", "samplefreq", "samplingfrequency"})
MATLAB_73 = b"MATLAB 7.3"


def read_npy(path: Path, fs: float, units: str, leads: Sequence[str] | None) -> Recording:
    """Read the columns of a NumPy file; see `ecg_shock.data.readers.read_record`."""
    try:
        # Memory-mapping compares the header with the size of the file before it allocates memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        kind, shape = array.dtype, array.shape
    except OSError:
        raise
    except Exception as error:  # damaged files make NumPy raise many types of exceptions
        raise ValueError(
            f"{path} cannot be read as .npy: it is damaged, or holds Python objects, which are not supported. "
            f"{WHAT_TO_DO}"
        ) from error
    if not (np.issubdtype(kind, np.floating) or np.issubdtype(kind, np.integer)):
        raise TypeError(f"{path} holds values of type {str(kind)[:40]}; save real numbers, such as float32")
    if len(shape) not in (1, 2):
        raise ValueError(f"{path} has shape {shape}; save an array of shape (n_samples,) or (n_samples, n_leads)")
    return _build_from_columns(path, array, fs, units, leads)


def read_mat(path: Path, fs: float, units: str, leads: Sequence[str] | None) -> Recording:
    """Read the signal in a MATLAB file that is not a WFDB record; see `ecg_shock.data.readers.read_record`."""
    import scipy.io

    with path.open("rb") as file:
        if file.read(len(MATLAB_73)) == MATLAB_73:
            raise ValueError(
                f"{path} is a MATLAB file of version 7.3; save it again with: save('file.mat', 'ecg', '-v7')"
            )
    try:
        variables = scipy.io.whosmat(path)
        numbers = {name: shape for name, shape, kind in variables if kind in MATLAB_NUMBERS and len(shape) == 2}
        signals = [name for name, shape in numbers.items() if max(shape) > 1]
        rates = [name for name in numbers if name not in signals and name.lower().replace("_", "") in FS_NAMES]
        wanted = [*signals[:1], *rates] if len(signals) == 1 else []
        loaded = scipy.io.loadmat(path, variable_names=wanted) if wanted else {}
        arrays = {name: np.asarray(loaded[name]) for name in wanted}
    except Exception as error:  # damaged files make SciPy raise many types, even OSError
        raise ValueError(
            f"{path} cannot be read as a MATLAB file: it is damaged, or it is a WFDB record without its .hea. "
            f"{WHAT_TO_DO}"
        ) from error
    if not arrays:
        found = listed([f"{name}: {kind} {shape}" for name, shape, kind in variables])
        raise ValueError(
            f"{path} holds the variables {found}; save exactly one array of real numbers, of shape (n_samples,) or "
            "(n_samples, n_leads)"
        )
    array = arrays[signals[0]]
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{path} holds values of type {array.dtype}; save real numbers, such as single")
    for name in rates:
        rate = arrays[name].ravel()[0]
        if is_finite(rate) and rate != fs:
            raise ValueError(
                f"{path}: the variable {quoted(name)} is {rate:g} Hz, but fs= (--fs) is {fs:g} Hz; give the "
                "right sampling rate"
            )
    return _build_from_columns(path, array.ravel() if 1 in array.shape else array, fs, units, leads)


def _build_from_columns(path: Path, array: np.ndarray, fs: float, units: str, leads: Sequence[str] | None) -> Recording:
    """Build a recording from an array whose columns are leads."""
    shape = array.shape
    if len(shape) == 2 and shape[1] > shape[0]:
        raise ValueError(
            f"{path} has shape {shape}, more leads than samples; transpose the array to (n_samples, n_leads)"
        )
    array = array.reshape(shape[0], -1) if array.size else np.empty((0, 1))
    unnamed = [""] * array.shape[1]
    names = lead_names(unnamed)
    read = range(len(names)) if leads is None else find_columns(path, names, leads)
    with np.errstate(over="ignore", invalid="ignore"):  # build_recording refuses infinite values
        columns = {i: np.asarray(array[:, i], dtype=np.float64) for i in read}
        chosen = choose_columns(path, unnamed, columns, {}, leads)
        signal = np.stack([columns[i] for i in chosen], axis=1) * MV_PER_UNIT[units]
    return build_recording(path, signal, fs, [names[i] for i in chosen])
