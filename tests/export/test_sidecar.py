"""The sidecar has all that a device needs, and changed files are errors."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter, sosfilt

from ecg_shock import Advisor, Stream
from ecg_shock.export.export import ExportResult, export
from ecg_shock.export.runtimes import CCode, LiteRt, LiteRtInt8
from ecg_shock.export.sidecar import INT8_RANGE_MV, check_export
from ecg_shock.models.bundle import Bundle

# TensorFlow's and Keras' converters warn about themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def read_sidecar(result: ExportResult) -> dict[str, Any]:
    """Read a sidecar as strict JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(result.files[-1].read_text(encoding="utf-8"), parse_constant=refuse)


def test_sidecar_describes_the_preprocessing(exports: Callable[[str], ExportResult], bundle: Bundle) -> None:
    """With the numbers of the sidecar, but without this package, raw samples become the golden window."""
    sidecar = read_sidecar(exports("litert"))
    assert sidecar["classes"] == ["nonshockable", "shockable"]
    assert sidecar["input"]["fs"] == 125
    preprocessing = sidecar["preprocessing"]
    assert {int(rate) for rate in preprocessing["resampler"]["rates_hz"]} == {125, 250, 360, 500, 1000}
    resampler = preprocessing["resampler"]["rates_hz"]["250"]
    assert len(sidecar["golden"]) == 13
    assert sum(None in vector["raw_mv"] for vector in sidecar["golden"]) == 2
    for vector in sidecar["golden"]:
        first, held, signal = None, 0.0, []
        for sample in vector["raw_mv"]:
            if sample is not None:
                first = sample if first is None else first
                held = sample - first
            signal.append(held)
        inserted = np.zeros(len(signal) * resampler["up"])
        inserted[:: resampler["up"]] = signal
        resampled = lfilter(resampler["taps"], [1.0], inserted)[:: resampler["down"]]
        filtered = sosfilt(np.array(preprocessing["sos"]), resampled)
        np.testing.assert_allclose(filtered, vector["preprocessed_mv"], rtol=0, atol=1e-6)
        probability = Advisor(bundle).probabilities(filtered[np.newaxis, -bundle.spec.input_samples :])[0]
        assert vector["probability"] == pytest.approx(probability, abs=1e-5)
        assert vector["shock"] == (probability >= bundle.threshold and vector["usable"])
    assert {vector["shock"] for vector in sidecar["golden"]} == {True, False}


def test_int8_window_and_decision_follow_from_the_sidecar(
    exports: Callable[[str], ExportResult], bundle: Bundle
) -> None:
    """Scale and zero point give the stored window and the outputs, and the stored threshold decides equally."""
    sidecar = read_sidecar(exports("litert-int8"))
    ecg, (logit, probability), decision = sidecar["input"], sidecar["outputs"], sidecar["decision"]
    assert ecg["dtype"] == logit["dtype"] == probability["dtype"] == "int8"
    assert (ecg["scale"], ecg["zero_point"]) == (INT8_RANGE_MV / 128, 0)
    assert ecg["range_mv"] == [-INT8_RANGE_MV, 127 * INT8_RANGE_MV / 128]
    assert (probability["scale"], probability["zero_point"]) == (1 / 256, -128)
    for vector in sidecar["golden"]:
        window = [
            max(-128, min(127, round(sample / ecg["scale"])))
            for sample in vector["preprocessed_mv"][-bundle.spec.input_samples :]
        ]
        assert window == vector["stored_window"]
        assert vector["logit"] == logit["scale"] * (vector["stored_logit"] - logit["zero_point"])
        assert vector["shock"] == (vector["stored_logit"] >= decision["threshold_stored"] and vector["usable"])
    threshold = decision["threshold_logit"]
    assert threshold == pytest.approx(math.log(decision["threshold"]) - math.log1p(-decision["threshold"]))
    below, above = (logit["scale"] * (decision["threshold_stored"] + k - logit["zero_point"]) for k in (-1, 0))
    assert below < threshold <= above


@pytest.mark.parametrize("to", ["litert", "litert-int8"])
def test_sidecar_names_its_origin(to: str, exports: Callable[[str], ExportResult], bundle: Bundle) -> None:
    """The sidecar has the bundle, commit, digests and results, and a hostile name stays text."""
    result = exports(to)
    sidecar = read_sidecar(result)
    assert sidecar["kind"] == to
    assert sidecar["sha256"] == hashlib.sha256(result.files[0].read_bytes()).hexdigest()
    assert (sidecar["file"], sidecar["bytes"]) == (result.files[0].name, result.files[0].stat().st_size)
    assert sidecar["bundle"]["name"] == "tiny </script> \u2028 one"
    assert (sidecar["bundle"]["commit"], sidecar["bundle"]["synthetic"]) == ("0123abc", True)
    assert sidecar["bundle"]["sha256"] == bundle.digests
    assert sidecar["rescoring"]["windows"] == result.rescoring.windows
    assert "Not a medical device" in sidecar["notice"]
    assert result.files[-1].read_bytes().isascii()


