"""The C code gives the advice of the Python package, in the stated memory and without any library."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from ecg_shock import Advisor, Stream
from ecg_shock.data.readers import read_record
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.export.c_code import SOURCES, quantize_int8, write_c
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.inference.quality import MAX_CONSTANT_S, MAX_MISSING, MAX_RANGE_MV, MIN_RANGE_MV
from ecg_shock.models.bundle import Bundle, load_bundle
from ecg_shock.models.cnn import CnnSpec, build_model
from ecg_shock.preprocessing import GRID_MV, MAX_MV, Preprocessing, Preprocessor, rate_ratio

HARNESS = Path(__file__).with_name("c_harness.c")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wdouble-promotion")
SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover")
CORTEX_M4 = ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
ARM_GCC = "arm-none-eabi-gcc"
MAY_BE_MISSING = {"memcpy", "memset", "memmove"}  # what any C compiler may call
USABLE, MISSING, OUT_OF_RANGE, FLAT = range(4)
STEP = 125

FILTER_TOLERANCE_MV = 2e-5
PROBABILITY_TOLERANCE = 1e-4
LOGIT_TOLERANCE = 1e-4  # of a random network, relative where the logit is over 1

# Whole pieces of these are streamed, on the first lead. They are not the test patients of the model.
RECORDS = {
    "vfdb": ("418", "421", "430", "602"),
    "cudb": ("cu11", "cu22", "cu24", "cu29"),
    "mitdb": ("102", "219", "233"),
}
PIECE_S = 300.0

gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: the C code cannot be compiled")
Weights = list[np.ndarray]


@lru_cache(maxsize=1)
def package_model() -> tuple[Bundle, Weights]:
    """Return the model that comes with the package."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    return bundle, bundle.load_keras().get_weights()


def bundle_of(spec: CnnSpec, preprocessing: Preprocessing | None = None, threshold: float = 0.5) -> Bundle:
    """Return a bundle without files, which suffices for the C code."""
    return Bundle(Path(), spec, preprocessing or Preprocessing(), threshold, digests={})


