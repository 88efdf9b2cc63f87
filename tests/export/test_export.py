"""An export is the bundle's model, says all that a device needs, and is not written if it is not."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter, sosfilt

from ecg_shock import Advisor, Stream
from ecg_shock.data.datasets import DataConfig, Parts, load_parts, shockable
from ecg_shock.export import export as module
from ecg_shock.export.export import (
    INT8_RANGE_MV,
    MODEL_NAMES,
    ExportResult,
    check_export,
    export,
    representative_windows,
)
from ecg_shock.export.runtimes import ExportedModel, Tensor
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import Bundle, load_bundle, logit_of, write_bundle

# TensorFlow's and Keras' converters warn about themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

SPEC = CnnSpec(filters=(8, 8, 8), kernels=(10, 8, 8), input_samples=250, dropout=0.0)
CONFIG = DataConfig(databases=("synthetic",), window_s=2.0)
GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: the C code cannot be compiled")
FORMATS = [
    "litert",
    "litert-int8",
    pytest.param("c", marks=GCC),
    pytest.param("c-int8", marks=GCC),
    pytest.param("onnx", marks=pytest.mark.skipif(module.find_version("tf2onnx") is None, reason="no extra [onnx]")),
]


@pytest.fixture(scope="module", autouse=True)
def _few_windows() -> Iterator[None]:
    """Allow int8 two points of Se and Sp: one decision on the few synthetic windows is 0.7 already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "INT8_MAX_CHANGE", 0.02)
        yield


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Return synthetic windows of 2 s."""
    return load_parts(CONFIG)


def write(folder: Path, network: Any, parts: Parts, spec: CnnSpec, threshold: float = 0.5) -> Bundle:
    """Write a bundle that says it was trained on the synthetic recordings."""
    card = {
        "name": "tiny </script> \u2028 one",
        "synthetic": True,
        "commit": "0123abc",
        "data": CONFIG.model_dump(mode="json", exclude_none=True),
        "training": {},
        "patients": {job: sorted(set(getattr(parts, job).patient.tolist())) for job in ("train", "validation", "test")},
    }
    return write_bundle(folder, network, spec=spec, preprocessing=CONFIG.preprocessing, threshold=threshold, card=card)


@pytest.fixture(scope="module")
def bundle(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Write a small bundle once: trained for seconds, with its threshold in a wide gap between validation windows.

    Few decisions hang on rounding then, as with a network that was trained to the end.
    """
    import keras

    keras.utils.set_random_seed(0)  # of the order of the windows
    network = build_model(SPEC, seed=1)
    network.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    ecg, truth = parts.train.ecg[:, :, np.newaxis], shockable(parts.train).astype(np.float32)
    network.fit(ecg, truth, batch_size=64, epochs=20, verbose=0)
    probability = np.sort(
        Advisor(write(tmp_path_factory.mktemp("a"), network, parts, SPEC)).probabilities(parts.validation.ecg)
    )
    middle = probability[len(probability) // 4 : 3 * len(probability) // 4]
    middle = np.log(middle / (1 - middle))
    widest = np.argmax(np.diff(middle))
    threshold = 1 / (1 + math.exp(-middle[widest : widest + 2].mean()))
    return write(tmp_path_factory.mktemp("tiny") / "bundle", network, parts, SPEC, threshold)


@pytest.fixture(scope="module")
def exports(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ExportResult]:
    """Export to LiteRT and int8 once, into one folder."""
    folder = tmp_path_factory.mktemp("exports")
    return {to: export(bundle, to, folder) for to in ("litert", "litert-int8")}


def read_sidecar(result: ExportResult) -> dict[str, Any]:
    """Read a sidecar as strict JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(result.files[-1].read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.mark.parametrize("to", FORMATS)
def test_rescoring_is_what_the_advisor_and_the_file_say(to: str, bundle: Bundle, parts: Parts, tmp_path: Path) -> None:
    """Every figure of the re-scoring is found again with the bundle's own LiteRT model and the written file."""
    result = export(bundle, to, tmp_path)
    windows = parts.validation
    before = Advisor(bundle).probabilities(windows.ecg)
    model = ExportedModel(result.files[0], reference_kernels=to == "litert-int8")
    after = model.logit.read(model.run(windows.ecg)[0])
    probability = model.probability.read(model.run(windows.ecg)[1])
    truth = np.char.find(np.array(["coarse_vf rapid_vt"]), windows.aha_class) >= 0
    decided, decides = before >= bundle.threshold, 1 / (1 + np.exp(-after)) >= bundle.threshold
    found = result.rescoring
    assert (found.windows, found.patients) == (len(windows), np.unique(windows.patient).size)
    assert found.sensitivity == np.mean(decided[truth])
    assert found.specificity == np.mean(~decided[~truth])
    assert found.exported_sensitivity == np.mean(decides[truth])
    assert found.exported_specificity == np.mean(~decides[~truth])
    assert found.largest_probability_difference == pytest.approx(np.abs(probability - before).max(), abs=2e-6)
    network = bundle.load_keras()
    network.layers[-1].activation = lambda logit: logit
    logit = np.asarray(network(windows.ecg[:, :, np.newaxis]))[:, 0]
    assert found.largest_logit_difference == pytest.approx(np.abs(after - logit).max(), abs=1e-4)
    changed = [(windows.record[i], windows.start_s[i]) for i in np.flatnonzero(decided != decides)]
    assert [(flip.record, flip.start_s) for flip in found.flips] == changed
    assert 0.1 < decided.mean() < 0.9  # or nothing would be proved
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in result.files)
    code = ["ecg_shock.h", "ecg_shock.c"] if to in ("c", "c-int8") else []
    assert [path.name for path in result.files] == [MODEL_NAMES[to], *code, f"{MODEL_NAMES[to]}.json"]


