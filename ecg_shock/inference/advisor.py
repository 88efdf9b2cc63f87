"""Advise a shock, or no shock, for a strip of ECG, with LiteRT instead of TensorFlow."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ecg_shock.inference.occlusion import Explanation

DEFAULT_BUNDLE = Path(__file__).resolve().parents[1] / "pretrained"
MAX_ON_ONE_CORE = 64  # strips; larger numbers are divided among all cores
PART = 128  # strips that a core classifies at a time
MAX_LOGIT = 16.0  # the probability of a larger logit rounds to 1 in 32 bits


@dataclass(frozen=True)
class Advice:
    """The advice of a model for one strip.

    Parameters
    ----------
    shock : bool
        True if a shock is advised. Always False for an unusable strip.
    probability : float
        Probability that the rhythm is shockable; NaN for an unusable strip.
    threshold : float
        A shock is advised if the probability is at least this.
    usable : bool
        True if the strip could be classified.
    reason : str
        The reason why the strip is unusable; empty for a usable strip.

    Notes
    -----
    The advice of `predict` and `predict_many` keeps its strip in memory, for `explain`.
    """

    shock: bool
    probability: float
    threshold: float
    usable: bool = True
    reason: str = ""

    def explain(self, *, seed: int = 0) -> Explanation:
        """Show which seconds and which frequency bands of the strip carry the advice.

        Parameters
        ----------
        seed : int
            Seed of the random phases that replace a part of the strip.

        Returns
        -------
        Explanation
            The effect of each second and of each band on the logit of the probability; see
            `ecg_shock.inference.occlusion`.

        Raises
        ------
        ValueError
            If the strip is unusable, or if the advice does not come directly from `predict` or `predict_many`. An
            advice that was copied, loaded from a file, or made by `Stream` no longer knows its strip.

        Examples
        --------
        >>> ecg = np.sin(2 * np.pi * 5 * np.arange(1250) / 250)
        >>> explanation = predict(ecg, fs=250).explain()
        >>> [second.name for second in explanation.seconds]
        ['0–1 s', '1–2 s', '2–3 s', '3–4 s', '4–5 s']
        """
        from ecg_shock.inference.occlusion import explain_strip

        if not self.usable:
            raise ValueError(
                f"the strip is unusable ({self.reason}), so its network was not asked; give another strip."
            )
        if "_given" not in self.__dict__:
            raise ValueError("this advice does not know its strip; call explain() on the result of predict.")
        strip, fs, advisor = self.__dict__["_given"]
        return explain_strip(advisor, strip, fs, seed=seed)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_given"}


class Advisor:
    """A loaded model, which advises a shock or no shock.

    Parameters
    ----------
    model : str, pathlib.Path or Bundle, optional
        A bundle or its folder. By default the pretrained model of the package.

    Raises
    ------
    FileNotFoundError
        If there is no bundle in the folder.
    ValueError
        If the bundle is damaged.

    Notes
    -----
    Several threads may use the same advisor. At most one thread per core runs at a time, each with its own copy of the
    network.
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
        """Advise a shock, or no shock, for one strip; see `ecg_shock.predict`."""
        fs = _choose_fs(signal, fs)
        if isinstance(signal, Recording):
            signal, fs = _take_only_lead(signal, fs, units)
        strip = real_numbers(signal)
        if strip.ndim != 1:
            raise ValueError(
                f"signal has shape {strip.shape}; give one lead as a 1-D array, such as signal[:, 0]. "
                "For several strips, use predict_many."
            )
        return self._advise(strip[None], fs, units)[0]

    def predict_many(self, signals: Any, fs: float | None = None, *, units: str = "mV") -> list[Advice]:
        """Advise a shock, or no shock, for strips of equal length; see `ecg_shock.predict_many`."""
        fs = _choose_fs(signals, fs)
        return self._advise(real_numbers(signals), fs, units)

    def _advise(self, signals: np.ndarray, fs: Any, units: str) -> list[Advice]:
        strips = _check_strips(signals, fs, units)

        def advise(part: slice) -> tuple[np.ndarray, np.ndarray]:
            return self._classify(strips[part], fs, preprocess_strips(strips[part], fs, self.bundle.preprocessing))

        probabilities, reasons = _run_in_parts(advise, len(strips))
        threshold = self.bundle.threshold
        found = [
            Advice(p >= threshold, p, threshold, not reason, reason)
            for p, reason in zip(probabilities.tolist(), reasons.tolist(), strict=True)
        ]
        for advice, strip in zip(found, strips, strict=True):
            advice.__dict__["_given"] = strip, fs, self  # for explain(); no field, so it is neither compared nor shown
        return found

    def classify(self, strips: np.ndarray, fs: float, filtered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classify strips that were preprocessed before, such as windows of a longer recording.

        Parameters
        ----------
        strips : numpy.ndarray
            Shape (n_strips, n), mV: the strips as recorded; NaN or infinite where invalid.
        fs : float
            Sampling rate of `strips` in Hz.
        filtered : numpy.ndarray
            Shape (n_strips, m), mV: the same strips after preprocessing, at 125 Hz.

        Returns
        -------
        probabilities : numpy.ndarray
            Shape (n_strips,): probability of *shockable*; NaN for an unusable strip.
        reasons : numpy.ndarray
            Shape (n_strips,), str: the reason why a strip is unusable; empty for a usable strip.
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
        """Compute the probability of *shockable*, without the rule for unusable strips.

        Parameters
        ----------
        ecg : numpy.ndarray
            Shape (n_windows, n_samples), mV: preprocessed windows at 125 Hz.

        Returns
        -------
        numpy.ndarray
            Shape (n_windows,): probability of *shockable*.

        Raises
        ------
        ValueError
            If the windows are too short for the network.
        """
        return _run_in_parts(lambda part: (self._run_network(ecg[part]),), len(ecg))[0]

    def logits(self, strips: np.ndarray, fs: float) -> np.ndarray:
        """Compute the logit of *shockable* of raw strips, without the rule for unusable strips.

        Parameters
        ----------
        strips : numpy.ndarray
            Shape (n_strips, n), mV: strips of 2 to 10 s as recorded, NaN where invalid.
        fs : float
            Sampling rate in Hz.

        Returns
        -------
        numpy.ndarray
            Shape (n_strips,): the logits, ``log(p / (1 - p))``, limited to ±16, because the probability of a
            larger logit rounds to 1 in 32 bits.
        """
        return to_logit(self.probabilities(preprocess_strips(strips, fs, self.bundle.preprocessing)))

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
            raise ValueError(f"the output of the LiteRT model has shape {shape}; allowed is [1, 1].")
        self.samples = samples

    def run(self, windows: np.ndarray) -> np.ndarray:
        """Return the probability of each window; `windows` has shape (n_windows, samples), float32."""
        result = np.empty(len(windows))
        # One by one, because batches of windows are not faster.
        for i, window in enumerate(windows[:, None, :, None]):
            self._interpreter.set_tensor(self._input, window)
            self._interpreter.invoke()
            result[i] = self._interpreter.get_tensor(self._output)[0, 0]
        return result


def to_logit(probability: Any) -> np.ndarray:
    """Return the logit of probabilities, limited to ±`MAX_LOGIT`.

    Examples
    --------
    >>> to_logit([0.0, 0.5, 1.0]).tolist()
    [-16.0, 0.0, 16.0]
    """
    with np.errstate(divide="ignore"):
        logit = np.log(probability) - np.log1p(-np.asarray(probability))
    return np.clip(logit, -MAX_LOGIT, MAX_LOGIT)


def _count_cores() -> int:
    """Return the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run_in_parts(work: Callable[[slice], tuple[np.ndarray, ...]], count: int) -> tuple[np.ndarray, ...]:
    """Call `work` for parts of `count` rows, on all cores, and join the arrays that it returns."""
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
    """Advise a shock, or no shock, for one strip of one lead.

    Parameters
    ----------
    signal : array_like or Recording
        The strip, 2 to 10 s: an array of shape (n,), NaN where invalid, or a recording of one lead.
    fs : float, optional
        Sampling rate in Hz, 100 to 2000. By default, that of the recording; for an array 125 Hz, with a warning.
    units : {"mV", "uV", "µV", "V"}
        Unit of the samples of an array. A recording is in mV.
    model : str, pathlib.Path or Advisor, optional
        Folder of a bundle, or a loaded model. By default the pretrained model of the package.

    Returns
    -------
    Advice
        The advice. If the strip is flat, saturated, noisy or out of range, or if more than 10 % of its samples are
        missing, `usable` is False and `reason` says why.

    Raises
    ------
    TypeError
        If the signal is not an array of real numbers.
    ValueError
        If its shape, length, sampling rate or unit is not allowed, or all samples are missing.

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
    """Advise a shock, or no shock, for several strips of equal length.

    Parameters
    ----------
    signals : array_like
        Shape (n_strips, n): strips of 2 to 10 s, NaN where invalid.
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
    """Return a loaded model; a folder that was used before is not loaded again, unless it has changed."""
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
    """Load a model; `changed` is the time of the last change, so that a changed bundle is loaded again."""
    return Advisor(folder)


def _choose_fs(signal: Any, fs: float | None) -> float | None:
    """Return `fs`, or the network's for an array without one, with a warning that points to the caller's caller."""
    if fs is not None or isinstance(signal, Recording):
        return fs
    warnings.warn(
        f"fs is not given, so a sampling rate of {FS:g} Hz is assumed; if the signal has another rate, the advice can "
        f"be wrong. Give fs= in Hz, such as fs={FS:g}, or give a Recording.",
        UserWarning,
        stacklevel=3,
    )
    return FS


def _take_only_lead(recording: Recording, fs: float | None, units: str) -> tuple[np.ndarray, float]:
    if units != "mV":
        raise ValueError(f"units is {units!r}, but a Recording is always in mV; remove units.")
    if fs is not None and fs != recording.fs:
        raise ValueError(f"fs is {fs!r}, but the recording has {recording.fs!r} Hz; remove fs.")
    if len(recording.leads) != 1:
        ecg = next((lead for lead in recording.leads if is_ecg(lead)), recording.leads[0])
        raise ValueError(
            f"the recording has the leads {recording.leads!r}; choose one, for "
            f"example with recording.strip(0, 5, lead={ecg!r})."
        )
    return recording.signal[:, 0], recording.fs


def real_numbers(signal: Any) -> np.ndarray:
    """Return the signal as an array of float64, with NaN for masked samples."""
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
        try:
            array = np.asanyarray(signal)  # keeps a mask
        except ValueError as error:
            raise ValueError(f"the signal is not an array ({error}); give strips of equal length.") from error
        if array.dtype.kind not in "iuf":
            raise TypeError(f"the signal has dtype {array.dtype}; give real numbers, with NaN for missing samples.")
        return np.ma.filled(array.astype(np.float64), np.nan)


def _check_strips(signals: np.ndarray, fs: float, units: str) -> np.ndarray:
    """Return strips in mV; raise a ValueError if they are not allowed."""
    if units not in MV_PER_UNIT:
        raise ValueError(f"units is {units!r}; allowed are {', '.join(MV_PER_UNIT)}.")
    rate_ratio(fs)  # raises if fs is not allowed
    if units != "mV":
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is out of range
            signals = signals * MV_PER_UNIT[units]
    if signals.ndim != 2:
        raise ValueError(f"signals has shape {signals.shape}; allowed is (n_strips, n_samples).")
    n = signals.shape[1]
    if not is_allowed_length(n, fs):
        raise ValueError(
            f"a strip of {n} samples at {fs:g} Hz is {n / fs:.6g} s; allowed are {MIN_WINDOW_S:g} to "
            f"{MAX_WINDOW_S:g} s. Check fs, or cut the recording into strips."
        )
    valid = np.isfinite(signals).any(axis=1)
    if not valid.all():
        raise ValueError(f"strip {int(np.argmin(valid))} has no valid sample; give strips with valid samples.")
    rising = never_falls(signals)
    if rising.any():
        raise ValueError(
            f"strip {int(np.argmax(rising))} never falls, so it is a time or a counter, not an ECG; give the "
            "samples of a lead."
        )
    return signals
