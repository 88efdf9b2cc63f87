"""What a bundle's LiteRT model may be made of, checked before LiteRT sees it.

LiteRT trusts a model's own account of itself: where an operator reads a tensor that does not exist, as one changed
number can have it, it writes where it must not and the process dies. A digest does not help, for it lies beside the
model and can be changed with it. So the graph is checked against the network that the bundle describes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ecg_shock.models.cnn import CnnSpec

# The operators that TensorFlow's converter makes of a network of `CnnSpec`, and the tensors that each of them reads.
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
    "FULLY_CONNECTED": 3,
    "LOGISTIC": 1,
}
TENSOR_TYPES = {"FLOAT32": "<f4", "INT32": "<i4", "BOOL": "|b1"}
MAX_RANK = 4
MAX_WEIGHT = 1e4  # far beyond trained ones; with numbers of any size a network computes NaN
MAX_OPERATORS = 200  # far beyond what seven blocks have
NO_TENSOR = -1


def check_graph(content: bytes, spec: CnnSpec) -> None:
    """Refuse a LiteRT model, the bytes of a flatbuffer, that is not the network of a specification.

    The shapes of what the operators compute are left to LiteRT, which infers and checks them itself.

    Raises
    ------
    ValueError
        If it cannot be read, holds an operator that no such network has, reads what was not written before, or has
        weights of another shape or size.
    """
    try:
        _check(content, spec)
    except Exception as error:  # IndexError, struct.error, UnicodeDecodeError and more over damaged flatbuffers
        raise ValueError(f"no LiteRT model of this network: {error!s} ({type(error).__name__})") from error


def _check(content: bytes, spec: CnnSpec) -> None:
    from ai_edge_litert import schema_py_generated as schema

    _demand(schema.Model.ModelBufferHasIdentifier(content, 0), "it is no TFL3 flatbuffer")
    model = schema.Model.GetRootAs(content, 0)
    _demand(model.SubgraphsLength() == 1, "it has not one graph")
    graph = model.Subgraphs(0)
    constants = _read_constants(model, graph, schema)
    (first,), (last,) = _indices(graph.InputsAsNumpy()), _indices(graph.OutputsAsNumpy())
    written = {*constants, first}
    _demand(first not in constants, "its input is a constant")
    _demand(0 < graph.OperatorsLength() <= MAX_OPERATORS, "it has too many operators or none")
    convolutions = []
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        name, inputs, outputs = _read_operator(model, operator, schema)
        wired = name in OPERATORS and len(inputs) == OPERATORS[name] and len(outputs) == 1
        _demand(wired, f"operator {number}, {name}, is unknown or wired in another way")
        optional = {NO_TENSOR} if name == "FULLY_CONNECTED" and inputs[2] == NO_TENSOR else set()
        _demand({*inputs} <= written | optional, f"operator {number}, {name}, reads what was not written before")
        in_range = 0 <= outputs[0] < graph.TensorsLength() and outputs[0] not in written
        _demand(in_range, f"operator {number}, {name}, writes over what is there")
        written.add(outputs[0])
        if name == "CONV_2D":
            convolutions.append([constants[index].shape for index in inputs[1:]])
        elif name == "FULLY_CONNECTED":
            _demand(constants[inputs[1]].shape == (1, spec.filters[-1]), "its last layer has another shape")
        elif name in ("EXPAND_DIMS", "REDUCE_MAX"):
            _demand(constants[inputs[1]].dtype.kind == "i", f"operator {number}, {name}, has no axis")
        _demand(_allowed_options(name, operator, spec, schema), f"operator {number}, {name}, has other options")
    _demand((name, outputs[0]) == ("LOGISTIC", last), "its output is no probability")
    channels = (1, *spec.filters[:-1])
    expected = [[(f, 1, k, c), (f,)] for f, k, c in zip(spec.filters, spec.kernels, channels, strict=True)]
    _demand(convolutions == expected, f"its convolutions are {convolutions}, not {expected}")


def _read_constants(model: Any, graph: Any, schema: Any) -> dict[int, np.ndarray]:
    """Check all tensors, and return those that come with the model."""
    types = {getattr(schema.TensorType, name): dtype for name, dtype in TENSOR_TYPES.items()}
    constants = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        plain = tensor.Sparsity() is None and not tensor.IsVariable() and tensor.VariantTensorsLength() == 0
        quantization = tensor.Quantization()
        plain &= quantization is None or (quantization.ScaleLength(), quantization.DetailsType()) == (0, 0)
        shape = tuple(_indices(tensor.ShapeAsNumpy()))
        plain &= len(shape) <= MAX_RANK and all(size > 0 for size in shape)
        plain &= tensor.ShapeSignatureLength() in (0, len(shape)) and tensor.Type() in types
        _demand(plain and tensor.Buffer() < model.BuffersLength(), f"tensor {index} is none of such a network")
        (tensor.Name() or b"").decode("utf-8")  # as LiteRT's Python does for the input and the output
        buffer = model.Buffers(tensor.Buffer())
        _demand(buffer.Offset() == buffer.Size() == 0, f"the values of tensor {index} are not in it")
        if buffer.DataLength():
            constant = buffer.DataAsNumpy().view(types[tensor.Type()]).reshape(shape)
            # NaN is not below a limit. Integers are axes.
            limit = MAX_RANK if constant.dtype.kind == "i" else MAX_WEIGHT
            _demand((constant < limit).all() and (constant > -limit).all(), f"tensor {index} has values out of range")
            constants[index] = constant
    return constants


def _read_operator(model: Any, operator: Any, schema: Any) -> tuple[str, list[int], list[int]]:
    """Return the name of an operator, and what it reads and writes."""
    _demand(operator.OpcodeIndex() < model.OperatorCodesLength(), "an operator has no code")
    code = model.OperatorCodes(operator.OpcodeIndex())
    # The older of the two fields holds numbers up to 127; LiteRT takes the larger one.
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    names = [name for name in OPERATORS if getattr(schema.BuiltinOperator, name) == number]
    lists = (operator.MutatingVariableInputsLength(), operator.IntermediatesLength(), operator.CustomOptionsLength())
    plain = not any(lists) and operator.LargeCustomOptionsOffset() == 0 and operator.BuiltinOptions2Type() == 0
    _demand(plain, "an operator has more than such a network needs")
    return (*names, f"number {number}")[0], _indices(operator.InputsAsNumpy()), _indices(operator.OutputsAsNumpy())


def _allowed_options(name: str, operator: Any, spec: CnnSpec, schema: Any) -> bool:
    """Say whether a convolution or pooling steps as the network does."""
    kind = {"CONV_2D": "Conv2DOptions", "MAX_POOL_2D": "Pool2DOptions"}.get(name)
    if kind is None:
        return True
    table = operator.BuiltinOptions()
    if table is None or operator.BuiltinOptionsType() != getattr(schema.BuiltinOptions, kind):
        return False
    options = getattr(schema, kind)()
    options.Init(table.Bytes, table.Pos)
    if name == "CONV_2D":
        steps = (options.StrideH(), options.StrideW(), options.DilationHFactor(), options.DilationWFactor())
        return steps == (1, 1, 1, 1) and options.Padding() == getattr(schema.Padding, spec.padding.upper())
    steps = (options.StrideH(), options.StrideW(), options.FilterHeight(), options.FilterWidth())
    return steps == (1, spec.pool, 1, spec.pool) and options.Padding() == schema.Padding.VALID


def _indices(array: Any) -> list[int]:
    """Return a vector of a flatbuffer, which its reader gives as 0 if it is missing."""
    return np.ravel(array).tolist() if isinstance(array, np.ndarray) else []


def _demand(condition: object, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
