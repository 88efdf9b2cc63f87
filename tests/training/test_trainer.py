"""Tests of ecg_shock.training.trainer and ecg_shock.training.plots."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import keras
import matplotlib.pyplot
import numpy as np
import pytest
from pydantic import ValidationError

from ecg_shock.models import CnnSpec, build_model
from ecg_shock.training.checkpoint import load_checkpoint
from ecg_shock.training.plots import plot_history
from ecg_shock.training.samplers import Sampler
from ecg_shock.training.trainer import (
    DivergedError,
    EpochLog,
    Examples,
    TrainingConfig,
    best_of,
    load_best_model,
    train,
)

SPEC = CnnSpec(filters=(4, 3), kernels=(9, 5), pool=3, input_samples=250)


def examples(n, seed):
    """Return windows of noisy sines, fast where shockable, that a small network begins to tell apart in some epochs."""
    rng = np.random.default_rng(seed)
    shockable = np.arange(n) % 4 == 0
    rate = np.where(shockable, 5.0, 1.5)[:, np.newaxis] * rng.uniform(0.6, 1.6, (n, 1))
    ecg = np.sin(2 * np.pi * rate * np.arange(250) / 125) + rng.normal(size=(n, 250))
    return Examples(ecg=ecg, shockable=shockable, groups=np.arange(n) % 3)


TRAINING, VALIDATION = examples(90, seed=1), examples(60, seed=2)


def config(**changes):
    """Return a short training of three steps an epoch."""
    return TrainingConfig(**{"epochs": 5, "batch_size": 32, "learning_rate": 0.01, "rescore_every": 2} | changes)


def assert_same_state(a, b):
    """Compare the checkpoints of two folders bit for bit, wall-clock times apart."""
    one, other = (load_checkpoint(folder / "checkpoint.npz") for folder in (a, b))
    assert [EpochLog(**e) for e in one.history] == [EpochLog(**e) for e in other.history]
    for part in ("model", "best", "optimizer"):
        for x, y in zip(getattr(one, part), getattr(other, part), strict=True):
            np.testing.assert_array_equal(x, y)
    assert one.sampler.keys() == other.sampler.keys()
    for name, x in one.sampler.items():
        np.testing.assert_array_equal(x, other.sampler[name])


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("sampler", ["uniform", "ras"])
def test_steps_equal_those_of_plain_keras(tmp_path, sampler, balanced):
    """An epoch without dropout ends at the weights and loss of Keras's own steps with `sample_weight`.

    Keras divides the weighted loss by the batch size, not by the sum of the weights; so must we.
    """
    spec = CnnSpec(filters=(4, 3), kernels=(9, 5), pool=3, dropout=0.0, input_samples=250)
    result = train(spec, TRAINING, VALIDATION, config(epochs=1, sampler=sampler, balanced=balanced), tmp_path)

    model = build_model(spec)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", jit_compile=False)
    y = TRAINING.shockable
    class_weights = np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum())) if balanced else np.ones(len(y))
    reference = Sampler(sampler, TRAINING.groups)
    if sampler == "ras":
        features = keras.Model(model.input, model.layers[-2].output).predict(TRAINING.ecg, verbose=0)
        error = np.abs(model.predict(TRAINING.ecg, verbose=0)[:, 0] - y)
        reference.rescore(class_weights * error * np.sqrt(1 + np.sum(features**2, axis=1)))
    losses = []
    for indices, weights in zip(*reference.draw((3, 32)), strict=True):
        sample_weight = weights * class_weights[indices]
        ecg, target = TRAINING.ecg[indices][..., np.newaxis], y[indices].astype(float)[:, np.newaxis]
        losses.append(np.sum(sample_weight * keras.losses.binary_crossentropy(target, model(ecg))) / 32)
        model.train_on_batch(ecg, target, sample_weight=sample_weight)

    np.testing.assert_allclose(result.history[0].loss, np.mean(losses), rtol=1e-5)
    for a, b in zip(result.load_model().get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_result_is_that_of_the_best_weights(tmp_path):
    """The model that is loaded has the best balanced accuracy and loss of the history, computed again by Keras."""
    seen = []
    result = train(SPEC, TRAINING, VALIDATION, config(epochs=12), tmp_path, on_epoch=seen.append)
    assert tuple(seen) == result.history
    assert [e.epoch for e in result.history] == list(range(1, 13))

    probability = result.load_model().predict(VALIDATION.ecg, verbose=0)[:, 0].astype(float)
    y = VALIDATION.shockable
    balanced_accuracy = (np.mean(probability[y] >= 0.5) + np.mean(probability[~y] < 0.5)) / 2
    loss = -np.mean(np.log(np.where(y, probability, 1 - probability)))
    assert result.best_balanced_accuracy == pytest.approx(balanced_accuracy, abs=1e-12)
    assert result.best_loss == pytest.approx(loss, rel=1e-5)
    assert result.best_balanced_accuracy == max(e.balanced_accuracy for e in result.history) > 0.5
    best = result.history[result.best_epoch - 1]
    assert (best.balanced_accuracy, best.validation_loss) == (result.best_balanced_accuracy, result.best_loss)

    written = json.loads((tmp_path / "history.json").read_text())
    assert tuple(EpochLog(**e) for e in written["epochs"]) == result.history
    assert written["best_epoch"] == result.best_epoch


def test_best_epoch_prefers_lower_loss_among_equals():
    """Balanced accuracy decides, then the lower loss, then the earlier epoch."""

    def log(epoch, balanced_accuracy, loss):
        return EpochLog(epoch, 1.0, loss, 1.0, 2 * balanced_accuracy - 1, balanced_accuracy, 0.0)

    history = [log(1, 0.8, 0.1), log(2, 0.9, 0.5), log(3, 0.9, 0.3), log(4, 0.9, 0.3), log(5, 0.9, 0.4)]
    assert best_of(history).epoch == 3


@pytest.mark.parametrize("sampler", ["uniform", "ras"])
def test_interrupted_run_equals_an_uninterrupted_one(tmp_path, sampler):
    """A run stopped after one epoch and again after the next ends in the same state, bit for bit."""

    def stop(log):
        raise KeyboardInterrupt

    settings = config(epochs=4, sampler=sampler, seed=7)
    train(SPEC, TRAINING, VALIDATION, settings, tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, TRAINING, VALIDATION, settings, tmp_path / "parts", on_epoch=stop)
    train(SPEC, TRAINING, VALIDATION, settings, tmp_path / "parts")
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


KILLED_RUN = """
import importlib.util, os, signal, sys
from pathlib import Path
from ecg_shock.training import checkpoint, samplers, trainer

