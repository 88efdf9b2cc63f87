"""A LiteRT model is checked against its network before LiteRT loads it."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from ecg_shock.inference.advisor import DEFAULT_BUNDLE, Advisor
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import load_bundle, write_bundle
from ecg_shock.models.litert_check import check_graph
from ecg_shock.preprocessing import Preprocessing

# TensorFlow's converter warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def content() -> bytes:
    """Return the model that comes with the package."""
    return (DEFAULT_BUNDLE / "model.tflite").read_bytes()


@pytest.fixture(scope="module")
def spec() -> CnnSpec:
    """Return the network that it should be."""
    return load_bundle(DEFAULT_BUNDLE).spec


def graph_of(content: bytes) -> schema.SubGraph:
    """Return the graph of a model."""
    return schema.Model.GetRootAs(content, 0).Subgraphs(0)


def changed(content: bytes, at: int, form: str, *values: float) -> bytes:
    """Return a copy with other numbers at a position."""
    data = bytearray(content)
    struct.pack_into(form, data, at, *values)
    return bytes(data)


def second_kernel(spec: CnnSpec) -> list[int]:
    """Return the shape of the weights of the second block in a LiteRT model."""
    return [spec.filters[1], 1, spec.kernels[1], spec.filters[0]]


def tensor_with(content: bytes, shape: list[int]) -> tuple[int, int]:
    """Return the index of the first tensor of a shape, and the position of its values."""
    graph = graph_of(content)
    index = next(i for i in range(graph.TensorsLength()) if np.ravel(graph.Tensors(i).ShapeAsNumpy()).tolist() == shape)
    return tensor_of(content, index)


def tensor_of(content: bytes, index: int) -> tuple[int, int]:
    """Return the index of a tensor, and the position of its values."""
    buffer = schema.Model.GetRootAs(content, 0).Buffers(graph_of(content).Tensors(index).Buffer())._tab
    return index, buffer.Vector(buffer.Offset(4))


@pytest.mark.parametrize(
    ("activation", "padding", "pool"),
    [("relu", "same", 2), ("elu", "valid", 3), ("selu", "same", 2), ("tanh", "valid", 2)],
)
@pytest.mark.parametrize("global_pool", ["max", "max+average"])
def test_our_own_models_pass(activation: str, padding: str, pool: int, global_pool: str, tmp_path: Path) -> None:
    """Networks with each activation and padding can be written, read back and run."""
    spec = CnnSpec((4, 1), (7, 1), activation=activation, padding=padding, pool=pool, global_pool=global_pool)
    bundle = write_bundle(
        tmp_path, build_model(spec, seed=0), spec=spec, preprocessing=Preprocessing(), threshold=0.5, card={}
    )
    assert bundle.read_litert() == (tmp_path / "model.tflite").read_bytes()
    assert 0 <= Advisor(bundle).probabilities(np.ones((1, 625)))[0] <= 1


def test_an_operator_that_reads_no_tensor_is_refused(content: bytes, spec: CnnSpec) -> None:
    """No operator may read a tensor that does not exist, on which LiteRT crashes, or that is written later."""
    graph = graph_of(content)
    (last,) = graph.OutputsAsNumpy()
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        start = operator._tab.Vector(operator._tab.Offset(6))
        assert struct.unpack_from("<i", content, start)[0] == operator.Inputs(0)
        for place in range(operator.InputsLength()):
            if number == graph.OperatorsLength() - 2 and place == 2:
                continue  # the bias of the last layer may be missing
            for index in (-1, last, 74, 2**31 - 1):
                with pytest.raises(ValueError, match=rf"operator {number}, [A-Z_0-9]+, reads a tensor before"):
                    check_graph(changed(content, start + 4 * place, "<i", index), spec)


def test_an_operator_that_writes_elsewhere_is_refused(content: bytes, spec: CnnSpec) -> None:
    """No operator may write to a constant, the input, another operator's output or a tensor that does not exist."""
    operator = graph_of(content).Operators(9)
    start = operator._tab.Vector(operator._tab.Offset(8))
    for index in (-1, 0, 1, operator.Inputs(0), 74):
        with pytest.raises(ValueError, match=r"operator 9, SQUEEZE, does not write to a new tensor"):
            check_graph(changed(content, start, "<i", index), spec)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_weights_out_of_range_are_refused(value: float, content: bytes, spec: CnnSpec) -> None:
    """With such weights a network returns NaN, and so never advises a shock."""
    index, at = tensor_with(content, second_kernel(spec))
    with pytest.raises(ValueError, match=f"tensor {index} has values out of range"):
        check_graph(changed(content, at, "<f", value), spec)


