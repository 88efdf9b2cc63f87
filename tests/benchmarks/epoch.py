"""Time an epoch of the published network against plain Keras, in one process and by turns.

Run `python tests/benchmarks/epoch.py`. Ours is `train` as users call it, the checkpoint and the validation of a few
windows after every epoch counted. Keras's is the time inside an epoch of `fit`, its preparation of the data and any
validation not counted. After each of our epochs comes one of each kind of Keras's, so that a busy machine slows all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.cnn import import_keras
from ecg_shock.training.examples import Examples
from ecg_shock.training.trainer import EpochLog, TrainingConfig, train

PUBLISHED = CnnSpec(filters=(20, 15, 15, 10, 5), kernels=(10,) * 5)
SHOCKABLE, NONSHOCKABLE = 720, 3170  # the training subset of Krasteva 2020
BATCHES = (128, 16)  # the default, and a small one, where what goes on between steps weighs most
# Epochs that are not counted: functions are compiled, and "ras" passes over all windows in its first.
WARM_UP = 2


def random_examples(shockable: int, nonshockable: int, rng: np.random.Generator) -> Examples:
    """Return windows of noise: what an epoch costs does not depend on what they show."""
    labels = rng.permutation(np.repeat([True, False], [shockable, nonshockable]))
    return Examples(rng.normal(size=(labels.size, PUBLISHED.input_samples)), labels, labels)


def keras_epoch(model: Any, training: Examples, batch: int) -> float:
    """Run one epoch of `fit` and return the seconds between its begin and its end."""
    times: list[float] = []
    clock = import_keras().callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: times.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
    )
    labels = training.shockable.astype(np.float32)
    model.fit(training.ecg[..., np.newaxis], labels, batch_size=batch, verbose=0, callbacks=[clock])
    return times[1] - times[0]


def compiled(steps_per_execution: int) -> Any:
    """Return the published network, ready for `fit`."""
    model = build_model(PUBLISHED)
    model.compile(
        import_keras().optimizers.Adam(1e-3),
        "binary_crossentropy",
        jit_compile=False,
        steps_per_execution=steps_per_execution,
    )
    return model


def race(
    sampler: Literal["uniform", "ras"], batch: int, epochs: int, training: Examples, validation: Examples
) -> np.ndarray:
    """Return seconds, shape (epochs, 3): ours, `fit`, and `fit` with 8 steps in a call."""
    plain, grouped = compiled(1), compiled(8)
    rows: list[list[float]] = []
    started = time.perf_counter()

    def on_epoch(log: EpochLog) -> None:
        nonlocal started
        ours = time.perf_counter() - started
        rows.append([ours, keras_epoch(plain, training, batch), keras_epoch(grouped, training, batch)])
        started = time.perf_counter()

    config = TrainingConfig(epochs=epochs + WARM_UP, batch_size=batch, sampler=sampler)
    with tempfile.TemporaryDirectory() as folder:
        train(PUBLISHED, training, validation, config, Path(folder), on_epoch=on_epoch)
    return np.array(rows[WARM_UP:])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each kind that are counted")
    epochs = parser.parse_args().epochs
    rng = np.random.default_rng(0)
    training = random_examples(SHOCKABLE, NONSHOCKABLE, rng)
    validation = random_examples(16, 16, rng)

    windows = SHOCKABLE + NONSHOCKABLE
    print(
        f"{windows} windows of {PUBLISHED.input_samples}, medians of {epochs} epochs; ras every tenth with a re-score"
    )
    print(f"{'sampler':10}{'batch':>7}{'ours, s':>10}{'fit, s':>10}{'ratio':>8}{'fit by 8, s':>14}{'ratio':>8}")
    samplers: tuple[Literal["uniform", "ras"], ...] = ("uniform", "ras")
    for batch, sampler in product(BATCHES, samplers):
        seconds = race(sampler, batch, epochs, training, validation)
        ours, plain, grouped = np.median(seconds, axis=0)
        to_plain, to_grouped = np.mean(seconds[:, :1], axis=0) / np.mean(seconds[:, 1:], axis=0)
        print(f"{sampler:10}{batch:7}{ours:10.3f}{plain:10.3f}{to_plain:8.2f}{grouped:14.3f}{to_grouped:8.2f}")


if __name__ == "__main__":
    main()