@pytest.mark.parametrize(
    "spec",
    [
        CnnSpec(filters=(4,), kernels=(9,), input_samples=250),
        CnnSpec(filters=(6, 5), kernels=(10, 7), padding="valid", activation="tanh", pool=3, input_samples=250),
        CnnSpec(filters=(6, 5), kernels=(1, 8), activation="elu", input_samples=250),
        CnnSpec(filters=(6, 5), kernels=(2, 8), activation="selu", input_samples=250),
    ],
)
def test_two_dimensional_network_is_the_same(spec: CnnSpec, parts: Parts, tmp_path: Path) -> None:
    """Whatever padding and pooling, the float export gives the bundle's probabilities, and takes one window alone."""
    bundle = write(tmp_path / "bundle", build_model(spec, seed=3), parts, spec)
    result = export(bundle.folder, "litert", tmp_path / "out")
    model = ExportedModel(result.files[0])
    some = parts.validation.ecg[::9]
    np.testing.assert_allclose(model.run(some)[1], Advisor(bundle).probabilities(some), atol=1e-6)
    assert (model.input.shape, model.logit.shape, model.probability.shape) == ((1, 250, 1), (1, 1), (1, 1))
    assert model.input.dtype == "float32"


def test_sidecar_says_what_a_device_must_do(exports: dict[str, ExportResult], bundle: Bundle) -> None:
    """From the numbers of the sidecar alone, without this package, raw samples become the golden window."""
    sidecar = read_sidecar(exports["litert"])
    assert sidecar["classes"] == ["nonshockable", "shockable"]
    assert sidecar["input"]["fs"] == 125
    preprocessing = sidecar["preprocessing"]
    assert {int(rate) for rate in preprocessing["resampler"]["rates_hz"]} == {125, 250, 360, 500, 1000}
    resampler = preprocessing["resampler"]["rates_hz"]["250"]
    assert len(sidecar["golden"]) == 6
    assert sum(None in vector["raw_mv"] for vector in sidecar["golden"]) == 1
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
        np.testing.assert_allclose(filtered, vector["preprocessed_mv"], atol=1e-6)
        probability = Advisor(bundle).probabilities(filtered[np.newaxis, -SPEC.input_samples :])[0]
        assert vector["probability"] == pytest.approx(probability, abs=1e-5)
        assert vector["shock"] == (probability >= bundle.threshold)
    assert {vector["shock"] for vector in sidecar["golden"]} == {True, False}


def test_int8_window_and_decision_follow_from_the_sidecar(exports: dict[str, ExportResult]) -> None:
    """Scale and zero point make the stored window and read the outputs, and the stored threshold decides the same."""
    sidecar = read_sidecar(exports["litert-int8"])
    ecg, (logit, probability), decision = sidecar["input"], sidecar["outputs"], sidecar["decision"]
    assert ecg["dtype"] == logit["dtype"] == probability["dtype"] == "int8"
    assert (ecg["scale"], ecg["zero_point"]) == (INT8_RANGE_MV / 128, 0)
    assert ecg["range_mv"] == [-INT8_RANGE_MV, 127 * INT8_RANGE_MV / 128]
    assert (probability["scale"], probability["zero_point"]) == (1 / 256, -128)
    for vector in sidecar["golden"]:
        window = [
            max(-128, min(127, round(sample / ecg["scale"])))
            for sample in vector["preprocessed_mv"][-SPEC.input_samples :]
        ]
        assert window == vector["stored_window"]
        assert vector["logit"] == logit["scale"] * (vector["stored_logit"] - logit["zero_point"])
        assert vector["shock"] == (vector["stored_logit"] >= decision["threshold_stored"])
    threshold = decision["threshold_logit"]
    assert threshold == pytest.approx(math.log(decision["threshold"]) - math.log1p(-decision["threshold"]))
    below, above = (logit["scale"] * (decision["threshold_stored"] + k - logit["zero_point"]) for k in (-1, 0))
    assert below < threshold <= above


