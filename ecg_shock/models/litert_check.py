"""Check a bundle's LiteRT model before LiteRT loads it.

LiteRT does not validate a model: a manipulated model can make LiteRT write out of bounds. The digest in the bundle does
not protect against manipulation, because the digest can be changed together with the model. Therefore this module
compares the graph with the network that the bundle describes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ecg_shock.models.cnn import CnnSpec

# The operators that TensorFlow's converter makes from a `CnnSpec`, and how many tensors each of them reads.
OPERATORS = {
    "EXPAND_DIMS": 2,
    "SQUEEZE": 1,
    "CONV_2D": 3,
    "ADD": 2,
    "RELU": 1,
    "ELU": 1,
    "TANH": 1,
    # SELU
    "GREATER": 2,
    "MUL": 2,
    "EXP": 1,
    "SUB": 2,
    "SELECT_V2": 3,
    "MAX_POOL_2D": 1,
    "REDUCE_MAX": 2,
    "MEAN": 2,
    "CONCATENATION": 2,
    "FULLY_CONNECTED": 3,
    "LOGISTIC": 1,
}
# For each global pooling: the operators after the blocks, each with the operators whose results it reads.
ENDS = {
    "max": {"REDUCE_MAX": ["blocks"], "FULLY_CONNECTED": ["REDUCE_MAX"], "LOGISTIC": ["FULLY_CONNECTED"]},
    "max+average": {
        "REDUCE_MAX": ["blocks"],
        "MEAN": ["blocks"],
        "CONCATENATION": ["REDUCE_MAX", "MEAN"],
        "FULLY_CONNECTED": ["CONCATENATION"],
        "LOGISTIC": ["FULLY_CONNECTED"],
    },
}
TENSOR_TYPES = {"FLOAT32": "<f4", "INT32": "<i4", "BOOL": "|b1"}
MAX_RANK = 4
TIME_AXIS = 1  # the tensor that is pooled over time has the axes window, samples, filters
MAX_WEIGHT = 1e4  # far above trained weights; larger numbers could overflow to NaN
MAX_OPERATORS = 200  # far more than seven blocks need
NO_TENSOR = -1


def check_graph(content: bytes, spec: CnnSpec) -> None:
    """Check that a LiteRT model is the network of a specification.

    Parameters
    ----------
    content : bytes
        The model, a flatbuffer.
    spec : CnnSpec
        The network.

    Raises
    ------
    ValueError
        If the flatbuffer is damaged, if it has an operator that the network does not have, if an operator reads a
        tensor before another operator has written it, or if weights have a wrong shape or are out of range.
    """
    try:
        _check(content, spec)
    except Exception as error:  # damaged flatbuffers raise IndexError, struct.error, UnicodeDecodeError and others
        raise ValueError(f"not a LiteRT model of this network: {error!s} ({type(error).__name__})") from error


def _check(content: bytes, spec: CnnSpec) -> None:
    from ai_edge_litert import schema_py_generated as schema

    _require(schema.Model.ModelBufferHasIdentifier(content, 0), "it is not a TFL3 flatbuffer")
    model = schema.Model.GetRootAs(content, 0)
    _require(model.SubgraphsLength() == 1, "it does not have exactly one graph")
    graph = model.Subgraphs(0)
    constants = _read_constants(model, graph, schema)
    (first,), (last,) = _indices(graph.InputsAsNumpy()), _indices(graph.OutputsAsNumpy())
    written = {*constants, first}
    _require(first not in constants, "its input is a constant")
    _require(0 < graph.OperatorsLength() <= MAX_OPERATORS, f"it has {graph.OperatorsLength()} operators")
    convolutions, operators = [], []
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        name, inputs, outputs = _read_operator(model, operator, schema)
        known = name in OPERATORS and len(inputs) == OPERATORS[name] and len(outputs) == 1
        _require(known, f"operator {number}, {name}, is unknown or has another number of inputs or outputs")
        optional = {NO_TENSOR} if name == "FULLY_CONNECTED" and inputs[2] == NO_TENSOR else set()
        _require({*inputs} <= written | optional, f"operator {number}, {name}, reads a tensor before it is written")
        is_new = 0 <= outputs[0] < graph.TensorsLength() and outputs[0] not in written
        _require(is_new, f"operator {number}, {name}, does not write to a new tensor")
        written.add(outputs[0])
        operators.append((name, inputs, outputs[0]))
        if name == "CONV_2D":
            convolutions.append([constants[index].shape for index in inputs[1:]])
        elif name == "FULLY_CONNECTED":
            _require(constants[inputs[1]].shape == (1, spec.features), "its last layer has another shape")
        elif name in ("EXPAND_DIMS", "REDUCE_MAX", "MEAN"):
            _require(constants[inputs[1]].dtype.kind == "i", f"operator {number}, {name}, has no axis")
            over_time = name == "EXPAND_DIMS" or constants[inputs[1]].ravel().tolist() == [TIME_AXIS]
            _require(over_time, f"operator {number}, {name}, is not over time")
        expected = _has_expected_options(name, operator, spec, schema)
        _require(expected, f"operator {number}, {name}, has options that this network does not have")
    _require((name, outputs[0]) == ("LOGISTIC", last), "its output is not the output of the sigmoid")
    _check_end(operators, {*constants, NO_TENSOR}, spec)
    channels = (1, *spec.filters[:-1])
    wanted = [[(f, 1, k, c), (f,)] for f, k, c in zip(spec.filters, spec.kernels, channels, strict=True)]
    _require(convolutions == wanted, f"its convolutions are {convolutions}, not {wanted}")


def _check_end(operators: list[tuple[str, list[int], int]], constants: set[int], spec: CnnSpec) -> None:
    """Check that exactly the network's global pooling and its sigmoid unit follow the blocks."""
    end = [operator for operator in operators if operator[0] in ENDS["max+average"]]
    *_, (_, _, pooled) = operators[: -len(end)]
    sources = {pooled: "blocks"} | {output: name for name, _, output in end}
    reads = {name: [sources.get(i) for i in inputs if i not in constants] for name, inputs, _ in end}
    is_end = len(reads) == len(end) and reads == ENDS[spec.global_pool]
    _require(is_end, f"the operators after its blocks are {reads}, which do not match global_pool {spec.global_pool!r}")


