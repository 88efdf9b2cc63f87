"""Load exported networks from their files, and run them one window at a time, as a device does."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ecg_shock.quiet import without_lines

INT8_MIN, INT8_MAX = -128, 127
C_COMPILERS = ("cc", "gcc", "clang")
C_FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC")
C_SIZES = (r"#define ECG_SHOCK_WINDOW (\d+)", r"#define ECG_SHOCK_SCRATCH (\d+)", r"(\d+) bytes: sizeof")
EXP_LIMIT = 87.0  # as in ecg_shock.c
C_SOURCES = ("ecg_shock.c", "selftest.c")
ONNX_PACKAGES = ("onnx", "tf2onnx", "onnxruntime")


@dataclass(frozen=True)
class Tensor:
    """An input or output of an exported model.

    Parameters
    ----------
    name : str
        Name in the model's signature.
    index : int
        Index among the inputs or among the outputs.
    shape : tuple of int
        Fixed shape, with a batch of 1.
    dtype : str
        ``"float32"`` or ``"int8"``.
    scale, zero_point : float and int, or None
        For an int8 tensor: value = scale · (stored - zero_point).
    """

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def store(self, values: np.ndarray) -> np.ndarray:
        """Return values as the tensor stores them; for int8 they are scaled, rounded and clipped."""
        if self.scale is None or self.zero_point is None:
            return np.asarray(values, dtype=self.dtype)
        steps = np.round(np.asarray(values, dtype=np.float64) / self.scale) + self.zero_point
        return np.clip(steps, INT8_MIN, INT8_MAX).astype(np.int8)

    def read(self, stored: np.ndarray) -> np.ndarray:
        """Return the values that stored numbers represent, as float64."""
        stored = np.asarray(stored, dtype=np.float64)
        return stored if self.scale is None or self.zero_point is None else self.scale * (stored - self.zero_point)


class Runtime(ABC):
    """An exported network, loaded from its file. Raises ValueError if the file cannot be run."""

    input: Tensor
    logit: Tensor
    probability: Tensor

    @abstractmethod
    def __init__(self, path: Path) -> None: ...

    @abstractmethod
    def _invoke(self, window: np.ndarray) -> tuple[Any, Any]:
        """Return the logit and probability of one window, as the model stores them."""

    def run(self, ecg: np.ndarray, on_window: Callable[[], Any] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits and probabilities of windows, as the model stores them.

        `ecg` has shape (n_windows, n_samples), preprocessed, in mV at 125 Hz. `on_window` is called after each window.
        """
        stored = self.input.store(ecg)
        logit = np.empty(len(stored), dtype=self.logit.dtype)
        probability = np.empty(len(stored), dtype=self.probability.dtype)
        for i, window in enumerate(stored):
            logit[i], probability[i] = self._invoke(window.reshape(self.input.shape))
            if on_window:
                on_window()
        return logit, probability


class LiteRt(Runtime):
    """A ``.tflite`` file on LiteRT with its default kernels."""

    _reference_kernels = False

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kernels = OpResolverType.BUILTIN_REF if self._reference_kernels else OpResolverType.AUTO
        try:
            with without_lines("INFO: Created TensorFlow Lite"):
                interpreter = Interpreter(
                    model_content=path.read_bytes(), num_threads=1, experimental_op_resolver_type=kernels
                )
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path} is not a LiteRT model that can be run: {error}") from error
        runner = interpreter.get_signature_runner()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.input = _litert_tensor("ecg", runner.get_input_details(), inputs)
        self.logit = _litert_tensor("logit", runner.get_output_details(), outputs)
        self.probability = _litert_tensor("probability", runner.get_output_details(), outputs)
        self._interpreter = interpreter
        self._ecg = inputs[self.input.index]["index"]
        self._outputs = [outputs[tensor.index]["index"] for tensor in (self.logit, self.probability)]

    def _invoke(self, window: np.ndarray) -> tuple[Any, Any]:
        self._interpreter.set_tensor(self._ecg, window)
        self._interpreter.invoke()
        logit, probability = (self._interpreter.get_tensor(index).item() for index in self._outputs)
        return logit, probability


class LiteRtInt8(LiteRt):
    """A ``.tflite`` file on LiteRT's reference kernels, which agree bit for bit with TFLite Micro.

    The faster default kernels (XNNPACK) round differently, by up to 2 steps of the logit of the package's model.
    """

    _reference_kernels = True


class Onnx(Runtime):
    """An ``.onnx`` file on ONNX Runtime."""

    def __init__(self, path: Path) -> None:
        need_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except FileNotFoundError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no other common base class
            raise ValueError(f"{path} is not an ONNX model that can be run: {error}") from error

        def find_tensor(name: str, tensors: list[Any]) -> Tensor:
            index = [tensor.name for tensor in tensors].index(name)
            return Tensor(name, index, tuple(tensors[index].shape), "float32")

        self.input = find_tensor("ecg", session.get_inputs())
        self.logit = find_tensor("logit", session.get_outputs())
        self.probability = find_tensor("probability", session.get_outputs())
        self._session = session

    def _invoke(self, window: np.ndarray) -> tuple[Any, Any]:
        logit, probability = self._session.run(["logit", "probability"], {"ecg": window})
        return logit.item(), probability.item()