class Device:
    """The compiled code of one model."""

    def __init__(
        self, folder: Path, bundle: Bundle, weights: Weights, fs: float, *, int8: bool = False, flags: tuple = ("-O2",)
    ) -> None:
        write_c(folder, bundle, weights, fs=fs, int8=int8)
        self._program = folder / "device"
        compile_with("gcc", *STRICT, *flags, f"-I{folder}", HARNESS, "-o", self._program)

    def run(self, job: str, numbers: np.ndarray) -> np.ndarray:
        """Pass float32 numbers through one function of the harness."""
        data = np.ascontiguousarray(numbers, dtype=np.float32).tobytes()
        done = subprocess.run([self._program, job], input=data, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return np.frombuffer(done.stdout, dtype=np.float32)

    def stream(self, signal: np.ndarray) -> dict[str, np.ndarray]:
        """Return the advice for a signal, an array for each name."""
        names = ("taken", "logit", "probability", "shock", "quality", "invalid_share")
        return dict(zip(names, self.run("stream", signal).reshape(-1, len(names)).T, strict=True))


def compile_with(compiler: str, *arguments: str | Path) -> None:
    """Compile, and show the compiler's errors."""
    done = subprocess.run([compiler, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def held(signal: np.ndarray, fs: float) -> np.ndarray:
    """Fill invalid samples with the last valid one, and continue from it after 1 s or more."""
    result = np.zeros(len(signal))
    offset, value, invalid = 0.0, 0.0, float("inf")
    for i, sample in enumerate(signal.tolist()):
        if np.isfinite(sample):
            if invalid >= fs:
                offset = sample - value
            invalid = 0
            value = sample - offset
        else:
            invalid += 1
        result[i] = value
    return result


def preprocessed(signal: np.ndarray, fs: float, preprocessing: Preprocessing) -> np.ndarray:
    """Return the preprocessed signal in double precision."""
    return Preprocessor(preprocessing, fs).process(held(np.asarray(signal, dtype=np.float32), fs))


def windows_of(filtered: np.ndarray, samples: int = 625) -> np.ndarray:
    """Return the windows for which the C code gives advice."""
    return np.lib.stride_tricks.sliding_window_view(filtered, samples)[::STEP]


def awkward(fs: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return an ECG-like signal with an electrode's offset that drifts from 300 to -300 mV."""
    t = np.arange(round(fs * seconds)) / fs
    beats = np.exp(-(((t % 0.8) - 0.4) ** 2) / (2 * 0.02**2))
    return 1.5 * beats + 0.3 * np.sin(2 * np.pi * 5 * t) + 300 - 600 * t / seconds + rng.normal(0, 0.01, len(t))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Device]:
    """Compile the package's model once for each sampling rate and type of weights."""

    @lru_cache
    def build(fs: float, *, int8: bool = False, sanitize: bool = False) -> Device:
        flags = SANITIZE if sanitize else ("-O2",)
        return Device(tmp_path_factory.mktemp("device"), *package_model(), fs, int8=int8, flags=flags)

    return build


@pytest.fixture(scope="module")
def real_pieces(recordings_dir: Path) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Return the sampling rate, signal and Python's probabilities of parts of real recordings at 250 and 360 Hz."""
    advisor = Advisor()
    pieces = []
    for database, records in RECORDS.items():
        for record in records:
            recording = read_record(recordings_dir / database / record)
            n = round(PIECE_S * recording.fs)
            middle = max(len(recording.signal) // 2 - n // 2, 0)
            signal = recording.signal[middle : middle + n, 0].astype(np.float32)
            windows = windows_of(preprocessed(signal, recording.fs, advisor.bundle.preprocessing))
            pieces.append((recording.fs, signal, advisor.probabilities(windows)))
    return pieces


def test_limit_of_valid_samples_is_that_of_python() -> None:
    """The C header and the Python package have the same limit."""
    header = (SOURCES / "ecg_shock.h").read_text(encoding="ascii")
    (limit,) = re.findall(r"#define ECG_SHOCK_MAX_MV (\S+)f", header)
    assert float(limit) == MAX_MV


@gcc
@pytest.mark.recordings
@pytest.mark.parametrize("int8", [False, True])
def test_decisions_agree_with_python_on_real_recordings(device: Callable, real_pieces: list, int8: bool) -> None:
    """For over 1,000 windows float weights change no decision, and int8 weights at most 1 %; prints how many."""
    by_python = np.concatenate([probabilities for _, _, probabilities in real_pieces])
    advice = [device(fs, int8=int8).stream(signal) for fs, signal, _ in real_pieces]
    by_c, quality, shock = (
        np.concatenate([one[name] for one in advice]) for name in ("probability", "quality", "shock")
    )
    shocks = np.where(quality == USABLE, shock, by_c >= 0.5).astype(bool)
    advised = by_python >= 0.5
    difference = np.abs(by_python - by_c)
    gained, lost = int(np.sum(shocks & ~advised)), int(np.sum(~shocks & advised))
    print(
        f"int8={int8}: {len(by_c)} windows, {advised.sum()} shockable by Python; shocks gained {gained}, lost {lost}; "
        f"largest difference {difference.max():.1e}, mean {difference.mean():.1e}"
    )
    assert len(by_c) > 1000
    assert 0.05 < advised.mean() < 0.95
    assert gained + lost <= (0.01 * len(by_c) if int8 else 0)
    assert (difference.max() < PROBABILITY_TOLERANCE) == (not int8)  # int8 weights were rounded


@gcc
@pytest.mark.parametrize("int8", [False, True])
def test_synthetic_recordings(device: Callable, int8: bool) -> None:
    """Probabilities agree on synthetic recordings; those of int8 weights agree with the rounded weights."""
    bundle, weights = package_model()
    model = build_model(bundle.spec)
    model.set_weights([rounded_kernel(array) if int8 and array.ndim == 3 else array for array in weights])
    count = 0
    for recording in synthetic_recordings(3, seed=1):
        signal = recording.signal[:, 0].astype(np.float32)
        windows = windows_of(preprocessed(signal, recording.fs, bundle.preprocessing))
        expected = model.predict(windows[..., None].astype(np.float32), verbose=0)[:, 0]
        found = device(recording.fs, int8=int8).stream(signal)["probability"]
        np.testing.assert_allclose(found, expected, atol=PROBABILITY_TOLERANCE)
        count += len(found)
    assert count > 150


def rounded_kernel(kernel: np.ndarray) -> np.ndarray:
    """Round a kernel to int8 filter by filter, and convert it back to float."""
    result = np.empty_like(kernel)
    for f in range(kernel.shape[2]):
        step = np.abs(kernel[:, :, f]).max() / 127
        result[:, :, f] = np.round(kernel[:, :, f] / step) * step
    return result


@gcc
@pytest.mark.parametrize("fs", [100.0, 125.0, 128.0, 250.0, 257.0, 360.0, 500.0, 1000.0, 1999.0])
def test_preprocessing_at_any_rate(device: Callable, fs: float, rng: np.random.Generator) -> None:
    """With gaps and an offset that drifts by 600 mV in a minute the error is below 0.02 µV at every sampling rate."""
    signal = awkward(fs, 60.0, rng).astype(np.float32)
    signal[round(10 * fs) : round(10.3 * fs)] = np.nan
    signal[round(20 * fs) : round(22.5 * fs)] = np.inf
    expected = preprocessed(signal, fs, Preprocessing())
    found = device(fs).run("preprocess", signal)
    assert len(found) == len(expected) == np.ceil(len(signal) * 125 / fs)
    print(f"{fs:g} Hz: largest difference {np.abs(found - expected).max():.1e} mV")
    np.testing.assert_allclose(found, expected, atol=FILTER_TOLERANCE_MV)


@gcc
@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(order=1),
        Preprocessing(low_hz=0.5, high_hz=40.0, order=3),
        Preprocessing(low_hz=2.0, order=4),
        Preprocessing(mains_hz=50.0),
        Preprocessing(mains_hz=60.0, order=4, low_hz=0.7),
        Preprocessing(grid=True),
    ],
)
def test_every_filter(preprocessing: Preprocessing, tmp_path: Path, rng: np.random.Generator) -> None:
    """All orders, the notch and the grid agree with Python, except that a rounding may go to the next grid point."""
    _, weights = package_model()
    device = Device(tmp_path, replace(package_model()[0], preprocessing=preprocessing), weights, 250.0)
    signal = awkward(250.0, 60.0, rng).astype(np.float32)
    expected, found = preprocessed(signal, 250.0, preprocessing), device.run("preprocess", signal)
    difference = np.abs(found - expected)
    print(f"{preprocessing}: largest difference {difference.max():.1e} mV")
    if preprocessing.grid:
        assert difference.max() < 1.01 * GRID_MV
        assert np.mean(difference > GRID_MV / 2) < 0.02
        np.testing.assert_allclose(found / GRID_MV, np.round(found / GRID_MV), atol=0.01)
    else:
        assert difference.max() < 5 * FILTER_TOLERANCE_MV


def random_network(
    rng: np.random.Generator, activation: str, padding: str, global_pool: str
) -> tuple[CnnSpec, Weights]:
    """Draw any network that CnnSpec allows, and its weights."""
    while True:
        depth = int(rng.integers(1, 8))
        try:
            spec = CnnSpec(
                filters=tuple(rng.integers(1, 13, depth)),
                kernels=tuple(rng.integers(1, 25, depth)),
                pool=int(rng.choice([2, 2, 3, 4, 5])),
                padding=padding,
                activation=activation,
                input_samples=int(rng.integers(250, 1251)),
                global_pool=global_pool,
            )
            break
        except ValueError:
            continue  # a block of it had no output
    inputs = (1, *spec.filters[:-1])
    shapes = [*zip(spec.kernels, inputs, spec.filters, strict=True), (spec.features, 1)]
    weights = []
    for shape in shapes:
        weights += [rng.normal(0, 1.4 / np.sqrt(np.prod(shape[:-1])), shape), rng.normal(0, 0.3, shape[-1:])]
    return spec, weights


@gcc
@pytest.mark.parametrize(("seed", "global_pool"), [(0, "max"), (1, "max"), (2, "max+average")])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("activation", ["relu", "elu", "selu", "tanh"])
def test_random_networks(activation: str, padding: str, seed: int, global_pool: str, tmp_path: Path) -> None:
    """The logit agrees with Keras and NumPy for any network, and the code accesses only its own memory."""
    rng = np.random.default_rng([seed, *activation.encode(), len(padding)])
    spec, weights = random_network(rng, activation, padding, global_pool)
    windows = rng.normal(0, 1, (3, spec.input_samples)).astype(np.float32)
    found = Device(tmp_path, bundle_of(spec), weights, 250.0, flags=SANITIZE).run("network", windows)
    expected = [in_numpy(spec, weights, window) for window in windows]
    np.testing.assert_allclose(found, expected, rtol=LOGIT_TOLERANCE, atol=LOGIT_TOLERANCE, err_msg=str(spec))
    model = build_model(spec)
    model.set_weights(weights)
    probability = np.asarray(model(windows[..., None]))[:, 0]
    np.testing.assert_allclose(1 / (1 + np.exp(-found.astype(float))), probability, atol=1e-5, err_msg=str(spec))


def in_numpy(spec: CnnSpec, weights: Weights, window: np.ndarray) -> float:
    """Run the network in double precision, step by step."""
    activate = {
        "relu": lambda x: np.maximum(x, 0),
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
        "tanh": np.tanh,
    }[spec.activation]
    x = window.astype(np.float64)[:, None]
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        length = len(kernel)
        if spec.padding == "same":
            x = np.pad(x, (((length - 1) // 2, length // 2), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(x, length, axis=0)
        x = activate(np.einsum("tck,kcf->tf", patches, kernel) + bias)
        pooled = len(x) // spec.pool
        x = x[: pooled * spec.pool].reshape(pooled, spec.pool, -1).max(axis=1)
    features = x.max(axis=0)
    if spec.global_pool == "max+average":
        features = np.concatenate([features, x.sum(axis=0) / len(x)])
    kernel, bias = weights[-2:]
    return float(features @ kernel[:, 0] + bias[0])


@gcc
def test_exponential(device: Callable) -> None:
    """The code's exp has a relative error of at most 1e-7, is limited beyond ±87, and is defined for all floats."""
    x = np.concatenate([np.linspace(-87, 87, 200_001), np.linspace(-1, 1, 100_001)]).astype(np.float32)
    found, expected = device(250.0).run("exp", x), np.exp(x.astype(np.float64))
    error = np.abs(found / expected - 1).max()
    print(f"exp: largest relative error {error:.2e}")
    assert error < 1e-7
    beyond = device(250.0, sanitize=True).run("exp", np.array([1e30, np.inf, -1e30, -np.inf, np.nan]))
    np.testing.assert_allclose(beyond, np.exp([87, 87, -87, -87, -87]), rtol=1e-6)


def reference_quality(signal: np.ndarray, fs: float, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check the quality of the complete raw window at each advice."""
    n = round(625 * fs / 125)
    quality, share = [], []
    filled = held_raw(signal)
    for end in taken.astype(int):
        begin = max(end - n, 0)
        strip, valid = signal[begin:end], np.abs(signal[begin:end]) <= 1e4
        finite = strip[np.isfinite(strip)]
        share.append(np.sum(~valid) / n)
        span = np.ptp(finite.astype(np.float64)) if len(finite) else 0.0
        equal = np.diff(filled[begin:end]) == 0
        run = max((len(r) for r in "".join("01"[int(e)] for e in equal).split("0")), default=0)
        if share[-1] > MAX_MISSING:
            quality.append(MISSING)
        elif span > MAX_RANGE_MV:
            quality.append(OUT_OF_RANGE)
        elif span < MIN_RANGE_MV or run >= round(MAX_CONSTANT_S * fs):
            quality.append(FLAT)
        else:
            quality.append(USABLE)
    return np.array(quality), np.array(share)


def held_raw(signal: np.ndarray) -> np.ndarray:
    """Replace invalid samples by the last valid one."""
    result, last = np.empty(len(signal), dtype=np.float32), np.float32(0)
    for i, sample in enumerate(signal):
        last = sample if np.abs(sample) <= 1e4 else last
        result[i] = last
    return result


@gcc
@pytest.mark.parametrize("fs", [125.0, 250.0, 360.0])
def test_advice_equals_that_of_stream(device: Callable, fs: float) -> None:
    """Advice comes at the same samples with the same decisions, also after gaps and a reattached electrode."""
    recording = next(synthetic_recordings(1, fs=fs))
    signal = recording.signal[:, 0].astype(np.float64)
    for start_s, length_s, offset in ((20, 0.3, 0.0), (40, 7.0, 150.0), (70, 2.5, -90.0)):
        first, last = round(start_s * fs), round((start_s + length_s) * fs)
        signal[first:last] = np.nan
        signal[last:] += offset
    signal = signal.astype(np.float32)
    steps = Stream(fs).push(signal)
    found = device(fs).stream(signal)
    assert found["taken"].tolist() == [round(step.end_s * fs) for step in steps]
    usable = np.array([step.advice.usable for step in steps])
    probability = np.array([step.advice.probability for step in steps])
    np.testing.assert_allclose(found["probability"][usable], probability[usable], atol=PROBABILITY_TOLERANCE)
    np.testing.assert_array_equal(found["shock"][usable], [step.advice.shock for step in np.array(steps)[usable]])
    missing = [step.advice.reason.startswith("missing") for step in steps]
    np.testing.assert_array_equal(found["quality"] == MISSING, missing)
    assert 10 < sum(missing) < usable.sum()


@gcc
@pytest.mark.parametrize("fs", [100.0, 250.0, 257.0, 360.0, 500.0])
def test_quality(device: Callable, fs: float, rng: np.random.Generator) -> None:
    """Missing, out-of-range and flat windows are found as in a check of the complete raw window, and never shocked."""
    signal = awkward(fs, 120.0, rng).astype(np.float32)
    signal -= np.linspace(300, -300, len(signal), dtype=np.float32)

    def between(start_s: float, end_s: float) -> slice:
        return slice(round(start_s * fs), round(end_s * fs))

    signal[between(10.1, 10.5)] = np.nan  # 8 %
    signal[between(20.1, 20.7)] = np.nan  # 12 %
    signal[between(30.1, 31.3)] = signal[round(30.1 * fs)]  # constant for over 1 s
    signal[between(40.1, 41.0)] = signal[round(40.1 * fs)]  # and for less
    signal[round(50.1 * fs)] = 60.0
    signal[round(60.1 * fs)] = 1e30  # beyond any electrode
    signal[between(70.1, 80.3)] = 0.004 * np.sin(np.arange(round(80.3 * fs) - round(70.1 * fs)))  # spans 8 µV
    signal[between(90.1, 93.1)] = np.inf
    signal[between(100.1, 106.1)] = np.nan
    advice = device(fs).stream(signal)
    quality, share = reference_quality(signal, fs, advice["taken"])
    assert set(quality) == {USABLE, MISSING, OUT_OF_RANGE, FLAT}
    np.testing.assert_array_equal(advice["quality"], quality)
    np.testing.assert_allclose(advice["invalid_share"], share, atol=1e-6)
    assert not advice["shock"][quality != USABLE].any()


@gcc
def test_time_of_advice(device: Callable) -> None:
    """The first advice comes after a full window, and then one every second."""
    for fs in (100.0, 128.0, 250.0, 257.0, 360.0):
        taken = device(fs).stream(np.zeros(round(10 * fs)))["taken"]
        up, down = rate_ratio(fs)
        assert taken.tolist() == [(625 + STEP * i) * down // up for i in range(6)]


@gcc
def test_a_shock_is_advised_and_withheld(device: Callable) -> None:
    """The same rhythm is shocked if less than 10 % of the samples are missing, and not if more are."""
    t = np.arange(2500) / 250
    vf = 0.6 * np.sin(2 * np.pi * 4.5 * t + np.sin(t)) * (1 + 0.4 * np.sin(2 * np.pi * 0.7 * t))
    whole = device(250.0).stream(vf)
    assert whole["shock"].all()
    broken = vf.copy()
    broken[1900:2100] = np.nan  # 16 % of a window
    advice = device(250.0).stream(broken)
    assert (advice["shock"] == (advice["invalid_share"] <= 0.1)).all()
    assert 0 < advice["shock"].sum() < len(advice["shock"])


@gcc
@pytest.mark.parametrize("threshold", [0.02, 0.5, 0.97])
def test_threshold(threshold: float, tmp_path: Path) -> None:
    """A shock is advised if the window is usable and its probability reaches the bundle's threshold."""
    bundle, weights = package_model()
    recording = list(synthetic_recordings(4))[3]
    advice = Device(tmp_path, replace(bundle, threshold=threshold), weights, 250.0).stream(recording.signal[:, 0])
    expected = (advice["probability"] >= threshold) & (advice["quality"] == USABLE)
    assert 0 < expected.sum() < len(expected)
    np.testing.assert_array_equal(advice["shock"], expected)


@gcc
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_grid_of_the_largest_samples(order: int, tmp_path: Path) -> None:
    """The largest filtered values of samples of ±10 V do not overflow the integers of the grid."""
    preprocessing = Preprocessing(grid=True, order=order, mains_hz=50.0, high_hz=40.0)
    device = Device(
        tmp_path, replace(package_model()[0], preprocessing=preprocessing), package_model()[1], 250.0, flags=SANITIZE
    )
    impulse = np.zeros(5000)
    impulse[2500] = 1.0
    response = Preprocessor(replace(preprocessing, grid=False), 250.0).process(impulse)
    worst = np.repeat(np.sign(response[::-1]), 2) * 1e4
    reached = np.abs(device.run("preprocess", worst)).max()
    assert reached > 1e4
    assert reached / GRID_MV < 2**31 / 10


@gcc
@pytest.mark.parametrize("int8", [False, True])
def test_invalid_samples_are_harmless(device: Callable, int8: bool, rng: np.random.Generator) -> None:
    """NaN, inf, subnormal and huge numbers cause no undefined behaviour, and the code recovers from them."""
    code = device(250.0, int8=int8, sanitize=True)
    special = np.array(
        [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e4, -1e4, 1.0001e4, 1e-45, 0.0, -0.0, 1.0], np.float32
    )
    bits = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    good = awkward(250.0, 20.0, rng).astype(np.float32)
    for rubbish in (
        rng.choice(special, 4000),
        bits,
        np.full(4000, np.nan),
        np.full(4000, 1e4 * (-1) ** np.arange(4000)),
    ):
        advice = code.stream(np.concatenate([rubbish, good]))
        assert all(np.isfinite(column).all() for column in advice.values())
        assert not advice["shock"][advice["taken"] <= 4000].any()
        alone = code.stream(good)
        np.testing.assert_allclose(advice["logit"][-3:], alone["logit"][-3:], atol=5e-3)
    assert np.isfinite(code.run("network", np.resize(special, 625))).all()
    assert len(code.stream(np.empty(0))["shock"]) == 0


@gcc
def test_fast_math_still_sees_invalid_samples(tmp_path: Path, rng: np.random.Generator) -> None:
    """With -ffast-math, NaN and inf are still replaced and counted."""
    device = Device(tmp_path, *package_model(), 250.0, flags=("-O2", "-ffast-math"))
    signal = awkward(250.0, 20.0, rng).astype(np.float32)
    signal[1000:1100:3], signal[1001:1100:3] = np.nan, np.inf
    expected = preprocessed(signal, 250.0, Preprocessing())
    np.testing.assert_allclose(device.run("preprocess", signal), expected, atol=FILTER_TOLERANCE_MV)
    assert device.stream(signal)["invalid_share"][0] == pytest.approx(67 / 1250)


@gcc
@pytest.mark.parametrize(("fs", "step"), [(250.0, 125), (100.0, 125), (360.0, 50), (1000.0, 625), (250.0, 2)])
def test_stated_memory(fs: float, step: int, tmp_path: Path) -> None:
    """The header, the macro and sizeof have the same size, for every step."""
    bundle, weights = package_model()
    flags = ("-O1", f"-DECG_SHOCK_STEP={step}")
    (size,) = Device(tmp_path, bundle, weights, fs, flags=flags).run("sizeof", np.empty(0))
    stated = re.search(r"memory +(\d+) bytes: sizeof", (tmp_path / "ecg_shock_model.h").read_text())
    assert stated is not None
    more_steps = -(-625 // step) - 5
    assert size == int(stated[1]) + 8 * more_steps


@gcc
def test_a_wrong_size_does_not_compile(tmp_path: Path) -> None:
    """The compiler checks the stated size: with another member the code does not compile."""
    write_c(tmp_path, *package_model(), fs=250.0, int8=False)
    header = tmp_path / "ecg_shock.h"
    header.write_text(header.read_text().replace("int32_t filled;", "int32_t filled, one_more;"))
    command = ["gcc", "-std=c99", "-c", tmp_path / "ecg_shock.c", "-o", tmp_path / "out.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ecg_shock_has_the_stated_size" in done.stderr


@gcc
def test_a_short_step_advises_more_often(tmp_path: Path, rng: np.random.Generator) -> None:
    """With another step the same windows have the same logits."""
    signal = awkward(250.0, 12.0, rng).astype(np.float32)
    every = Device(tmp_path / "a", *package_model(), 250.0, flags=("-O2", "-DECG_SHOCK_STEP=25")).stream(signal)
    second = Device(tmp_path / "b", *package_model(), 250.0).stream(signal)
    np.testing.assert_array_equal(every["logit"][::5], second["logit"])
    np.testing.assert_array_equal(every["quality"][::5], second["quality"])


@pytest.mark.skipif(shutil.which(ARM_GCC) is None, reason=f"{ARM_GCC} is missing: install gcc-arm-none-eabi")
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("activation", "global_pool"), [("relu", "max"), ("tanh", "max"), ("relu", "max+average")])
def test_cortex_m4_needs_no_library(int8: bool, activation: str, global_pool: str, tmp_path: Path) -> None:
    """The code for a Cortex-M4 needs no library, no double precision and no writable data."""
    bundle, weights = package_model()
    spec = replace(bundle.spec, activation=activation, global_pool=global_pool)
    *blocks, dense, bias = weights
    weights = [*blocks, np.resize(dense, (spec.features, 1)), bias]
    write_c(tmp_path, replace(bundle, spec=spec), weights, fs=250.0, int8=int8)
    compile_with(
        *(ARM_GCC, *CORTEX_M4, *STRICT, "-O2", "-ffreestanding", f"-I{tmp_path}"),
        *("-c", tmp_path / "ecg_shock.c", "-o", tmp_path / "m4.o"),
    )
    symbols = subprocess.run(["arm-none-eabi-nm", tmp_path / "m4.o"], capture_output=True, text=True, check=True).stdout
    found = [line.split()[-2:] for line in symbols.splitlines()]
    assert {name for kind, name in found if kind == "U"} <= MAY_BE_MISSING
    assert not [name for kind, name in found if kind in "BbDdC"]  # nothing that is written
    assert {name for kind, name in found if kind == "T"} == {"ecg_shock_init", "ecg_shock_push", "ecg_shock_network"}


def test_int8_rounding() -> None:
    """Each weight is within half a step of its filter, and a filter of zeros stays zero."""
    kernel = np.random.default_rng(0).normal(0, [[[0.1, 1.0, 10.0]]], (7, 4, 3))
    kernel[:, :, 0] = 0.0
    integers, scales = quantize_int8(kernel)
    assert integers.dtype == np.int8
    assert np.abs(integers.astype(int)).max() == 127
    assert (np.abs(integers * scales - kernel) <= scales * 0.5001).all()
    assert not integers[:, :, 0].any()
    assert np.isfinite(scales).all()


def test_wrong_rates_and_weights_are_refused(tmp_path: Path) -> None:
    """Wrong sampling rates and weights are errors, and no file is written."""
    bundle, weights = package_model()
    with pytest.raises(ValueError, match="coefficients"):
        write_c(tmp_path / "c", bundle, weights, fs=249.97, int8=False)
    with pytest.raises(ValueError, match="out of range"):
        write_c(tmp_path / "c", bundle, weights, fs=50.0, int8=False)
    with pytest.raises(TypeError, match="not a number"):
        write_c(tmp_path / "c", bundle, weights, fs="250", int8=False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shapes"):
        write_c(tmp_path / "c", bundle, weights[2:], fs=250.0, int8=False)
    for bad in (np.nan, np.inf, 1e39):
        broken = [array.astype(np.float64) for array in weights]
        broken[0][0, 0, 0] = bad
        with pytest.raises(ValueError, match="NaN"):
            write_c(tmp_path / "c", bundle, broken, fs=250.0, int8=False)
    assert not (tmp_path / "c").exists()


def test_card_cannot_break_the_header(tmp_path: Path) -> None:
    """The model's name stays inside its comment, and equal models give equal bytes."""
    bundle, weights = package_model()
    named = replace(bundle, raw_card={"name": "*/ #error é\n\\"})
    written = write_c(tmp_path, named, weights, fs=250.0, int8=True)
    assert [path.name for path in written] == ["ecg_shock.h", "ecg_shock.c", "ecg_shock_model.h"]
    text = written[2].read_text(encoding="ascii")
    assert text.count("*/") == 2  # one at the top, one at the threshold
    assert "\\" not in text
    write_c(tmp_path / "again", named, weights, fs=250.0, int8=True)
    assert (tmp_path / "again" / "ecg_shock_model.h").read_bytes() == written[2].read_bytes()
