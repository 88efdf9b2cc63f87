"""Time advice against the bare network and against other runtimes: `python tests/benchmarks/advice.py`.

Synthetic strips of 5 s at 250 Hz, for the model that comes with the package and for the published network of Krasteva
et al. 2020. What is compared is timed by turns, so that a busy machine slows all, and medians count. `predict`, with
preprocessing and quality rule, may take 6 times the bare LiteRT invocation. Every runtime gets the same preprocessed
windows one by one, on one thread; one that is not installed is skipped. The machine's rate of matrix multiplication
stands beside the times, for comparison with those of other machines.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ecg_shock import Advisor, Preprocessing
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.inference.quality import unusable_reasons
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import write_bundle
from ecg_shock.models.cnn import import_keras
from ecg_shock.preprocessing import preprocess, preprocess_strips

FS = 250.0
STRIP, WINDOW = 1250, 625  # samples of 5 s, as recorded and at 125 Hz
LIMIT = 6.0  # times the bare LiteRT
MATRIX, PRODUCTS = 1024, 10  # whose product tells how fast the machine is
PATIENTS = 12
WARM_UP, CALLS = 3, 20  # of each in a turn
SCAN_STEP_S = 1
AGREEMENT = 1e-5  # of a runtime with LiteRT
PUBLISHED = CnnSpec(filters=(20, 15, 15, 10, 5), kernels=(10,) * 5)

Runner = Callable[[np.ndarray], object]


def median_us(runners: dict[str, tuple[Runner, np.ndarray]], rounds: int) -> dict[str, float]:
    """Time each runner on row after row of its input, by turns."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    row = 0
    for _ in range(rounds):
        for name, (run, inputs) in runners.items():
            for call in range(WARM_UP + CALLS):
                row += 1
                one = inputs[row % len(inputs)]
                started = time.perf_counter()
                run(one)
                if call >= WARM_UP:
                    times[name].append(1e6 * (time.perf_counter() - started))
    return {name: float(np.median(values)) for name, values in times.items()}


def matrix_gflops() -> float:
    """Measure the machine's rate of matrix multiplication in single precision: the best of several."""
    matrix = np.ones((MATRIX, MATRIX), dtype=np.float32)
    best_s = np.inf
    for _ in range(PRODUCTS):
        started = time.perf_counter()
        matrix @ matrix
        best_s = min(best_s, time.perf_counter() - started)
    return 2e-9 * MATRIX**3 / best_s