class CCode(Runtime):
    """A generated ``ecg_shock_model.h`` with the C code in the same folder, compiled for this machine and loaded.

    The code is run on this machine, so only load code that you trust.
    """

    def __init__(self, path: Path) -> None:
        compiler = need_c_compiler()
        with TemporaryDirectory() as folder:
            library = Path(folder) / "ecg_shock.so"
            sources = [str(file) for name in C_SOURCES if (file := path.with_name(name)).exists()]
            command = [compiler, *C_FLAGS, *sources, "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ValueError(
                    f"{path} and the C code in its folder do not compile; export again. The compiler says: "
                    f"{done.stderr.strip()}"
                )
            self._code = ctypes.CDLL(str(library))
        text = path.read_text(encoding="ascii")
        sizes = []
        for pattern in C_SIZES:
            found = re.search(pattern, text)
            if found is None:
                raise ValueError(f"{path} is not a generated header: it lacks {pattern!r}. Export again.")
            sizes.append(int(found[1]))
        samples, scratch_size, struct_bytes = sizes
        self._scratch = (ctypes.c_float * scratch_size)()
        self._lead = ctypes.create_string_buffer(struct_bytes)
        self._code.ecg_shock_network.restype = ctypes.c_float
        self._code.ecg_shock_push.argtypes = (ctypes.c_void_p, ctypes.c_float, ctypes.c_void_p)
        self.input = Tensor("window_mv", 0, (1, samples, 1), "float32")
        self.logit = Tensor("logit", 0, (1, 1), "float32")
        self.probability = Tensor("probability", 1, (1, 1), "float32")

    def _invoke(self, window: np.ndarray) -> tuple[Any, Any]:
        contiguous = np.ascontiguousarray(window, dtype=np.float32)
        logit = self._code.ecg_shock_network(contiguous.ctypes.data_as(ctypes.c_void_p), self._scratch)
        return logit, 1 / (1 + np.exp(-np.clip(np.float64(logit), -EXP_LIMIT, EXP_LIMIT)))

    def selftest(self) -> int:
        """Run ``selftest.c``, and return the number of wrong golden vectors."""
        return int(self._code.ecg_shock_selftest(self._lead))

    def stream(self, raw_mv: np.ndarray) -> float:
        """Run the C code on raw samples, in mV, NaN where invalid; return its last logit, or NaN without advice."""
        logit, advice = float("nan"), _CAdvice()
        self._code.ecg_shock_init(self._lead)
        for mv in raw_mv.tolist():
            if self._code.ecg_shock_push(self._lead, mv, ctypes.byref(advice)):
                logit = advice.logit
        return logit


RUNTIMES: dict[str, type[Runtime]] = {
    "litert": LiteRt,
    "litert-int8": LiteRtInt8,
    "onnx": Onnx,
    "c": CCode,
    "c-int8": CCode,
}

# What computes the outputs of the golden vectors in each format.
KERNELS = {
    "litert": "LiteRT, default kernels (XNNPACK), single precision",
    "litert-int8": "LiteRT, reference kernels (OpResolverType.BUILTIN_REF), which agree bit for bit with the reference "
    "kernels of TFLite Micro. LiteRT's default kernels (XNNPACK) round differently: in the golden vectors by up to "
    "default_kernels_differ_by steps of the stored logit. Other optimised kernels were not tested.",
    "onnx": "ONNX Runtime, CPU, single precision",
    "c": "ecg_shock.c, compiled for the computer that exported it, single precision",
    "c-int8": "ecg_shock.c, compiled for the computer that exported it: int8 weights, activations in single precision",
}


class _CAdvice(ctypes.Structure):
    """The struct `ecg_shock_advice` of the C code."""

    _fields_ = (
        ("shock", ctypes.c_int32),
        ("quality", ctypes.c_int32),
        ("logit", ctypes.c_float),
        ("probability", ctypes.c_float),
        ("invalid_share", ctypes.c_float),
    )


def _litert_tensor(name: str, signature: dict[str, Any], tensors: list[dict[str, Any]]) -> Tensor:
    found = signature[name]
    scale, zero_point = found["quantization"]
    return Tensor(
        name,
        index=[tensor["index"] for tensor in tensors].index(found["index"]),
        shape=tuple(found["shape"].tolist()),
        dtype=np.dtype(found["dtype"]).name,
        scale=float(scale) if scale else None,
        zero_point=int(zero_point) if scale else None,
    )


def need_c_compiler() -> str:
    """Return the path of a C compiler, or raise ValueError."""
    found = next((path for name in C_COMPILERS if (path := shutil.which(name))), None)
    if found is None:
        raise ValueError(
            f"checking an export to C needs a C compiler, but none of {', '.join(C_COMPILERS)} is installed; "
            "install one, for example with: apt-get install gcc libc6-dev"
        )
    return found


def need_onnx() -> None:
    """Raise ValueError if a package for ONNX is missing."""
    missing = [name for name in ONNX_PACKAGES if find_version(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}; run: pip install 'ecg-shock[onnx]'")


def find_version(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