def test_int8_has_the_same_operators_as_float_and_no_more(exports: dict[str, ExportResult]) -> None:
    """Nothing stays in floating point: all tensors of the int8 model are integers."""
    from ai_edge_litert.interpreter import Interpreter

    dtypes = {}
    for to, result in exports.items():
        interpreter = Interpreter(model_path=str(result.files[0]))
        dtypes[to] = {np.dtype(tensor["dtype"]).kind for tensor in interpreter.get_tensor_details()}
    assert dtypes == {"litert": {"f", "i"}, "litert-int8": {"i"}}


def test_origin_is_told(exports: dict[str, ExportResult], bundle: Bundle) -> None:
    """The sidecar names bundle, commit, digests and figures, and a hostile name stays text."""
    import hashlib

    for to, result in exports.items():
        sidecar = read_sidecar(result)
        assert sidecar["kind"] == to
        assert sidecar["sha256"] == hashlib.sha256(result.files[0].read_bytes()).hexdigest()
        assert (sidecar["file"], sidecar["bytes"]) == (result.files[0].name, result.files[0].stat().st_size)
        assert sidecar["bundle"]["name"] == bundle.name
        assert (sidecar["bundle"]["commit"], sidecar["bundle"]["synthetic"]) == ("0123abc", True)
        assert sidecar["bundle"]["sha256"] == bundle.digests
        assert sidecar["rescoring"]["windows"] == result.rescoring.windows
        assert "Not a medical device" in sidecar["notice"]
        assert result.files[-1].read_bytes().isascii()


def test_two_exports_are_equal_bytes(exports: dict[str, ExportResult], bundle: Bundle, tmp_path: Path) -> None:
    """Exporting again gives the same network, so that a digest stands for the bundle: representatives are seeded."""
    for to, result in exports.items():
        again = export(bundle, to, tmp_path / to)
        assert again.files[0].read_bytes() == result.files[0].read_bytes()


@pytest.mark.parametrize("to", ["litert", "litert-int8"])
def test_wrong_export_is_refused_and_the_older_one_stays(
    to: str, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the last layer's sign turned the export fails, names figure and limit, and changes nothing in the folder."""
    export(bundle, to, tmp_path / "old")
    before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
    right = module._one_window

    def turned(*arguments: Any) -> Any:
        network = right(*arguments)
        *others, weights, bias = network.get_weights()
        network.set_weights([*others, -weights, bias])
        return network

    monkeypatch.setattr(module, "_one_window", turned)
    limit = "allowed are 0.5 %" if to == "litert-int8" else "allowed are 1e-05"
    for folder in (tmp_path / "old", tmp_path / "new" / "deep"):
        with pytest.raises(ValueError, match="is not the bundle's model") as refusal:
            export(bundle, to, folder)
        assert limit in str(refusal.value)
        assert "Nothing was written" in str(refusal.value)
    assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
    assert not (tmp_path / "new" / "deep").exists()


def test_probability_that_is_no_number_is_refused(exports: dict[str, ExportResult], bundle: Bundle) -> None:
    """NaN is within no tolerance."""
    broken = replace(exports["litert"].rescoring, largest_probability_difference=math.nan)
    with pytest.raises(ValueError, match="differ by up to nan"):
        module._check_tolerance(broken, "litert")


def test_damage_is_found(exports: dict[str, ExportResult], tmp_path: Path) -> None:
    """A flipped bit, a network of another export, changed outputs and a changed filter are all refused."""
    result = exports["litert-int8"]
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
    ):
        golden = [sidecar["golden"][0] | change, *sidecar["golden"][1:]]
        sidecar_path.write_text(json.dumps(sidecar | {"golden": golden}), encoding="utf-8")
        with pytest.raises(ValueError, match="golden vector 'normal_sinus'"):
            check_export(path)
    for rubbish in ("", "[]", "{}", json.dumps(sidecar | {"golden": [{}]}), json.dumps(sidecar | {"golden": 3})):
        sidecar_path.write_text(rubbish, encoding="utf-8")
        with pytest.raises(ValueError, match="cannot be read as a sidecar"):
            check_export(path)
    sidecar_path.unlink()
    with pytest.raises(FileNotFoundError):
        check_export(path)