def _read_constants(model: Any, graph: Any, schema: Any) -> dict[int, np.ndarray]:
    """Check all tensors, and return the values of those that are stored in the model."""
    types = {getattr(schema.TensorType, name): dtype for name, dtype in TENSOR_TYPES.items()}
    constants = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        allowed = tensor.Sparsity() is None and not tensor.IsVariable() and tensor.VariantTensorsLength() == 0
        quantization = tensor.Quantization()
        allowed &= quantization is None or (quantization.ScaleLength(), quantization.DetailsType()) == (0, 0)
        shape = tuple(_indices(tensor.ShapeAsNumpy()))
        allowed &= len(shape) <= MAX_RANK and all(size > 0 for size in shape)
        allowed &= tensor.ShapeSignatureLength() in (0, len(shape)) and tensor.Type() in types
        _require(
            allowed and tensor.Buffer() < model.BuffersLength(),
            f"tensor {index} has a type or shape that this network lacks",
        )
        (tensor.Name() or b"").decode("utf-8")  # the Python API of LiteRT decodes it too
        buffer = model.Buffers(tensor.Buffer())
        _require(buffer.Offset() == buffer.Size() == 0, f"the values of tensor {index} are stored outside the graph")
        if buffer.DataLength():
            constant = buffer.DataAsNumpy().view(types[tensor.Type()]).reshape(shape)
            # Integers are numbers of axes. Both comparisons are False for NaN.
            limit = MAX_RANK if constant.dtype.kind == "i" else MAX_WEIGHT
            _require((constant < limit).all() and (constant > -limit).all(), f"tensor {index} has values out of range")
            constants[index] = constant
    return constants


def _read_operator(model: Any, operator: Any, schema: Any) -> tuple[str, list[int], list[int]]:
    """Return the name of an operator, and the indices of the tensors that it reads and writes."""
    _require(operator.OpcodeIndex() < model.OperatorCodesLength(), "an operator has no code")
    code = model.OperatorCodes(operator.OpcodeIndex())
    # The deprecated field holds codes up to 127; LiteRT uses the larger of both fields.
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    names = [name for name in OPERATORS if getattr(schema.BuiltinOperator, name) == number]
    lists = (operator.MutatingVariableInputsLength(), operator.IntermediatesLength(), operator.CustomOptionsLength())
    allowed = not any(lists) and operator.LargeCustomOptionsOffset() == 0 and operator.BuiltinOptions2Type() == 0
    _require(allowed, "an operator has inputs or options that this network does not have")
    return (*names, f"number {number}")[0], _indices(operator.InputsAsNumpy()), _indices(operator.OutputsAsNumpy())


def _has_expected_options(name: str, operator: Any, spec: CnnSpec, schema: Any) -> bool:
    """Return whether the strides, sizes, padding and concatenation axis of an operator match the network."""
    kinds = {"CONV_2D": "Conv2DOptions", "MAX_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions"}
    kind = kinds.get(name)
    if kind is None:
        return True
    table = operator.BuiltinOptions()
    if table is None or operator.BuiltinOptionsType() != getattr(schema.BuiltinOptions, kind):
        return False
    options = getattr(schema, kind)()
    options.Init(table.Bytes, table.Pos)
    if name == "CONV_2D":
        strides = (options.StrideH(), options.StrideW(), options.DilationHFactor(), options.DilationWFactor())
        return strides == (1, 1, 1, 1) and options.Padding() == getattr(schema.Padding, spec.padding.upper())
    if name == "CONCATENATION":
        none = schema.ActivationFunctionType.NONE
        return options.Axis() in (-1, 1) and options.FusedActivationFunction() == none
    sizes = (options.StrideH(), options.StrideW(), options.FilterHeight(), options.FilterWidth())
    return sizes == (1, spec.pool, 1, spec.pool) and options.Padding() == schema.Padding.VALID


def _indices(array: Any) -> list[int]:
    """Return a vector of a flatbuffer as a list, which is empty if the vector is missing."""
    return np.ravel(array).tolist() if isinstance(array, np.ndarray) else []


def _require(condition: object, message: str) -> None:
    if not condition:
        raise ValueError(message)
