"""Advice is the network's output for the preprocessed strip, and bad input is refused with a helpful message."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas
import pytest

import ecg_shock
from ecg_shock import Advice, Advisor, Recording, predict, predict_many
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import load_bundle, write_bundle
from ecg_shock.preprocessing import Preprocessing, preprocess, preprocess_strips

FS = 125.0
SPEC = CnnSpec(filters=(6, 4), kernels=(9, 5))
PREPROCESSING = Preprocessing(high_hz=35.0)


def strips(count: int, seconds: float, fs: float) -> np.ndarray:
    """Return strips of wandering sines of 0.5 to 3 mV, all usable."""
    rng = np.random.default_rng(5)
    t = np.arange(round(seconds * fs)) / fs
    hz = rng.uniform(2, 8, (count, 1))
    size = rng.uniform(0.5, 3, (count, 1))
    return size / 2 * np.sin(2 * np.pi * hz * t + np.sin(2 * np.pi * 0.6 * t)) * (1 + 0.3 * np.sin(2 * np.pi * 0.4 * t))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle of an untrained network whose threshold is between its probabilities."""
    folder = tmp_path_factory.mktemp("bundle")
    model = build_model(SPEC, seed=4)
    ecg = preprocess_strips(strips(20, 5, 250.0), 250.0, PREPROCESSING).astype(np.float32)
    threshold = float(np.median(model(ecg[..., None]).numpy()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.showwarning", lambda *args, **kwargs: None)
        write_bundle(folder, model, spec=SPEC, preprocessing=PREPROCESSING, threshold=threshold, card={})
    return folder


@pytest.fixture(scope="module")
def advisor(folder: Path) -> Advisor:
    """Return the loaded bundle."""
    return Advisor(folder)


@pytest.mark.parametrize(("seconds", "fs"), [(2, 250.0), (3.3, 360.0), (5, 125.0), (5, 250.0), (10, 500.0)])
def test_probability_is_that_of_keras(folder: Path, advisor: Advisor, seconds: float, fs: float) -> None:
    """LiteRT and Keras agree to 1e-6 at every length, after the bundle's own filter."""
    signals = strips(8, seconds, fs)
    ecg = preprocess_strips(signals, fs, PREPROCESSING).astype(np.float32)
    spec = CnnSpec(filters=SPEC.filters, kernels=SPEC.kernels, input_samples=ecg.shape[1])
    model = build_model(spec)
    model.set_weights(load_bundle(folder).load_keras().get_weights())
    expected = model(ecg[..., None]).numpy()[:, 0]
    advices = advisor.predict_many(signals, fs)
    np.testing.assert_allclose([advice.probability for advice in advices], expected, atol=1e-6)
    assert np.ptp(expected) > 1e-3
    assert all(advice.usable and not advice.reason for advice in advices)


def test_shock_is_advised_from_the_threshold_on(advisor: Advisor) -> None:
    """Both advices occur, and each is the comparison with the threshold."""
    advices = advisor.predict_many(strips(20, 5, 250.0), 250.0)
    assert {advice.shock for advice in advices} == {True, False}
    for advice in advices:
        assert advice.threshold == advisor.bundle.threshold
        assert advice.shock is (advice.probability >= advice.threshold)
        assert type(advice.probability) is float


def test_one_strip_equals_its_row(folder: Path, advisor: Advisor) -> None:
    """`predict` equals a row of `predict_many`, whatever the other rows and earlier lengths."""
    signals = strips(4, 4, 250.0)
    together = predict_many(signals, 250, model=folder)
    for signal, advice in zip(signals, together, strict=True):
        predict(strips(1, 7, 250.0)[0], 250, model=advisor)
        assert predict(signal, 250, model=folder) == predict(signal, 250, model=advisor) == advice
    assert advisor.predict_many(signals[:0], 250) == []


def test_kinds_of_arrays(advisor: Advisor) -> None:
    """A list, integers, single precision, a series of pandas and a read-only view give the same advice as doubles."""
    signal = np.round(strips(1, 5, 125.0)[0] * 1000)
    expected = advisor.predict(signal, FS, units="uV")
    read_only = np.stack([signal, signal], axis=1)[:, 1]
    read_only.flags.writeable = False
    for kind in (
        signal.tolist(),
        signal.astype(np.int16),
        signal.astype(np.float32),
        signal.astype(">f8"),
        pandas.Series(signal, index=np.arange(len(signal)) + 7),
        tuple(signal),
        read_only,
        np.ma.array(signal),
    ):
        before = np.array(kind, copy=True)
        assert advisor.predict(kind, FS, units="uV") == expected
        np.testing.assert_array_equal(before, kind)


def test_units_are_converted(advisor: Advisor) -> None:
    """The same strip in mV, µV (both spellings) and V gets the same advice."""
    signal = strips(1, 5, 125.0)[0]
    expected = advisor.predict(signal, FS)
    for units, factor in (("mV", 1), ("uV", 1e3), ("µV", 1e3), ("V", 1e-3)):
        assert advisor.predict(signal * factor, FS, units=units).probability == pytest.approx(
            expected.probability, abs=1e-6
        )
    assert advisor.predict(signal * 1000, FS).reason.startswith("out of range")


def test_recording_brings_its_rate(advisor: Advisor) -> None:
    """A recording of one lead equals its samples at its sampling rate, which may also be given."""
    signal = strips(1, 5, 360.0)[0]
    recording = Recording(signal[:, None], 360.0, ("II",))
    assert advisor.predict(recording) == advisor.predict(signal, 360) == predict(recording, 360, model=advisor)
    assert advisor.predict(recording) != advisor.predict(signal[:1250], 250)


def test_array_without_a_rate_is_at_125_hz_with_a_warning(advisor: Advisor) -> None:
    """Each function warns at the line that calls it; there is no warning with `fs` or a recording."""
    signal = strips(1, 5, FS)[0]
    expected = advisor.predict(signal, FS)
    for call in (
        lambda: predict(signal, model=advisor),
        lambda: advisor.predict(signal),
        lambda: predict_many(signal[None], model=advisor)[0],
        lambda: advisor.predict_many(signal[None])[0],
    ):
        with pytest.warns(UserWarning, match=r"125 Hz is assumed.*Give fs= in Hz") as caught:
            assert call() == expected
        assert [warning.filename for warning in caught] == [__file__]
    assert advisor.predict(signal, np.float32(125)) == expected
    assert predict(Recording(signal[:, None], FS, ("II",)), model=advisor) == expected


@pytest.mark.parametrize("invalid", [np.nan, np.inf, -np.inf])
def test_few_invalid_samples_are_fine_and_many_are_not(advisor: Advisor, invalid: float) -> None:
    """9 % missing samples hold the last valid one, 11 % make the strip unusable, 100 % are an error."""
    signal = strips(1, 5, 250.0)[0]
    for share, usable in ((0.09, True), (0.11, False)):
        gappy = signal.copy()
        gappy[300 : 300 + round(share * len(signal))] = invalid
        advice = advisor.predict(gappy, 250)
        assert advice.usable is usable
        assert math.isnan(advice.probability) is not usable
    assert not advice.shock
    assert advice.reason.startswith("missing: 11%")
    with pytest.raises(ValueError, match="strip 0 has no valid sample"):
        advisor.predict(np.full(1250, invalid), 250)


def test_masked_samples_are_missing(advisor: Advisor) -> None:
    """A mask counts as NaN does, for one strip and for many."""
    signal = strips(1, 5, 250.0)[0]
    mask = np.zeros(1250, dtype=bool)
    mask[200:260] = True
    spoilt = np.where(mask, 1e6, signal)
    expected = advisor.predict(np.where(mask, np.nan, signal), 250)
    assert advisor.predict(np.ma.array(spoilt, mask=mask), 250) == expected
    assert advisor.predict_many(np.ma.array([spoilt], mask=[mask]), 250) == [expected]
    assert expected.usable


def test_unusable_strip_is_never_shocked(advisor: Advisor) -> None:
    """A strip that cannot be classified has a reason, no probability and no shock; the others are classified."""
    signals = strips(3, 5, 250.0)
    signals[1] = 0.7
    first, flat, last = advisor.predict_many(signals, 250)
    assert flat.reason == "flat: the strip spans 0.000 mV, less than 0.010 mV"
    assert (flat.shock, flat.usable, math.isnan(flat.probability)) == (False, False, True)
    assert [first, last] == advisor.predict_many(signals[::2], 250)


@pytest.mark.parametrize("size", [1e30, 1e200, 1.7e308])
def test_numbers_that_are_no_ecg_are_out_of_range(advisor: Advisor, size: float) -> None:
    """However large the numbers, the answer is a reason, not a warning or a shock."""
    signal = strips(1, 5, 250.0)[0]
    advice = advisor.predict(signal / np.abs(signal).max() * size, 250)
    assert (advice.shock, advice.usable) == (False, False)
    assert advice.reason.startswith("out of range")


SIGNAL = np.sin(np.arange(625) / 5)


@pytest.mark.parametrize(
    ("signal", "options", "error", "message"),
    [
        (None, {}, TypeError, "dtype object; give real numbers"),
        ("abc", {}, TypeError, "dtype <U3"),
        (b"abc", {}, TypeError, "dtype"),
        ({"ecg": 1}, {}, TypeError, "dtype object"),
        ([None] * 625, {}, TypeError, "with NaN for missing samples"),
        (["1.0"] * 625, {}, TypeError, "dtype <U3"),
        (SIGNAL > 0, {}, TypeError, "dtype bool"),
        (SIGNAL + 1j, {}, TypeError, "dtype complex128"),
        (np.ma.array(SIGNAL + 1j), {}, TypeError, "dtype complex128"),
        (SIGNAL.astype("M8[s]"), {}, TypeError, "dtype datetime64"),
        (3.0, {}, ValueError, r"shape \(\)"),
        ([], {}, ValueError, "0 samples at 125 Hz is 0 s; allowed are 2 to 10 s"),
        (SIGNAL[None], {}, ValueError, r"shape \(1, 625\); give one lead as a 1-D array"),
        (SIGNAL[:, None], {}, ValueError, r"shape \(625, 1\).*predict_many"),
        ([[1.0, 2.0], [3.0]], {}, ValueError, "not an array .*equal length"),
        (SIGNAL[:240], {}, ValueError, "240 samples at 125 Hz is 1.92 s; allowed are 2 to 10 s"),
        (SIGNAL, {"fs": 500}, ValueError, "1.25 s; allowed are 2 to 10 s"),
        (np.zeros(1260), {}, ValueError, "10.08 s; allowed.*Check fs, or cut"),
        (SIGNAL, {"fs": 0}, ValueError, "fs=0 Hz is out of range; allowed are 100 to 2000 Hz"),
        (SIGNAL, {"fs": -250}, ValueError, "fs=-250"),
        (SIGNAL, {"fs": math.nan}, ValueError, "fs=nan"),
        (SIGNAL, {"fs": "250"}, TypeError, "fs='250' is not a number"),
        (SIGNAL, {"fs": True}, TypeError, "fs=True"),
        (SIGNAL, {"fs": 125 + 0j}, TypeError, "not a number"),
        (SIGNAL, {"units": "mv"}, ValueError, "units is 'mv'; allowed are mV, uV"),
        (SIGNAL, {"units": None}, ValueError, "units is None"),
        (np.full(625, np.nan), {}, ValueError, "no valid sample"),
        (np.arange(625) / 125, {}, ValueError, "strip 0 never falls, so it is a time or a counter"),
        (np.ma.masked_all(625), {}, ValueError, "no valid sample"),
        (Recording(SIGNAL[:, None], 125.0, ("II",)), {"fs": 250}, ValueError, "fs is 250, but the recording has 125.0"),
        (Recording(SIGNAL[:, None], 125.0, ("II",)), {"units": "uV"}, ValueError, "a Recording is always in mV"),
        (Recording(SIGNAL[:600].reshape(-1, 2), 125.0, ("II", "V5")), {}, ValueError, r"choose one.*lead='II'"),
        (Recording(SIGNAL[:, None], 50.0, ("II",)), {}, ValueError, "fs=50.0 Hz is out of range"),
    ],
)
def test_bad_input_is_refused(
    advisor: Advisor, signal: object, options: dict, error: type[Exception], message: str
) -> None:
    """What cannot be an ECG is a ValueError or TypeError that says what came and what is allowed."""
    with pytest.raises(error, match=message):
        predict(signal, **({} if isinstance(signal, Recording) else {"fs": FS}) | options, model=advisor)


@pytest.mark.parametrize(
    ("signals", "error", "message"),
    [
        (SIGNAL, ValueError, r"shape \(625,\); allowed is \(n_strips, n_samples\)"),
        (SIGNAL[None, :, None], ValueError, r"shape \(1, 625, 1\)"),
        ([SIGNAL, SIGNAL[1:]], ValueError, "equal length"),
        ([SIGNAL, SIGNAL * np.nan], ValueError, "strip 1 has no valid sample"),
        ([SIGNAL, SIGNAL + 1j], TypeError, "complex128"),
        (Recording(SIGNAL[:, None], 125.0, ("II",)), TypeError, "dtype object"),
    ],
)
def test_bad_strips_are_refused(advisor: Advisor, signals: object, error: type[Exception], message: str) -> None:
    """The same holds for many strips, and the message says which one."""
    with pytest.raises(error, match=message):
        predict_many(signals, FS, model=advisor)


@pytest.mark.parametrize("fs", [100.0, 125.0, 257.0, 333.33, 360.1, 2000.0])
def test_shortest_and_longest_strip(advisor: Advisor, fs: float) -> None:
    """2 s and 10 s, to the nearest sample, are allowed at any sampling rate; one sample less or more is not."""
    for seconds, outwards in ((2, -1), (10, 1)):
        n = round(seconds * fs)
        signal = strips(1, 11, fs)[0]
        assert advisor.predict(signal[:n], fs).usable
        with pytest.raises(ValueError, match="allowed are 2 to 10 s"):
            advisor.predict(signal[: n + outwards], fs)


def test_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    """A folder without a bundle is a FileNotFoundError that names it, and what to give."""
    with pytest.raises(FileNotFoundError, match=r"is not a bundle: it has no bundle\.toml") as refusal:
        predict(SIGNAL, FS, model=tmp_path / "none")
    assert "none" in str(refusal.value)


def test_changed_bundle_is_loaded_anew(folder: Path, tmp_path: Path) -> None:
    """A path stays loaded until its bundle is written again."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    signal = strips(1, 5, 125.0)[0]
    before = predict(signal, FS, model=tmp_path)
    text = (tmp_path / "bundle.toml").read_text()
    (tmp_path / "bundle.toml").write_text(text.replace(f"threshold = {before.threshold}", "threshold = 0.999"))
    assert predict(signal, FS, model=str(tmp_path)) == Advice(False, before.probability, 0.999)


def test_threads_share_an_advisor(advisor: Advisor) -> None:
    """Strips of different lengths from several threads get the same advice as alone."""
    signals = [strips(1, 2 + k % 5, 250.0)[0] for k in range(40)]
    alone = [advisor.predict(signal, 250) for signal in signals]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda signal: advisor.predict(signal, 250), signals)) == alone


@pytest.mark.parametrize(("cores", "part"), [(1, 1000), (1, 7), (2, 7), (5, 1), (2, 64)])
def test_cores_and_parts_change_nothing(
    folder: Path, advisor: Advisor, monkeypatch: pytest.MonkeyPatch, cores: int, part: int, rng: np.random.Generator
) -> None:
    """Every strip of a batch gets the same bits as alone, however the batch is divided between cores."""
    monkeypatch.setattr("ecg_shock.inference.advisor.PART", part)
    monkeypatch.setattr("ecg_shock.inference.advisor._count_cores", lambda: cores)
    signals = strips(130, 5, 250.0)
    signals[3::10] = rng.standard_normal((13, 1250))
    signals[5::10, 100:150] = np.nan
    signals[7::10] = 1e200 * signals[7::10]
    several = Advisor(folder)
    advices = several.predict_many(signals, 250)
    assert repr(advices) == repr([advisor.predict(signal, 250) for signal in signals])  # as NaN is not equal to itself
    assert {advice.reason.split(":")[0] for advice in advices} == {"", "noise", "out of range"}
    usable = [advice.usable for advice in advices]
    ecg = preprocess_strips(signals[usable], 250.0, PREPROCESSING)
    alone = [advisor.probabilities(window[None])[0] for window in ecg]
    assert several.probabilities(ecg).tolist() == alone
    assert len(several._idle) <= cores


def test_windows_of_a_signal_are_classified_without_a_copy(advisor: Advisor) -> None:
    """Thousands of overlapping views of one day need little memory, and each gets the same result as its copy."""
    signal = np.tile(strips(1, 10, 250.0)[0], 360)
    filtered = preprocess(signal, 250.0, PREPROCESSING)
    windows = np.lib.stride_tricks.sliding_window_view(signal, 1250)[::250]
    filtered_windows = np.lib.stride_tricks.sliding_window_view(filtered, 625)[::125]
    tracemalloc.start()
    probabilities, reasons = advisor.classify(windows, 250.0, filtered_windows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < windows.size * windows.itemsize / 4
    assert (reasons == "").all()
    some = np.arange(0, len(windows), 500)
    again, _ = advisor.classify(windows[some].copy(), 250.0, filtered_windows[some].copy())
    np.testing.assert_array_equal(probabilities[some], again)


def test_more_threads_than_cores_wait_their_turn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads on two cores need no more than two copies of the network."""
    monkeypatch.setattr("ecg_shock.inference.advisor._count_cores", lambda: 2)
    advisor = Advisor(folder)
    signals = strips(80, 5, 250.0)
    with ThreadPoolExecutor(8) as pool:
        advices = list(pool.map(lambda signal: advisor.predict(signal, 250), signals))
    assert advices == [advisor.predict(signal, 250) for signal in signals]
    assert len(advisor._idle) <= 2


def test_strip_too_short_for_the_network_is_refused(tmp_path: Path) -> None:
    """A network without padding may need more than 2 s: an error that says so, after which longer strips still work."""
    spec = CnnSpec(filters=(4,) * 5, kernels=(10,) * 5, padding="valid")
    write_bundle(tmp_path, build_model(spec), spec=spec, preprocessing=Preprocessing(), threshold=0.5, card={})
    advisor = Advisor(tmp_path)
    expected = advisor.predict(strips(1, 5, FS)[0], FS)
    with pytest.raises(ValueError, match="block 5 .*window of 250 samples"):
        advisor.predict(strips(1, 2, FS)[0], FS)
    assert advisor.predict(strips(1, 5, FS)[0], FS) == expected


def test_predict_does_without_tensorflow(folder: Path) -> None:
    """A fresh interpreter imports the package and gives advice, without loading any large library."""
    code = (
        "import sys, numpy, ecg_shock\n"
        "early = [m for m in ('tensorflow', 'keras', 'matplotlib', 'wfdb', 'scipy') if m in sys.modules]\n"
        f"advice = ecg_shock.predict(numpy.sin(numpy.arange(1250) / 8), 250, model={str(folder)!r})\n"
        "late = [m for m in ('tensorflow', 'keras', 'matplotlib', 'scipy') if m in sys.modules]\n"
        "print(early, late, advice.usable)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.split("\n")[-2] == "[] [] True"


def test_package_gives_its_functions() -> None:
    """`ecg_shock` exports these functions."""
    assert ecg_shock.predict is predict
