"""An export agrees with its bundle, or is not written."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_shock import Advisor
from ecg_shock.data.datasets import Subsets, load_subsets
from ecg_shock.export import export as module
from ecg_shock.export import runtimes
from ecg_shock.export.export import MODEL_NAMES, ExportResult, export, representative_windows
from ecg_shock.export.rescoring import check_tolerance
from ecg_shock.export.runtimes import RUNTIMES, LiteRt, LiteRtInt8
from ecg_shock.export.sidecar import INT8_RANGE_MV
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import Bundle, load_bundle, logit_of

# TensorFlow's and Keras' converters warn about themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: the C code cannot be compiled")
FORMATS = [
    "litert",
    "litert-int8",
    pytest.param("c", marks=GCC),
    pytest.param("c-int8", marks=GCC),
    pytest.param("onnx", marks=pytest.mark.skipif(runtimes.find_version("tf2onnx") is None, reason="no extra [onnx]")),
]


@pytest.mark.parametrize("to", FORMATS)
def test_rescoring_agrees_with_the_advisor_and_the_file(
    to: str, bundle: Bundle, subsets: Subsets, exports: Callable[[str], ExportResult]
) -> None:
    """The bundle's LiteRT model and the written file give all figures of the comparison."""
    result = exports(to)
    windows = subsets.validation
    before = Advisor(bundle).probabilities(windows.ecg)
    model = RUNTIMES[to](result.files[0])
    stored_logit, stored_probability = model.run(windows.ecg)
    after, probability = model.logit.read(stored_logit), model.probability.read(stored_probability)
    truth = np.char.find(np.array(["coarse_vf rapid_vt"]), windows.aha_class) >= 0
    original, exported = before >= bundle.threshold, 1 / (1 + np.exp(-after)) >= bundle.threshold
    found = result.rescoring
    assert (found.windows, found.patients) == (len(windows), np.unique(windows.patient).size)
    assert found.sensitivity == np.mean(original[truth])
    assert found.specificity == np.mean(~original[~truth])
    assert found.exported_sensitivity == np.mean(exported[truth])
    assert found.exported_specificity == np.mean(~exported[~truth])
    assert found.largest_probability_difference == pytest.approx(np.abs(probability - before).max(), abs=2e-6)
    network = bundle.load_keras()
    network.layers[-1].activation = lambda logit: logit
    logit = np.asarray(network(windows.ecg[:, :, np.newaxis]))[:, 0]
    assert found.largest_logit_difference == pytest.approx(np.abs(after - logit).max(), abs=1e-4)
    changed = [(windows.record[i], windows.start_s[i]) for i in np.flatnonzero(original != exported)]
    assert [(flip.record, flip.start_s) for flip in found.flips] == changed
    assert 0.1 < original.mean() < 0.9  # both decisions occur
    code = ["ecg_shock.h", "ecg_shock.c", "selftest.c"] if to in ("c", "c-int8") else []
    assert [path.name for path in result.files] == [MODEL_NAMES[to], *code, f"{MODEL_NAMES[to]}.json"]
    assert sorted(result.files[0].parent.iterdir()) == sorted(result.files)


@pytest.mark.parametrize(
    "spec",
    [
        CnnSpec(filters=(4,), kernels=(9,), input_samples=250),
        CnnSpec(filters=(6, 5), kernels=(10, 7), padding="valid", activation="tanh", pool=3, input_samples=250),
        CnnSpec(filters=(6, 5), kernels=(1, 8), activation="elu", input_samples=250),
        CnnSpec(filters=(6, 5), kernels=(2, 8), activation="selu", input_samples=250),
    ],
)
def test_two_dimensional_network_is_the_same(
    spec: CnnSpec, subsets: Subsets, write: Callable[..., Bundle], tmp_path: Path
) -> None:
    """With any padding and pooling the float export gives the bundle's probabilities, and takes one window."""
    bundle = write(tmp_path / "bundle", build_model(spec, seed=3), spec)
    model = LiteRt(export(bundle.folder, "litert", tmp_path / "out").files[0])
    some = subsets.validation.ecg[::9]
    np.testing.assert_allclose(model.run(some)[1], Advisor(bundle).probabilities(some), atol=1e-6)
    assert (model.input.shape, model.logit.shape, model.probability.shape) == ((1, 250, 1), (1, 1), (1, 1))
    assert model.input.dtype == "float32"


@pytest.mark.parametrize("seconds", [2, 5, 10])
@pytest.mark.parametrize("to", FORMATS)
def test_average_over_time_is_exported(
    to: str, seconds: int, write: Callable[..., Bundle], subsets: Subsets, tmp_path: Path
) -> None:
    """With maximum and average every format gives the bundle's logits, to which the averages add up to 2.2."""
    spec = CnnSpec(filters=(6, 5), kernels=(10, 7), input_samples=125 * seconds, global_pool="max+average")
    network = build_model(spec, seed=3)
    *blocks, dense, bias = network.get_weights()
    dense[spec.filters[-1] :] = 2.0
    network.set_weights([*blocks, dense, bias])
    # No probability is close to the threshold.
    result = export(write(tmp_path / "bundle", network, spec, 1e-6), to, tmp_path / "out")
    assert result.rescoring.largest_logit_difference < (0.1 if "int8" in to else 1e-5)
    if (to, seconds) == ("litert-int8", 2):
        compare_with_micro(result.files[0], subsets.train.ecg[:1000])