spec = importlib.util.spec_from_file_location("test_trainer", sys.argv[1])
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)

def kill_at_call(owner, name, call):
    calls, original = [], getattr(owner, name)
    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)
    setattr(owner, name, counted)

if sys.argv[3] == "in the middle of an epoch":
    kill_at_call(samplers.Sampler, "update", 8)  # the second of three steps of the third epoch
else:
    kill_at_call(checkpoint.os, "fsync", 4)  # history.json on resuming, checkpoint and history, then a checkpoint
trainer.STEPS_PER_CALL = 1
trainer.train(test.SPEC, test.TRAINING, test.VALIDATION, test.config(seed=7), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    """A process killed in mid-epoch, and the next while it writes its checkpoint, change nothing in the end."""
    monkeypatch.setattr("ecg_shock.training.trainer.STEPS_PER_CALL", 1)
    train(SPEC, TRAINING, VALIDATION, config(seed=7), tmp_path / "whole")

    killed = tmp_path / "killed"
    for moment, epochs in (("in the middle of an epoch", 2), ("while writing", 3)):
        command = [sys.executable, "-c", KILLED_RUN, __file__, str(killed), moment]
        process = subprocess.run(command, check=False, capture_output=True, text=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert len(load_checkpoint(killed / "checkpoint.npz").history) == epochs
    (torn,) = killed.glob("checkpoint.npz.*.tmp")
    train(SPEC, TRAINING, VALIDATION, config(seed=7), killed)
    assert_same_state(tmp_path / "whole", killed)
    assert sorted(p.name for p in killed.iterdir()) == ["checkpoint.npz", torn.name, "history.json", "origin.json"]


def test_finished_run_returns_at_once(tmp_path, monkeypatch):
    """A finished folder gives the same result again without building a network."""
    result = train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path)
    monkeypatch.setattr("ecg_shock.training.trainer.build_model", None)
    assert train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path) == result


