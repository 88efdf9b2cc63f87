"""Shock advice from a strip of ECG, on LiteRT: no TensorFlow is loaded."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.columns import never_falls
from ecg_shock.data.lead_labels import is_ecg
from ecg_shock.data.recordings import MV_PER_UNIT, Recording
from ecg_shock.inference.quality import unusable_reasons
from ecg_shock.models.bundle import TOML_NAME, Bundle, load_bundle
from ecg_shock.preprocessing import (
    FS,
    MAX_WINDOW_S,
    MIN_WINDOW_S,
    is_allowed_length,
    preprocess_strips,
    rate_ratio,
)
from ecg_shock.quiet import without_lines

DEFAULT_BUNDLE = Path(__file__).resolve().parents[1] / "pretrained"
MAX_ON_ONE_CORE = 64  # strips; more are divided into parts, which all cores work on
PART = 128  # strips: smaller parts need more calls, larger ones leave a core idle at the end


@dataclass(frozen=True)
class Advice:
    """What the model advises for one strip.

    Parameters
    ----------
    shock : bool
        Whether a shock is advised; never for an unusable strip.
    probability : float
        Probability that the rhythm is shockable; NaN for an unusable strip.
    threshold : float
        A shock is advised at this probability and above.
    usable : bool
        Whether the strip could be classified.
    reason : str
        Why not; empty for a usable strip.
    """

    shock: bool
    probability: float
    threshold: float
    usable: bool = True
    reason: str = ""


class Advisor:
    """A loaded model that gives advice.

    Parameters
    ----------
    model : str, pathlib.Path or Bundle, optional
        A bundle or its folder; the model that comes with the package if not given.

    Raises
    ------
    FileNotFoundError
        If there is no bundle.
    ValueError
        If it is damaged.

    Notes
    -----
    Threads may share an advisor: as many threads as there are cores work at once, each with a copy of the network.
    """

    def __init__(self, model: str | Path | Bundle | None = None) -> None:
        self.bundle = model if isinstance(model, Bundle) else load_bundle(DEFAULT_BUNDLE if model is None else model)
        self._content = self.bundle.read_litert()
        try:
            with without_lines("INFO: Created TensorFlow Lite"):  # printed once per process
                network = _Network(self._content)
                network.resize(self.bundle.spec.input_samples)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{self.bundle.folder} holds no LiteRT model that can be run: {error}") from error
        self._idle = [network]
        self._turns = threading.BoundedSemaphore(_count_cores())  # bounds the number of networks

    def predict(self, signal: Any, fs: float | None = None, *, units: str = "mV") -> Advice:
        """Advise on one strip; see `ecg_shock.predict`."""
        fs = _choose_fs(signal, fs)
        if isinstance(signal, Recording):
            signal, fs = _take_only_lead(signal, fs, units)
        strip = real_numbers(signal)
        if strip.ndim != 1:
            raise ValueError(
                f"signal has shape {strip.shape}; one lead is a 1-D array, such as signal[:, 0]. "
                "For many strips at once use predict_many."
            )
        return self._advise(strip[None], fs, units)[0]

    def predict_many(self, signals: Any, fs: float | None = None, *, units: str = "mV") -> list[Advice]:
        """Advise on strips of one length; see `ecg_shock.predict_many`."""
        fs = _choose_fs(signals, fs)
        return self._advise(real_numbers(signals), fs, units)

    def _advise(self, signals: np.ndarray, fs: Any, units: str) -> list[Advice]:
        strips = _check_strips(signals, fs, units)

        def advise(part: slice) -> tuple[np.ndarray, np.ndarray]:
            return self._classify(strips[part], fs, preprocess_strips(strips[part], fs, self.bundle.preprocessing))

        probabilities, reasons = _run_in_parts(advise, len(strips))
        threshold = self.bundle.threshold
        return [
            Advice(p >= threshold, p, threshold, not reason, reason)
            for p, reason in zip(probabilities.tolist(), reasons.tolist(), strict=True)
        ]

    def classify(self, strips: np.ndarray, fs: float, filtered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classify strips that have been preprocessed, such as windows of a longer recording.

        Parameters
        ----------
        strips : numpy.ndarray
            Shape (n_strips, n), mV, as recorded; NaN or infinite where invalid. Views of overlapping windows, as
            `numpy.lib.stride_tricks.sliding_window_view` gives them, are not copied.
        fs : float
            Sampling rate of `strips` in Hz.
        filtered : numpy.ndarray
            Shape (n_strips, m), mV, at 125 Hz: the same strips after preprocessing.

        Returns
        -------
        probabilities : numpy.ndarray
            Shape (n_strips,), of *shockable*; NaN for an unusable strip.
        reasons : numpy.ndarray
            Shape (n_strips,), strings: why a strip is unusable; empty for a usable one.
        """
        probabilities, reasons = _run_in_parts(
            lambda part: self._classify(strips[part], fs, filtered[part]), len(strips)
        )
        return probabilities, reasons

    def _classify(self, strips: np.ndarray, fs: float, filtered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reasons = unusable_reasons(strips, fs, filtered)
        usable = reasons == ""
        if usable.all():
            return self._run_network(filtered), reasons
        probabilities = np.full(len(strips), np.nan)
        probabilities[usable] = self._run_network(filtered[usable])
        return probabilities, reasons

    def probabilities(self, ecg: np.ndarray) -> np.ndarray:
        """Run the network alone.

        Parameters
        ----------
        ecg : numpy.ndarray
            Shape (n_windows, n_samples), mV, preprocessed, at 125 Hz.

        Returns
        -------
        numpy.ndarray
            Shape (n_windows,), probability of *shockable*.

        Raises
        ------
        ValueError
            If the windows are too short for the network. 2 s are enough for a network with padding.
        """
        return _run_in_parts(lambda part: (self._run_network(ecg[part]),), len(ecg))[0]

    def _run_network(self, windows: np.ndarray) -> np.ndarray:
        with self._turns:
            try:
                network = self._idle.pop()
            except IndexError:
                network = _Network(self._content)
            try:
                if windows.shape[1] != network.samples:
                    replace(self.bundle.spec, input_samples=windows.shape[1])  # raises if they are too short
                    network.resize(windows.shape[1])
                return network.run(np.ascontiguousarray(windows, dtype=np.float32))
            finally:
                self._idle.append(network)


class _Network:
    """A LiteRT interpreter, for one thread at a time."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self.samples = 0

    def resize(self, samples: int) -> None:
        self._interpreter.resize_tensor_input(self._input, [1, samples, 1])
        self._interpreter.allocate_tensors()
        shape = self._interpreter.get_output_details()[0]["shape"].tolist()
        if shape != [1, 1]:
            raise ValueError(f"the LiteRT model has an output of shape {shape}, not [1, 1].")
        self.samples = samples

    def run(self, windows: np.ndarray) -> np.ndarray:
        """Return the probability of each window, given in single precision, shape (n_windows, samples)."""
        result = np.empty(len(windows))
        # One by one: batches of 2 to 32 windows give the same results and take as long, on one thread and on two.
        for i, window in enumerate(windows[:, None, :, None]):
            self._interpreter.set_tensor(self._input, window)
            self._interpreter.invoke()
            result[i] = self._interpreter.get_tensor(self._output)[0, 0]
        return result


def _count_cores() -> int:
    """Count the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_in_parts(work: Callable[[slice], tuple[np.ndarray, ...]], count: int) -> tuple[np.ndarray, ...]:
    """Work on `count` rows part by part, on all cores, and join each of the arrays that `work` returns."""
    if count <= MAX_ON_ONE_CORE:
        return work(slice(0, count))
    from concurrent.futures import ThreadPoolExecutor  # LiteRT and NumPy release the interpreter lock

    size = min(PART, -(-count // _count_cores()))
    parts = [slice(first, first + size) for first in range(0, count, size)]
    with ThreadPoolExecutor(min(_count_cores(), len(parts))) as pool:
        return tuple(map(np.concatenate, zip(*pool.map(work, parts), strict=True)))


def predict(
    signal: Any, fs: float | None = None, *, units: str = "mV", model: str | Path | Advisor | None = None
) -> Advice:
    """Advise whether to shock, from one strip of one lead.

    Parameters
    ----------
    signal : array_like or Recording
        Shape (n,), 2 to 10 s, NaN where invalid; or a recording of one lead.
    fs : float, optional
        Sampling rate in Hz, 100 to 2000. If not given, a recording's own `fs` is used, and 125 Hz is assumed for
        an array, with a warning.
    units : {"mV", "uV", "µV", "V"}
        Units of an array. A recording is in mV.
    model : str, pathlib.Path or Advisor, optional
        A bundle's folder or a loaded model; the model that comes with the package if not given.

    Returns
    -------
    Advice
        With ``usable=False`` and a reason for a strip that is flat, saturated, noisy, out of range or mostly missing.

    Raises
    ------
    TypeError
        If the signal is not an array of real numbers.
    ValueError
        If its shape, length, sampling rate or units are not allowed, or all samples are missing.

    Warns
    -----
    UserWarning
        If `fs` is not given for an array.

    Examples
    --------
    >>> import numpy as np
    >>> predict(np.zeros(1250), fs=250).reason
    'flat: the strip spans 0.000 mV, less than 0.010 mV'
    """
    fs = _choose_fs(signal, fs)
    return choose_advisor(model).predict(signal, fs, units=units)


def predict_many(
    signals: Any, fs: float | None = None, *, units: str = "mV", model: str | Path | Advisor | None = None
) -> list[Advice]:
    """Advise whether to shock, for many strips of one length.

    Parameters
    ----------
    signals : array_like
        Shape (n_strips, n), 2 to 10 s each, NaN where invalid.
    fs, units, model
        As for `predict`.

    Returns
    -------
    list of Advice
        One for each strip.

    Raises
    ------
    TypeError, ValueError
        As for `predict`.

    Warns
    -----
    UserWarning
        If `fs` is not given.

    Examples
    --------
    >>> import numpy as np
    >>> [advice.shock for advice in predict_many(np.zeros((2, 625)), fs=125)]
    [False, False]
    """
    fs = _choose_fs(signals, fs)
    return choose_advisor(model).predict_many(signals, fs, units=units)


def choose_advisor(model: str | Path | Advisor | None) -> Advisor:
    """Return the model that a caller asked for; a few models stay loaded."""
    if isinstance(model, Advisor):
        return model
    folder = DEFAULT_BUNDLE if model is None else Path(model).resolve()
    try:
        changed = (folder / TOML_NAME).stat().st_mtime_ns
    except OSError:
        changed = 0  # load_bundle reports what is missing
    return _load_advisor(folder, changed)


@lru_cache(maxsize=4)
def _load_advisor(folder: Path, changed: int) -> Advisor:
    """Load a model; `changed`, the time of change, makes a bundle that was saved again load again."""
    return Advisor(folder)


def _choose_fs(signal: Any, fs: float | None) -> float | None:
    """Return `fs`, or the network's for an array without one, with a warning that points to the caller's caller."""
    if fs is not None or isinstance(signal, Recording):
        return fs
    warnings.warn(
        f"fs is not given, so the array is taken at {FS:g} Hz, the sampling rate of the network; at any other the "
        f"advice is wrong. Give fs= in Hz (fs={FS:g} if it is that), or a Recording, which has its own.",
        UserWarning,
        stacklevel=3,
    )
    return FS


def _take_only_lead(recording: Recording, fs: float | None, units: str) -> tuple[np.ndarray, float]:
    if units != "mV":
        raise ValueError(f"units={units!r}, but a recording is in mV; leave units out.")
    if fs is not None and fs != recording.fs:
        raise ValueError(f"fs={fs!r}, but the recording has {recording.fs!r} Hz; leave fs out.")
    if len(recording.leads) != 1:
        ecg = next((lead for lead in recording.leads if is_ecg(lead)), recording.leads[0])
        raise ValueError(
            f"the recording has the leads {recording.leads!r}; choose one, such as recording.strip(0, 5, lead={ecg!r})."
        )
    return recording.signal[:, 0], recording.fs


def real_numbers(signal: Any) -> np.ndarray:
    """Return an array of floats, NaN where masked."""
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
        try:
            array = np.asanyarray(signal)  # keeps a mask
        except ValueError as error:
            raise ValueError(f"the signal is not an array ({error}); give strips of one length.") from error
        if array.dtype.kind not in "iuf":
            raise TypeError(f"the signal has dtype {array.dtype}; give real numbers, NaN where samples are missing.")
        return np.ma.filled(array.astype(np.float64), np.nan)


def _check_strips(signals: np.ndarray, fs: float, units: str) -> np.ndarray:
    """Return strips in mV; raise ValueError if they cannot be classified at all."""
    if units not in MV_PER_UNIT:
        raise ValueError(f"units={units!r} is not known; allowed are {', '.join(MV_PER_UNIT)}.")
    rate_ratio(fs)  # raises if fs is not allowed
    if units != "mV":
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
            signals = signals * MV_PER_UNIT[units]
    if signals.ndim != 2:
        raise ValueError(f"signals has shape {signals.shape}; give (n_strips, n_samples).")
    n = signals.shape[1]
    if not is_allowed_length(n, fs):
        raise ValueError(
            f"a strip of {n} samples at {fs:g} Hz is {n / fs:.6g} s; allowed are {MIN_WINDOW_S:g} to "
            f"{MAX_WINDOW_S:g} s. If that is not the sampling rate, give fs; cut a longer recording into strips."
        )
    valid = np.isfinite(signals).any(axis=1)
    if not valid.all():
        raise ValueError(f"strip {int(np.argmin(valid))} has no valid sample; there is nothing to classify.")
    rising = never_falls(signals)
    if rising.any():
        raise ValueError(
            f"strip {int(np.argmax(rising))} never falls, as time does but an ECG does not; give the samples of a lead."
        )
    return signals