@GCC
@pytest.mark.parametrize("fs", [100.0, 104.0, 110.25, 128.6, 250.0, 360.0])
def test_c_takes_raw_samples_at_the_rate_of_the_device(fs: float, bundle: Bundle, tmp_path: Path) -> None:
    """Its golden samples, pushed one by one, come to the logits of the Python package; changed code is refused."""
    result = export(bundle, "c", tmp_path, fs=fs)
    sidecar = read_sidecar(result)
    assert sidecar["c"]["fs"] == fs
    model = ExportedModel(result.files[0])
    for vector in sidecar["golden"]:
        raw = np.array([math.nan if value is None else value for value in vector["raw_mv"]])
        steps = Stream(fs, model=Advisor(bundle)).push(raw)
        expected = steps[-1].advice
        logit = model.stream(raw)
        assert vector["logit"] == pytest.approx(logit, abs=1e-3)
        if expected.usable:
            assert 1 / (1 + math.exp(-logit)) == pytest.approx(expected.probability, abs=1e-4)
    assert math.isnan(model.stream(np.zeros(round(1.9 * fs))))
    check_export(result.files[0])
    code = tmp_path / "ecg_shock.c"
    code.write_bytes(code.read_bytes() + b"\n")
    with pytest.raises(ValueError, match=r"ecg_shock\.c has SHA-256"):
        check_export(result.files[0])


def test_rate_is_for_c_alone(bundle: Bundle, tmp_path: Path) -> None:
    """The other formats take windows, and say so rather than ignore a rate."""
    with pytest.raises(ValueError, match="takes windows at 125 Hz"):
        export(bundle, "litert", tmp_path, fs=500.0)