def test_another_network_is_refused(content: bytes, spec: CnnSpec) -> None:
    """The model must have the blocks, kernels, padding and pooling that bundle.toml describes."""
    for other, message in (
        (replace(spec, filters=(*spec.filters[:-1], spec.filters[-1] + 1)), "last layer has another shape"),
        (replace(spec, kernels=(*spec.kernels[:-1], spec.kernels[-1] + 1)), "convolutions are"),
        (replace(spec, filters=spec.filters[1:], kernels=spec.kernels[1:]), "convolutions are"),
        (
            replace(spec, padding="valid", input_samples=1250, kernels=(2,) * len(spec.kernels)),
            "CONV_2D, has options that this",
        ),
        (
            replace(spec, pool=3, filters=spec.filters[2:], kernels=spec.kernels[2:]),
            "MAX_POOL_2D, has options that this",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            check_graph(content, other)


@pytest.fixture(scope="module")
def averaging(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, CnnSpec]:
    """Return a model with the average over time, and its network."""
    spec = CnnSpec(filters=(4, 3), kernels=(7, 5), global_pool="max+average")
    folder = tmp_path_factory.mktemp("averaging")
    write_bundle(folder, build_model(spec), spec=spec, preprocessing=Preprocessing(), threshold=0.5, card={})
    return (folder / "model.tflite").read_bytes(), spec


def test_the_other_global_pooling_is_refused(averaging: tuple[bytes, CnnSpec], tmp_path: Path) -> None:
    """A maximum is no maximum and average, nor the reverse, even if the last layer has as many inputs."""
    average, of_average = averaging
    of_maximum = replace(of_average, global_pool="max", filters=(4, 6))
    write_bundle(
        tmp_path, build_model(of_maximum), spec=of_maximum, preprocessing=Preprocessing(), threshold=0.5, card={}
    )
    maximum = (tmp_path / "model.tflite").read_bytes()
    check_graph(average, of_average)
    check_graph(maximum, of_maximum)
    for graph, wrong in (
        (maximum, replace(of_maximum, global_pool="max+average")),
        (average, replace(of_average, global_pool="max")),
    ):
        with pytest.raises(ValueError, match="last layer has another shape"):
            check_graph(graph, wrong)
    for graph, wrong in ((maximum, of_average), (average, of_maximum)):
        with pytest.raises(
            ValueError, match=rf"operators after its blocks .*global_pool '{re.escape(wrong.global_pool)}'"
        ):
            check_graph(graph, wrong)


def test_another_average_is_refused(averaging: tuple[bytes, CnnSpec]) -> None:
    """The maximum and the average have to be those of the last block over time, in this order, and only once."""
    content, spec = averaging
    graph = graph_of(content)
    mean, maximum, concatenation, sigmoid_unit = (graph.Operators(graph.OperatorsLength() - n) for n in (5, 4, 3, 2))

    def vector(operator: schema.Operator, field: int) -> int:
        return operator._tab.Vector(operator._tab.Offset(field))

    code = mean._tab.Pos + mean._tab.Offset(4)
    inputs = vector(concatenation, 6)
    earlier = graph.Operators(3).Outputs(0)
    _, axis = tensor_of(content, mean.Inputs(1))
    for wrong in (
        changed(content, code, "<I", maximum.OpcodeIndex()),
        changed(content, inputs, "<i", mean.Outputs(0)),
        changed(content, inputs + 4, "<i", maximum.Outputs(0)),
        changed(content, inputs, "<ii", mean.Outputs(0), maximum.Outputs(0)),
        changed(content, vector(mean, 6), "<i", earlier),
        changed(content, vector(maximum, 6), "<i", earlier),
        changed(content, vector(sigmoid_unit, 6), "<i", maximum.Outputs(0)),
        changed(content, axis, "<i", 2),
    ):
        assert wrong != content
        with pytest.raises(ValueError, match=r"the operators after its blocks|is not over time"):
            check_graph(wrong, spec)


def test_damaged_models_are_refused(content: bytes, spec: CnnSpec) -> None:
    """An empty file, text and a truncated model are a ValueError."""
    for damaged in (b"", b"TFL3", b"x" * 1000, content[4:], *(content[:n] for n in range(0, len(content), 997))):
        with pytest.raises(ValueError, match="not a LiteRT model of this network"):
            check_graph(damaged, spec)


def test_a_changed_model_with_its_digest_is_refused(content: bytes, spec: CnnSpec, tmp_path: Path) -> None:
    """A bundle whose model and digest were both changed is an error that names the file."""
    folder = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    damaged = changed(content, tensor_with(content, second_kernel(spec))[1], "<f", np.nan)
    text = (folder / "bundle.toml").read_text()
    digest = hashlib.sha256(content).hexdigest()
    assert digest in text
    (folder / "bundle.toml").write_text(text.replace(digest, hashlib.sha256(damaged).hexdigest()))
    (folder / "model.tflite").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"model\.tflite is not a LiteRT model of this network"):
        Advisor(folder)