def test_raised_epochs_go_on_as_if_they_had_been_asked_for_first(tmp_path):
    """Three epochs, then five in the same folder, equal five."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=3, patience=4), tmp_path / "raised")
    train(SPEC, TRAINING, VALIDATION, config(epochs=5), tmp_path / "raised")
    train(SPEC, TRAINING, VALIDATION, config(epochs=5), tmp_path / "once")
    assert_same_state(tmp_path / "raised", tmp_path / "once")


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    """Another network, configuration or window is refused with old and new value; the folder stays as it was."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=2, patience=2), tmp_path)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    ecg = VALIDATION.ecg.copy()
    ecg[3, 5] += 1e-3
    changed = Examples(ecg, VALIDATION.shockable, VALIDATION.groups)
    regrouped = Examples(TRAINING.ecg, TRAINING.shockable, TRAINING.groups + 1)
    wider = CnnSpec(filters=(4, 4), kernels=(9, 5), pool=3, input_samples=250)
    same = config(epochs=2, patience=2)
    for arguments, message in [
        ((wider, TRAINING, VALIDATION, same), r"network.filters: \[4, 3\] in the folder, \[4, 4\] now"),
        ((SPEC, TRAINING, VALIDATION, config(epochs=2, patience=2, learning_rate=0.02)), "learning_rate: 0.01 .* 0.02"),
        ((SPEC, TRAINING, VALIDATION, config(epochs=1, patience=2)), "config.epochs: 2 in the folder, 1 now"),
        ((SPEC, TRAINING, VALIDATION, config(epochs=3, patience=1)), "config.patience: 2 in the folder, 1 now"),
        ((SPEC, TRAINING, changed, same), "data.validation.sha256"),
        ((SPEC, regrouped, VALIDATION, same), "data.training.sha256"),
    ]:
        with pytest.raises(ValueError, match=message):
            train(*arguments, tmp_path)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_patience_stops_and_may_be_raised(tmp_path):
    """Training stops when `patience` epochs brought no better one, and never sooner."""
    result = train(SPEC, TRAINING, VALIDATION, config(epochs=60, patience=2, learning_rate=1e-9), tmp_path)
    best = [best_of(result.history[:n]).epoch for n in range(1, len(result.history) + 1)]
    waits = [n - b for n, b in enumerate(best, start=1)]
    assert waits[-1] == 2 or len(result.history) == 60
    assert max(waits[:-1]) < 2
    longer = train(SPEC, TRAINING, VALIDATION, config(epochs=len(best) + 1, learning_rate=1e-9), tmp_path / "never")
    assert len(longer.history) == len(best) + 1


def test_divergence_stops_and_keeps_the_best(tmp_path, monkeypatch):
    """A loss of NaN is an error that says what is kept; the epochs before it load, and a sound run goes on."""
    original = Sampler.draw

    def poisoned(self, shape):
        indices, weights = original(self, shape)
        return indices, weights * np.where(poisoned.calls > 2, np.nan, 1.0)

    poisoned.calls = 0

    def count(log):
        poisoned.calls = log.epoch + 1

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "draw", poisoned)
        with pytest.raises(DivergedError, match=r"epoch 3 .*not finite.*keeps epoch [12] \(balanced accuracy"):
            train(SPEC, TRAINING, VALIDATION, config(), tmp_path / "a", on_epoch=count)
    assert len(json.loads((tmp_path / "a" / "history.json").read_text())["epochs"]) == 2
    assert np.isfinite(load_best_model(tmp_path / "a").predict(VALIDATION.ecg, verbose=0)).all()

    train(SPEC, TRAINING, VALIDATION, config(), tmp_path / "a")
    train(SPEC, TRAINING, VALIDATION, config(), tmp_path / "b")
    assert_same_state(tmp_path / "a", tmp_path / "b")