def test_missing_compiler_is_named(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the code cannot be scored, and is not written."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="apt-get install gcc"):
        export(bundle, "c", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@GCC
def test_code_that_does_not_compile_and_header_that_is_none(bundle: Bundle, tmp_path: Path) -> None:
    """Both name the file."""
    path = export(bundle, "c", tmp_path).files[0]
    text = path.read_text(encoding="ascii")
    path.write_text(text.replace(" bytes: sizeof", " bytes"), encoding="ascii")
    with pytest.raises(ValueError, match="is no generated header"):
        ExportedModel(path)
    path.write_text("rubbish", encoding="ascii")
    with pytest.raises(ValueError, match="do not compile"):
        ExportedModel(path)


def test_int8_is_calibrated_with_training_windows_only(parts: Parts) -> None:
    """Up to 100 windows of every class, each a training window but for the range, whose ends are reached."""
    picked = representative_windows(parts.train)
    low, high = -INT8_RANGE_MV, 127 * INT8_RANGE_MV / 128
    clipped = {
        window.tobytes(): name
        for window, name in zip(
            np.clip(parts.train.ecg, low, high).astype(np.float32), parts.train.aha_class, strict=True
        )
    }
    classes = [clipped[window.tobytes()] for window in picked[:-2]]
    _, counts = np.unique(parts.train.aha_class, return_counts=True)
    assert np.unique(classes, return_counts=True)[1].tolist() == np.minimum(counts, 100).tolist()
    assert (picked.min(), picked.max()) == (np.float32(low), np.float32(high))
    np.testing.assert_array_equal(picked, representative_windows(parts.train))


def test_quiet_training_windows_still_give_the_whole_range(parts: Parts) -> None:
    """Windows that never reach the ends of the range do not narrow it."""
    quiet = replace(parts.train, ecg=parts.train.ecg / 100)
    picked = representative_windows(quiet)
    assert (picked.min(), picked.max()) == pytest.approx((-INT8_RANGE_MV, 127 * INT8_RANGE_MV / 128))


def test_stored_values_are_clipped() -> None:
    """int8 takes what is out of range as its ends, and reading gives the middle of a step."""
    tensor = Tensor("ecg", 0, (1, 4, 1), "int8", scale=0.5, zero_point=-3)
    stored = tensor.store(np.array([-1e9, -0.2, 0.3, np.inf]))
    assert stored.tolist() == [-128, -3, -2, 127]
    assert tensor.read(stored).tolist() == [-62.5, 0.0, 0.5, 65.0]


@pytest.mark.parametrize("probability", [1e-6, 0.123, 0.5, 0.999])
def test_logit_is_the_inverse_of_the_sigmoid(probability: float) -> None:
    """The threshold on the logit is that on the probability."""
    assert 1 / (1 + math.exp(-logit_of(probability))) == pytest.approx(probability)


@pytest.mark.parametrize("to", ["", "int8", "LITERT", "tflite", None])
def test_unknown_format_is_refused(to: Any, tmp_path: Path) -> None:
    """The error lists the formats, and no folder is made."""
    with pytest.raises(ValueError, match="choose one of litert, litert-int8, onnx"):
        export(None, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("activation", ["elu", "selu"])
def test_activation_that_int8_cannot_do_is_refused(activation: str, bundle: Bundle, tmp_path: Path) -> None:
    """The error comes before any work, and says what can be done."""
    other = replace(bundle, spec=replace(bundle.spec, activation=activation))
    with pytest.raises(ValueError, match=f"activation {activation!r}.*Export to litert"):
        export(other, "litert-int8", tmp_path)


def test_missing_packages_are_named(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says which packages are missing and what to type."""
    from ecg_shock.export import runtimes as exported

    monkeypatch.setattr(exported, "find_version", lambda name: None if name == "tf2onnx" else "1")
    with pytest.raises(ValueError, match=r"needs tf2onnx; run: pip install 'ecg-shock\[onnx\]'"):
        export(bundle, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"patients": {"train": ["a"], "validation": ["b"], "test": []}}, "have another job in split 'synthetic-v1'"),
        ({"data": {"databases": ["synthetic"], "fold": 99}}, "fold=99"),
    ],
)
def test_bundle_of_other_patients_is_refused(
    card: dict[str, Any], message: str, bundle: Bundle, tmp_path: Path
) -> None:
    """A card that does not fit the split is an error: int8 might be calibrated with validation patients."""
    with pytest.raises(ValueError, match=message):
        export(replace(bundle, raw_card=bundle.raw_card | card), "litert", tmp_path)


def test_bundle_without_card_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """What does not say what it has seen cannot be scored again."""
    with pytest.raises(ValueError, match=r"has no \[card\.data\]"):
        export(replace(bundle, raw_card={}), "litert", tmp_path)


def test_changed_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """The network is loaded by its digest."""
    shutil.copytree(bundle.folder, tmp_path / "bundle")
    path = tmp_path / "bundle" / "model.keras"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match="changed or damaged"):
        export(tmp_path / "bundle", "litert", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_recordings_are_named(bundle: Bundle, tmp_path: Path) -> None:
    """Where the recordings are not there, the error says how to fetch them."""
    data = {"databases": ["vfdb"], "split": "public-v1"}
    with pytest.raises(FileNotFoundError, match="ecg-shock fetch vfdb"):
        export(replace(bundle, raw_card=bundle.raw_card | {"data": data}), "litert", tmp_path / "out", data=tmp_path)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\x00\x00\x00TFL3" + bytes(64)])
def test_rubbish_is_no_model(content: bytes, tmp_path: Path) -> None:
    """An empty or cut file is a ValueError that names it."""
    (tmp_path / "a.tflite").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tflite is no LiteRT model"):
        ExportedModel(tmp_path / "a.tflite")


def compare_with_micro(path: Path, ecg: np.ndarray) -> None:
    """Run an int8 export on TFLite Micro and on LiteRT, and compare all outputs."""
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime", reason="no wheel of tflite-micro")
    model = ExportedModel(path, reference_kernels=True)
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


def test_int8_is_the_same_on_tflite_micro(exports: dict[str, ExportResult], parts: Parts) -> None:
    """On 1,000 synthetic windows not one bit of logit or probability differs."""
    compare_with_micro(exports["litert-int8"].files[0], parts.train.ecg[:1000])


@pytest.mark.recordings
@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_model_of_the_package_is_exported(to: str, recordings_dir: Path, tmp_path: Path) -> None:
    """The shipped model passes on its own validation patients; int8 is the same on TFLite Micro for 1,000 windows."""
    result = export(None, to, tmp_path, data=recordings_dir)
    bundle = load_bundle(result.bundle.folder)
    validation = bundle.card["validation"]
    found = result.rescoring
    assert (found.windows, found.patients) == (validation["windows"], validation["patients"])
    assert found.sensitivity == pytest.approx(validation["sensitivity"])
    assert found.specificity == pytest.approx(validation["specificity"])
    print(to, replace(found, flips=()), *found.flips, sep="\n")
    if to == "litert-int8":
        windows = load_parts(DataConfig.model_validate(bundle.card["data"]), recordings_dir).validation
        compare_with_micro(result.files[0], windows.ecg[:: len(windows) // 1000])