@pytest.mark.parametrize(("to", "kinds"), [("litert", {"f", "i"}), ("litert-int8", {"i"})])
def test_bytes_and_types(
    to: str, kinds: set[str], exports: Callable[[str], ExportResult], bundle: Bundle, tmp_path: Path
) -> None:
    """Exporting again gives the same bytes, and int8 has no float tensor."""
    from ai_edge_litert.interpreter import Interpreter

    network = exports(to).files[0]
    assert export(bundle, to, tmp_path).files[0].read_bytes() == network.read_bytes()
    details = Interpreter(model_path=str(network)).get_tensor_details()
    assert {np.dtype(tensor["dtype"]).kind for tensor in details} == kinds


@pytest.mark.parametrize(
    ("to", "limit"), [("litert", "at most 1e-05 is allowed"), ("litert-int8", "at most 0.5 % is allowed")]
)
def test_wrong_export_is_refused_and_the_older_one_is_kept(
    to: str,
    limit: str,
    exports: Callable[[str], ExportResult],
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With inverted weights in the last layer the export fails, names the limit, and changes no file."""
    old = exports(to).files[0].parent
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    original = module._one_window

    def inverted(*arguments: Any) -> Any:
        network = original(*arguments)
        *others, weights, bias = network.get_weights()
        network.set_weights([*others, -weights, bias])
        return network

    monkeypatch.setattr(module, "_one_window", inverted)
    for folder in (old, tmp_path / "new" / "deep"):
        with pytest.raises(ValueError, match="differs too much from the original model") as refusal:
            export(bundle, to, folder)
        assert limit in str(refusal.value)
        assert "Nothing was written" in str(refusal.value)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert not (tmp_path / "new" / "deep").exists()


def test_nan_is_refused(exports: Callable[[str], ExportResult]) -> None:
    """A probability of NaN exceeds the limit."""
    broken = replace(exports("litert").rescoring, largest_probability_difference=math.nan)
    with pytest.raises(ValueError, match="differ by up to nan"):
        check_tolerance(broken, "litert")


@pytest.mark.parametrize(
    ("to", "options", "change", "message"),
    [
        ("litert", {"fs": 50.0}, {}, "fs=50.0 Hz is out of range"),
        ("litert", {"fs": 249.97}, {}, "filter coefficients are needed"),
        *(("litert", {"threshold": p}, {}, "above 0 and below 1") for p in (0.0, 1.0, -1.0, math.nan)),
        *(
            ("litert", {"window_s": s}, {}, "give 2 to 10 s, in multiples of 0.008 s")
            for s in (1.9, 10.1, 2.5001, math.nan)
        ),
        ("litert-int8", {}, {"activation": "elu"}, "activation 'elu'.*Export to litert"),
        ("litert-int8", {}, {"activation": "selu"}, "activation 'selu'.*Export to litert"),
        # otherwise int8 could be calibrated with validation patients
        (
            "litert",
            {},
            {"patients": {"train": ["a"], "validation": ["b"], "test": []}},
            "are now in another subset",
        ),
        ("litert", {}, {"data": {"databases": ["synthetic"], "fold": 99}}, "fold=99"),
        ("litert", {}, {"data": None}, r"has no \[card\.data\]"),
        ("litert", {}, {"data": {"databases": ["vfdb"], "split": "public-v1"}}, "ecg-shock fetch vfdb"),
        *((to, {}, {}, "choose one of litert, litert-int8, onnx") for to in ("", "int8", "LITERT", "tflite", None)),
    ],
)
def test_what_cannot_be_exported_is_refused(
    to: Any, options: dict[str, Any], change: dict[str, Any], message: str, bundle: Bundle, tmp_path: Path
) -> None:
    """The error says what is wrong with the format, sampling rate, network or card, and no folder is made."""
    spec = replace(bundle.spec, activation=change.get("activation", "relu"))
    card = {key: value for key, value in (bundle.raw_card | change).items() if value is not None}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export(replace(bundle, spec=spec, raw_card=card), to, tmp_path / "out", data=tmp_path, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", FORMATS)
def test_threshold_and_window_are_those_of_the_request(
    to: str, bundle: Bundle, subsets: Subsets, tmp_path: Path
) -> None:
    """The network takes windows of 3 s, is compared on such windows, and advises from the given probability on."""
    result = export(bundle, to, tmp_path, threshold=0.8, window_s=3.0)
    windows = load_subsets(bundle.card.data.model_copy(update={"window_s": 3.0})).validation
    truth = np.isin(windows.aha_class, ["coarse_vf", "rapid_vt"])
    shock = Advisor(bundle).probabilities(windows.ecg) >= 0.8
    found = result.rescoring
    assert (found.windows, windows.ecg.shape[1]) == (len(windows), 375)
    assert (found.sensitivity, found.specificity) == (shock[truth].mean(), (~shock)[~truth].mean())
    assert RUNTIMES[to](result.files[0]).input.shape == (1, 375, 1)
    sidecar = json.loads(result.files[-1].read_text(encoding="utf-8"))
    assert (sidecar["input"]["window_s"], sidecar["decision"]["threshold"]) == (3.0, 0.8)
    assert sidecar["decision"]["threshold_logit"] == pytest.approx(math.log(4))
    assert (sidecar["bundle"]["window_s"], sidecar["bundle"]["threshold"]) == (2.0, bundle.threshold)
    assert all(v["shock"] == (v["usable"] and v["logit"] >= math.log(4)) for v in sidecar["golden"])
    assert {v["raw_window"] for v in sidecar["golden"]} == {750}


def test_missing_software_is_named(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler or a package the error says what to install, and nothing is written."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="apt-get install gcc"):
        export(bundle, "c", tmp_path / "out")
    monkeypatch.setattr(runtimes, "find_version", lambda name: None if name == "tf2onnx" else "1")
    with pytest.raises(ValueError, match=r"needs tf2onnx; run: pip install 'ecg-shock\[onnx\]'"):
        export(bundle, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_changed_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """A changed model file is an error."""
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    path = tmp_path / "bundle" / "model.keras"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match="changed or damaged"):
        export(tmp_path / "bundle", "litert", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_int8_is_calibrated_with_training_windows_only(subsets: Subsets) -> None:
    """Up to 100 training windows of every class are chosen and clipped, and both ends of the range are reached."""
    chosen = representative_windows(subsets.train)
    low, high = -INT8_RANGE_MV, 127 * INT8_RANGE_MV / 128
    clipped = {
        window.tobytes(): name
        for window, name in zip(
            np.clip(subsets.train.ecg, low, high).astype(np.float32), subsets.train.aha_class, strict=True
        )
    }
    classes = [clipped[window.tobytes()] for window in chosen[:-2]]
    _, counts = np.unique(subsets.train.aha_class, return_counts=True)
    assert np.unique(classes, return_counts=True)[1].tolist() == np.minimum(counts, 100).tolist()
    np.testing.assert_array_equal(chosen, representative_windows(subsets.train))
    for windows in (chosen, representative_windows(replace(subsets.train, ecg=subsets.train.ecg / 100))):
        assert (windows.min(), windows.max()) == pytest.approx((low, high))


@pytest.mark.parametrize("probability", [1e-6, 0.123, 0.5, 0.999])
def test_logit_is_the_inverse_of_the_sigmoid(probability: float) -> None:
    """The sigmoid of the logit is the probability."""
    assert 1 / (1 + math.exp(-logit_of(probability))) == pytest.approx(probability)


def compare_with_micro(path: Path, ecg: np.ndarray) -> None:
    """Run an int8 export on TFLite Micro and on LiteRT, and compare all outputs."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="no wheel of tflite-micro")
    model = LiteRtInt8(path)
    logit, probability = model.run(ecg)
    micro = runtime.Interpreter.from_file(str(path))
    outputs = []
    for window in model.input.store(ecg):
        micro.set_input(window.reshape(model.input.shape), 0)
        micro.invoke()
        outputs.append([micro.get_output(out.index).item() for out in (model.logit, model.probability)])
    np.testing.assert_array_equal(np.array(outputs), np.stack([logit, probability], axis=1))
    assert len(ecg) >= 1000
    assert np.unique(logit).size > 50
    micro.print_allocations()


def test_int8_is_the_same_on_tflite_micro(exports: Callable[[str], ExportResult], subsets: Subsets) -> None:
    """For 1,000 synthetic windows logit and probability are equal bit for bit."""
    compare_with_micro(exports("litert-int8").files[0], subsets.train.ecg[:1000])


@pytest.mark.recordings
@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_model_of_the_package_is_exported(to: str, recordings_dir: Path, tmp_path: Path) -> None:
    """The package's model passes on its validation patients; int8 is the same on TFLite Micro for 1,000 windows."""
    result = export(None, to, tmp_path, data=recordings_dir)
    bundle = load_bundle(result.bundle.folder)
    validation = bundle.card.validation
    found = result.rescoring
    assert (found.windows, found.patients) == (validation.windows, validation.patients)
    assert found.sensitivity == pytest.approx(validation.sensitivity)
    assert found.specificity == pytest.approx(validation.specificity)
    assert abs(found.exported_sensitivity - found.sensitivity) < 0.005
    assert abs(found.exported_specificity - found.specificity) < 0.005
    print(to, replace(found, flips=()), *found.flips, sep="\n")
    if to == "litert-int8":
        windows = load_subsets(bundle.card.data, recordings_dir).validation
        compare_with_micro(result.files[0], windows.ecg[:: len(windows) // 1000])
