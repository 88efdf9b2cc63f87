"""Flash, memory, stack and time of the C code: `python tests/benchmarks/c_size.py`.

For the model that comes with the package and the network of Krasteva et al. 2020 (random weights), with float and int8
weights. Sizes are of a Cortex-M4 at -O2 (needs arm-none-eabi-gcc): flash is code and constants, RAM the struct, stack
the frames of all functions together, which no chain of calls can exceed. Time is of the network alone on this machine,
gcc -O2, against LiteRT on the same window in turns, the best of several rounds.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from ecg_shock.export.c_code import write_c
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.models.bundle import Bundle, load_bundle, write_bundle
from ecg_shock.models.cnn import CnnSpec, build_model
from ecg_shock.preprocessing import Preprocessing

FS = 250.0
ROUNDS, RUNS = 5, 200
HARNESS = Path(__file__).resolve().parents[1] / "export" / "c_harness.c"
ARM = ("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-ffreestanding")


def run(*command: str | Path, data: bytes | None = None) -> bytes:
    """Run a command that must succeed, and return what it wrote."""
    return subprocess.run([str(part) for part in command], input=data, stdout=subprocess.PIPE, check=True).stdout


def arm_sizes(folder: Path) -> str:
    """Return flash and stack of a Cortex-M4 as two columns."""
    if shutil.which(ARM[0]) is None:
        return f"{'–':>8} {'–':>6}"
    out = folder / "m4.o"
    run(*ARM, "-std=c99", "-O2", "-fstack-usage", "-c", folder / "ecg_shock.c", "-o", out)
    text, data, bss = map(int, run("arm-none-eabi-size", out).split()[6:9])
    if bss:
        raise RuntimeError(f"{bss} bytes of static memory, where none was to be")
    stack = sum(int(line.split("\t")[1]) for line in out.with_suffix(".su").read_text().splitlines())
    return f"{text + data:8,} {stack:6,}"


def bare_litert(bundle: Bundle, window: np.ndarray) -> Callable[[], float]:
    """Return what measures the microseconds of one bare invocation."""
    interpreter = Interpreter(model_content=bundle.read_litert(), num_threads=1)
    place = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(place, [1, len(window), 1])
    interpreter.allocate_tensors()

    def measure_us() -> float:
        started = time.perf_counter()
        for _ in range(RUNS):
            interpreter.set_tensor(place, window[None, :, None])
            interpreter.invoke()
            interpreter.get_tensor(result)
        return (time.perf_counter() - started) / RUNS * 1e6

    return measure_us


def measure(name: str, bundle: Bundle, folder: Path) -> None:
    """Print one line for each kind of weights."""
    weights = bundle.load_keras().get_weights()
    window = np.random.default_rng(0).normal(0, 0.5, bundle.spec.input_samples).astype(np.float32)
    litert_us = bare_litert(bundle, window)
    programs = {}
    for kind in ("float", "int8"):
        place = folder / f"{name}-{kind}"
        write_c(place, bundle, weights, fs=FS, int8=kind == "int8")
        programs[kind] = place / "device"
        run("gcc", "-std=c99", "-O2", f"-I{place}", HARNESS, "-o", programs[kind])
    litert, times = [], {kind: [] for kind in programs}
    for _ in range(ROUNDS):
        litert.append(litert_us())
        for kind, program in programs.items():
            times[kind].append(float(np.frombuffer(run(program, "time", data=window.tobytes()), np.float32)[0]))
    for kind in programs:
        place = folder / f"{name}-{kind}"
        ram = int(re.search(r"memory +(\d+) bytes", (place / "ecg_shock_model.h").read_text())[1])  # type: ignore[index]
        us = min(times[kind])
        print(
            f"{name:>9} {kind:>5} {bundle.spec.parameter_count():10,} {arm_sizes(place)} {ram:7,} "
            f"{us:8.0f} {min(litert):9.0f} {us / min(litert):6.1f}"
        )


def main() -> None:
    """Print the table."""
    print(f"{'network':>9} {'kind':>5} {'parameters':>10} {'flash B':>8} {'stack':>6} {'RAM B':>7} ", end="")
    print(f"{'C µs':>8} {'LiteRT µs':>9} {'ratio':>6}")
    spec = CnnSpec(filters=(20, 15, 15, 10, 5), kernels=(10,) * 5)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measure("shipped", load_bundle(DEFAULT_BUNDLE), folder)
        published = write_bundle(
            folder / "bundle", build_model(spec), spec=spec, preprocessing=Preprocessing(), threshold=0.5, card={}
        )
        measure("published", published, folder)


if __name__ == "__main__":
    main()