def test_changes_are_found(exports: Callable[[str], ExportResult], tmp_path: Path) -> None:
    """A flipped bit, and changed outputs, samples, decisions or tables of the sidecar are errors."""
    result = exports("litert-int8")
    for path in result.files:
        shutil.copy(path, tmp_path)
    path = tmp_path / result.files[0].name
    sidecar_path = tmp_path / result.files[-1].name
    check_export(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="changed or damaged"):
        check_export(path)
    path.write_bytes(result.files[0].read_bytes())
    sidecar = read_sidecar(result)
    scale = sidecar["outputs"][0]["scale"]
    for change in (
        {"logit": sidecar["golden"][0]["logit"] + scale},
        {"raw_mv": [0.0] * len(sidecar["golden"][0]["raw_mv"])},
        {"reason": "flat"},
    ):
        golden = [sidecar["golden"][0] | change, *sidecar["golden"][1:]]
        sidecar_path.write_text(json.dumps(sidecar | {"golden": golden}), encoding="utf-8")
        with pytest.raises(ValueError, match="golden vector 'normal_sinus'"):
            check_export(path)
    decision = sidecar["decision"]
    for change in (
        {"threshold_logit": decision["threshold_logit"] + 1},
        {"threshold_stored": decision["threshold_stored"] + 1},
        {"threshold": 0.9},
    ):
        sidecar_path.write_text(json.dumps(sidecar | {"decision": decision | change}), encoding="utf-8")
        with pytest.raises(ValueError, match="contradicts the threshold"):
            check_export(path)
    sidecar_path.write_text(json.dumps(sidecar | {"decision": {"rule": decision["rule"]}}), encoding="utf-8")
    with pytest.raises(ValueError, match="decision.threshold is missing"):
        check_export(path)
    rubbish = [{}, sidecar | {"golden": [{}]}, sidecar | {"golden": 3}, sidecar | {"kind": "tflite"}]
    rubbish += [
        sidecar | {"format": 1},
        sidecar | {"preprocessing": sidecar["preprocessing"] | {"parameters": {"x": 1}}},
    ]
    for text in ("", "[]", *map(json.dumps, rubbish)):
        sidecar_path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"tflite\.json cannot be read as a sidecar"):
            check_export(path)
    sidecar_path.unlink()
    with pytest.raises(FileNotFoundError):
        check_export(path)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: the C code cannot be compiled")
@pytest.mark.parametrize("fs", [100.0, 104.0, 110.25, 128.6, 250.0, 360.0])
def test_c_takes_raw_samples_at_the_rate_of_the_device(fs: float, bundle: Bundle, tmp_path: Path) -> None:
    """Golden samples, pushed one by one, give the logits of the Python package; changed code is an error."""
    result = export(bundle, "c", tmp_path, fs=fs)
    sidecar = read_sidecar(result)
    assert sidecar["c"]["fs"] == fs
    model = CCode(result.files[0])
    for vector in sidecar["golden"]:
        raw = np.array([math.nan if value is None else value for value in vector["raw_mv"]])
        expected = Stream(fs, model=Advisor(bundle)).push(raw)[-1].advice
        assert (vector["usable"], vector["reason"], vector["shock"]) == (
            expected.usable,
            expected.reason,
            expected.shock,
        )
        logit = model.stream(raw)
        assert vector["logit"] == pytest.approx(logit, rel=1e-3, abs=1e-3)
        if expected.usable:
            assert 1 / (1 + math.exp(-logit)) == pytest.approx(expected.probability, abs=1e-4)
    assert math.isnan(model.stream(np.zeros(round(1.9 * fs))))
    check_export(result.files[0])
    code = tmp_path / "ecg_shock.c"
    code.write_bytes(code.read_bytes() + b"\n")
    with pytest.raises(ValueError, match=r"ecg_shock\.c has SHA-256"):
        check_export(result.files[0])


@pytest.mark.parametrize(("to", "fs"), [("litert", 300.0), ("litert-int8", 249.9), ("onnx", 257.0), ("c", 128.6)])
def test_filter_of_the_golden_rate_is_there(to: str, fs: float, bundle: Bundle, tmp_path: Path) -> None:
    """At a rate that is not common, the sidecar has the taps beside the golden vectors, for LiteRT too."""
    if to == "c" and shutil.which("gcc") is None:
        pytest.skip("gcc is missing: the C code cannot be compiled")
    if to == "onnx":
        pytest.importorskip("tf2onnx", reason="no extra [onnx]")
    sidecar = read_sidecar(export(bundle, to, tmp_path, fs=fs))
    rates = sidecar["preprocessing"]["resampler"]["rates_hz"]
    for vector in sidecar["golden"]:
        assert vector["fs"] == float(vector["rate"]) == fs
        rate = rates[vector["rate"]]
        assert rate["up"] / rate["down"] == pytest.approx(125 / fs)
        assert len(vector["preprocessed_mv"]) == math.ceil(len(vector["raw_mv"]) * rate["up"] / rate["down"])
    assert list(rates) == sorted(rates, key=float)


def test_int8_kernels_are_named(exports: Callable[[str], ExportResult]) -> None:
    """The sidecar says that reference kernels gave the int8 vectors, and how much LiteRT's default kernels differ."""
    result = exports("litert-int8")
    sidecar = read_sidecar(result)
    assert "BUILTIN_REF" in sidecar["kernels"]["golden"]
    windows = np.array([vector["preprocessed_mv"][-250:] for vector in sidecar["golden"]])
    stored = [vector["stored_logit"] for vector in sidecar["golden"]]
    assert LiteRtInt8(result.files[0]).run(windows)[0].tolist() == stored
    found, _ = LiteRt(result.files[0]).run(windows)
    assert np.abs(found.astype(int) - stored).max() == sidecar["kernels"]["default_kernels_differ_by"]
    assert "XNNPACK" in read_sidecar(exports("litert"))["kernels"]["golden"]