def bare_litert(advisor: Advisor) -> Runner:
    """Return set_tensor, invoke and get_tensor, and nothing else."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=advisor.bundle.read_litert(), num_threads=1)
    source = interpreter.get_input_details()[0]["index"]
    result = interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(source, [1, WINDOW, 1])
    interpreter.allocate_tensors()

    def run(window: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, window)
        interpreter.invoke()
        return interpreter.get_tensor(result)

    return run


def keras_runners(advisor: Advisor) -> dict[str, Runner]:
    """Return `keras.Model.predict` and the model in a `tf.function`."""
    import tensorflow as tf

    model = advisor.bundle.load_keras()
    function = tf.function(lambda window: model(window, training=False), jit_compile=False)
    return {
        "keras.Model.predict": lambda window: model.predict(window, verbose=0),
        "tf.function": lambda window: function(tf.constant(window)).numpy(),
    }


def onnx_runner(advisor: Advisor) -> dict[str, Runner]:
    """Return onnxruntime on Keras' own export."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        model = advisor.bundle.load_keras()
        model(np.zeros((1, WINDOW, 1), dtype=np.float32))  # a loaded model is exported only once it was called
        model.export(path, format="onnx", opset_version=17, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return {"onnxruntime": lambda window: session.run(None, {name: window})[0]}


def torch_runner(advisor: Advisor) -> dict[str, Runner]:
    """Return the same weights in PyTorch."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    spec = advisor.bundle.spec
    weights = [torch.from_numpy(np.array(w)) for w in advisor.bundle.load_keras().get_weights()]
    *blocks, (dense, bias) = zip(weights[::2], weights[1::2], strict=True)
    blocks = [(kernel.permute(2, 1, 0).contiguous(), offset) for kernel, offset in blocks]
    activation = getattr(functional, spec.activation)

    def run(window: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(window).permute(0, 2, 1)
            for kernel, offset in blocks:
                if spec.padding == "same":
                    extra = kernel.shape[2] - 1
                    x = functional.pad(x, (extra // 2, extra - extra // 2))
                x = functional.max_pool1d(activation(functional.conv1d(x, kernel, offset)), spec.pool)
            return torch.sigmoid(x.amax(dim=2) @ dense + bias).numpy()

    return {"PyTorch": run}


def print_shares(advisor: Advisor, strips: np.ndarray, rounds: int) -> None:
    """Print what `predict` takes, and where it goes."""
    filtered = preprocess_strips(strips, FS, advisor.bundle.preprocessing)
    windows = filtered[:, None, :, None].astype(np.float32)
    times = median_us(
        {
            "bare LiteRT": (bare_litert(advisor), windows),
            "predict": (lambda strip: advisor.predict(strip, FS), strips),
            "  preprocessing": (
                lambda strip: preprocess_strips(strip, FS, advisor.bundle.preprocessing),
                strips[:, None],
            ),
            "  quality rule": (
                lambda pair: unusable_reasons(pair[None, :STRIP], FS, pair[None, STRIP:]),
                np.concatenate([strips, filtered], axis=1),
            ),
            "  network": (advisor.probabilities, filtered[:, None]),
        },
        rounds,
    )
    for name, us in times.items():
        limit = f"  (limit {LIMIT:g} x)" if name == "predict" else ""
        print(f"  {name:24}{us:10.1f} us{us / times['bare LiteRT']:9.2f} x bare{limit}")


def print_peers(advisor: Advisor, filtered: np.ndarray, rounds: int) -> None:
    """Print what other runtimes take for the network alone."""
    windows = filtered[:, None, :, None].astype(np.float32)
    expected = advisor.probabilities(filtered)
    runners: dict[str, Runner] = {"bare LiteRT": bare_litert(advisor)}
    for peer, packages in (
        (keras_runners, "keras"),
        (onnx_runner, "onnxruntime onnx tf2onnx"),
        (torch_runner, "torch"),
    ):
        try:
            runners |= peer(advisor)
        except ImportError as error:
            print(f"  not installed: {error.name}; pip install {packages}")
    for name, run in runners.items():
        differs = max(abs(float(np.ravel(run(w))[0]) - p) for w, p in zip(windows[:20], expected[:20], strict=True))
        if differs > AGREEMENT:
            raise SystemExit(f"{name} differs from LiteRT by {differs:.2g}: not the same network")
    times = median_us({name: (run, windows) for name, run in runners.items()}, rounds)
    for name, us in times.items():
        print(f"  {name:24}{us:10.1f} us{us / times['bare LiteRT']:9.2f} x bare")


def print_batches(advisor: Advisor, signal: np.ndarray, rounds: int) -> None:
    """Print what one window of many takes, on one core and on all."""
    strips = signal[: len(signal) // STRIP * STRIP].reshape(-1, STRIP)
    filtered = preprocess(signal, FS, advisor.bundle.preprocessing)
    filtered_windows = sliding_window_view(filtered, WINDOW)[:: SCAN_STEP_S * 125]
    windows = sliding_window_view(signal, STRIP)[:: round(SCAN_STEP_S * FS)][: len(filtered_windows)]
    jobs = {
        f"predict_many, {len(strips)} strips": (lambda: advisor.predict_many(strips, FS), len(strips)),
        f"classify, {len(windows)} views": (lambda: advisor.classify(windows, FS, filtered_windows), len(windows)),
    }
    every_core = os.sched_getaffinity(0)
    for name, (job, count) in jobs.items():
        times: dict[int, list[float]] = {1: [], len(every_core): []}
        for _ in range(rounds):
            for cores, values in times.items():
                os.sched_setaffinity(0, sorted(every_core)[:cores])
                started = time.perf_counter()
                job()
                values.append(1e6 * (time.perf_counter() - started) / count)
        os.sched_setaffinity(0, every_core)
        medians = {cores: float(np.median(values)) for cores, values in times.items()}
        for cores, us in medians.items():
            print(f"  {name:24}{us:10.1f} us a window, cores: {cores}, {medians[1] / us:.2f} x as fast as on one")


def main() -> None:
    """Print a table for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each gets its turn; the median counts")
    rounds = parser.parse_args().rounds
    import_keras()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    signal = np.concatenate([r.signal[:, 0] for r in synthetic_recordings(patients=PATIENTS, fs=FS)]).astype(np.float64)
    strips = signal.reshape(-1, STRIP)
    default = Advisor()
    print(f"machine: {matrix_gflops():.0f} GFLOP/s of matrix multiplication, {len(os.sched_getaffinity(0))} cores")
    usable = np.array([advice.usable for advice in default.predict_many(strips, FS)])
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_bundle(
            Path(folder),
            build_model(PUBLISHED),
            spec=PUBLISHED,
            preprocessing=Preprocessing(),
            threshold=0.5,
            card={},
        )
        for name, advisor in (("model that comes with the package", default), ("published network", Advisor(bundle))):
            print(f"{name}: {advisor.bundle.spec.parameter_count()} parameters")
            print_shares(advisor, strips[usable], rounds)
            print_batches(advisor, signal, rounds)
            print_peers(advisor, preprocess_strips(strips[usable], FS, advisor.bundle.preprocessing), rounds)


if __name__ == "__main__":
    main()