def test_divergence_in_the_first_epoch(tmp_path):
    """A learning rate far too high is an error that says that nothing is kept, in either kind of loss."""
    with pytest.raises(DivergedError, match="epoch 1 .*nothing is kept"):
        train(SPEC, TRAINING, VALIDATION, config(learning_rate=1e30), tmp_path)


def test_damaged_checkpoint_is_refused(tmp_path):
    """A damaged checkpoint stops training with its name, and is not written over."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=1), tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"checkpoint\.npz is damaged"):
        train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path)
    assert path.stat().st_size == 5000


@pytest.mark.parametrize("kind", [True, False])
def test_parts_need_both_classes(tmp_path, kind):
    """A part of one class is refused by name before anything is written."""
    keep = kind == VALIDATION.shockable
    part = Examples(VALIDATION.ecg[keep], VALIDATION.shockable[keep], VALIDATION.groups[keep])
    missing = "nonshockable" if kind else "shockable"
    with pytest.raises(ValueError, match=f"validation part has .* none is {missing}"):
        train(SPEC, TRAINING, part, config(), tmp_path / "a")
    with pytest.raises(ValueError, match=f"training part has .* none is {missing}"):
        train(SPEC, part, VALIDATION, config(), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_windows_of_another_length_are_refused(tmp_path):
    """Windows that do not fit the network's input are refused with both lengths."""
    with pytest.raises(ValueError, match="training windows have 250 samples and the network takes 625"):
        train(CnnSpec(filters=(4,), kernels=(9,)), TRAINING, VALIDATION, config(), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ecg": np.zeros(8)}, r"shapes \(8,\)"),
        ({"ecg": np.zeros((7, 250))}, r"\(N, samples\)"),
        ({"groups": np.zeros((8, 1), int)}, r"\(8, 1\)"),
        ({"shockable": np.zeros(8)}, "must be bool"),
        ({"groups": np.zeros(8)}, "must be integer"),
        ({"ecg": np.full((8, 250), np.nan)}, "8 windows hold samples that are not finite, first 0"),
        ({"ecg": np.zeros((0, 250)), "shockable": np.zeros(0, bool), "groups": np.zeros(0, int)}, "at least one"),
    ],
)
def test_wrong_examples_are_refused(change, message):
    """Arrays that do not belong together, or cannot be an ECG, are refused."""
    good = {"ecg": np.zeros((8, 250)), "shockable": np.zeros(8, bool), "groups": np.zeros(8, int)}
    with pytest.raises(ValueError, match=message):
        Examples(**(good | change))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"sampler": "obs"},
        {"patience": 0},
        {"floor": 0},
        {"floor": 1.1},
        {"rescore_every": 0},
        {"seed": -1},
        {"epoch": 5},
    ],
)
def test_wrong_configurations_are_refused(change):
    """Values out of range and unknown names are refused."""
    with pytest.raises(ValidationError):
        TrainingConfig(**change)


def test_history_is_drawn(tmp_path):
    """A long history and one of a single epoch are drawn, leaving pyplot without a figure; an empty one is refused."""
    history = [EpochLog(i, 1 / i, 1.1 / i, 0.5, 1.0 - 0.5 / i, 0.75 - 0.25 / i, 0.1) for i in range(1, 30)]
    for name, part in (("long.png", history), ("one.svg", history[:1])):
        plot_history(part, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5000
    assert matplotlib.pyplot.get_fignums() == []
    with pytest.raises(ValueError, match="empty"):
        plot_history([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_origin_is_that_of_the_first_epoch(tmp_path):
    """A folder says which versions began the training, also when others finish it."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=1), tmp_path)
    origin = json.loads((tmp_path / "origin.json").read_text(encoding="utf-8"))
    assert set(origin) == {"commit", "versions"}
    assert "numpy" in origin["versions"]
    (tmp_path / "origin.json").write_text('{"commit": "earlier", "versions": {}}', encoding="utf-8")
    train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path)
    assert json.loads((tmp_path / "origin.json").read_text(encoding="utf-8"))["commit"] == "earlier"
