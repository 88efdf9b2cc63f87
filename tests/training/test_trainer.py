"""Training equals plain Keras, resumes exactly, keeps the best epoch, and refuses what does not fit."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from ecg_shock.models import CnnSpec, build_model
from ecg_shock.training.checkpoint import load_checkpoint, save_checkpoint
from ecg_shock.training.examples import Examples, Views
from ecg_shock.training.sampler import Sampler
from ecg_shock.training.steps import TrainSteps
from ecg_shock.training.trainer import DivergedError, EpochLog, TrainingConfig, _draw_cut, best_of, read_result, train

SPEC = CnnSpec(filters=(4, 3), kernels=(9, 5), pool=3, input_samples=250)


def examples(n, seed, amplitude_spread=0.0):
    """Return windows of noisy sines, faster if shockable, which a small network learns to separate in some epochs."""
    rng = np.random.default_rng(seed)
    shockable = np.arange(n) % 4 == 0
    hz = np.where(shockable, 5.0, 1.5)[:, np.newaxis] * rng.uniform(0.6, 1.6, (n, 1))
    ecg = np.sin(2 * np.pi * hz * np.arange(250) / 125) + rng.normal(size=(n, 250))
    ecg *= np.exp(amplitude_spread * rng.normal(size=(n, 1)))
    rhythm = np.where(shockable, "coarse_vf", np.where(np.arange(n) % 4 == 1, "asystole", "normal_sinus"))
    return Examples(ecg=ecg, shockable=shockable, rhythm=rhythm)


TRAINING, VALIDATION = examples(90, seed=1), examples(60, seed=2)
# Amplitudes so different that the gate of adaptive samplers is open from the first epoch on.
VARIED = examples(90, seed=3, amplitude_spread=1.5)
# Each rhythm of six patients is a group, with arbitrary codes.
PATIENTS = Examples(VARIED.ecg, VARIED.shockable, VARIED.rhythm, VARIED.groups * 40 + np.arange(90) // 15 - 7)


def config(**changes):
    """Return the settings of a short training of three steps per epoch, with the sampler that has the most state."""
    short = {"epochs": 5, "batch_size": 32, "learning_rate": 0.01, "rescore_every": 2, "balanced": False}
    short |= {"sampler": "ras"}
    return TrainingConfig(**short | changes)


def epoch_log(epoch, **changes):
    """Return the log of an epoch."""
    measured = {"loss": 1.0, "validation_loss": 1.0, "sensitivity": 0.5, "specificity": 0.9, "balanced_accuracy": 0.7}
    drawn = {"drawn": {"coarse_vf": 0.4, "normal_sinus": 0.6}, "kish": 20.0, "largest_weight": 3.0}
    estimated = {"gain": 1.5, "effective_batch": 40.0}
    return EpochLog(**({"epoch": epoch, **measured, **drawn, **estimated, "seconds": 0.1} | changes))


def assert_same_state(a, b):
    """Compare the checkpoints of two folders bit for bit, except for wall-clock times."""
    one, other = (load_checkpoint(folder / "checkpoint.npz") for folder in (a, b))
    assert [EpochLog(**e) for e in one.history] == [EpochLog(**e) for e in other.history]
    for part in ("model", "best", "optimizer"):
        for x, y in zip(getattr(one, part), getattr(other, part), strict=True):
            np.testing.assert_array_equal(x, y)
    assert one.sampler.keys() == other.sampler.keys()
    for name, x in one.sampler.items():
        np.testing.assert_array_equal(x, other.sampler[name])


@pytest.mark.parametrize("averaged_epochs", [0.0, 0.8])
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("sampler", ["uniform", "class", "ras"])
def test_steps_equal_those_of_plain_keras(tmp_path, sampler, balanced, averaged_epochs):
    """An epoch without dropout has the loss and the (averaged) weights of Keras's steps with `sample_weight`.

    Keras too divides the weighted loss by the batch size, not by the sum of the weights.
    """
    spec = CnnSpec(filters=(4, 3), kernels=(9, 5), pool=3, dropout=0.0, input_samples=250)
    own_weights = np.random.default_rng(0).uniform(0.5, 2, len(PATIENTS.ecg))
    subset = dataclasses.replace(PATIENTS, weights=own_weights)  # with these groups the gate of "class" is open
    settings = config(epochs=1, sampler=sampler, balanced=balanced, averaged_epochs=averaged_epochs)
    result = train(spec, subset, VALIDATION, settings, tmp_path)

    model = build_model(spec)
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", jit_compile=False)
    y = subset.shockable
    class_weights = np.where(y, len(y) / (2 * y.sum()), len(y) / (2 * (~y).sum())) if balanced else np.ones(len(y))
    class_weights = class_weights * own_weights
    reference = Sampler(sampler, subset.groups)
    if sampler != "uniform":
        features = keras.Model(model.input, model.layers[-2].output).predict(subset.ecg, verbose=0)
        error = np.abs(model.predict(subset.ecg, verbose=0)[:, 0] - y)
        reference.rescore(class_weights * error * np.sqrt(1 + np.sum(features**2, axis=1)))
        assert reference.is_open
    losses, average = [], None
    for indices, weights in zip(*reference.draw((3, 32)), strict=True):
        sample_weight = weights * class_weights[indices]
        ecg, target = subset.ecg[indices][..., np.newaxis], y[indices].astype(float)[:, np.newaxis]
        losses.append(np.sum(sample_weight * keras.losses.binary_crossentropy(target, model(ecg))) / 32)
        model.train_on_batch(ecg, target, sample_weight=sample_weight)
        current, decay = model.get_weights(), np.exp(-1 / (0.8 * 3)) if averaged_epochs else 0.0
        average = [decay * a + (1 - decay) * w for a, w in zip(average or current, current, strict=True)]

    np.testing.assert_allclose(result.history[0].loss, np.mean(losses), rtol=1e-5)
    for a, b in zip(result.load_model().get_weights(), average, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    unaveraged = load_checkpoint(tmp_path / "checkpoint.npz").model
    for a, b in zip(unaveraged[: len(average)], model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


WITHOUT_DROPOUT = CnnSpec(filters=(4, 3), kernels=(9, 5), pool=3, dropout=0.0, input_samples=250)


@pytest.fixture
def draws(monkeypatch):
    """Return the results of all draws of a training."""
    kept = []
    original = Sampler.draw

    def kept_draw(self, shape):
        kept.append(original(self, shape))
        return kept[-1]

    monkeypatch.setattr(Sampler, "draw", kept_draw)
    return kept


def last_layers_gradients(spec, subset, class_weights):
    """Return each window's gradient with respect to the last layer of an untrained network, computed from Keras."""
    model = build_model(spec)
    features = keras.Model(model.input, model.layers[-2].output).predict(subset.ecg, verbose=0).astype(float)
    error = class_weights * (model.predict(subset.ecg, verbose=0)[:, 0] - subset.shockable)
    return error[:, np.newaxis] * np.column_stack([features, np.ones(len(error))])


@pytest.mark.parametrize("sampler", ["uniform", "class", "ras", "obs"])
@pytest.mark.parametrize("balanced", [False, True])
def test_history_describes_the_draws(tmp_path, draws, sampler, balanced):
    """Proportions, Kish's size, gain and effective batch equal those computed batch by batch for constant weights."""
    settings = config(epochs=1, sampler=sampler, balanced=balanced, learning_rate=1e-12, batch_size=6)
    result = train(WITHOUT_DROPOUT, PATIENTS, VALIDATION, settings, tmp_path)
    (log,) = result.history
    indices, weights = (np.concatenate(arrays) for arrays in zip(*draws, strict=True))
    assert indices.shape == (15, 6)
    names = PATIENTS.rhythm[indices].ravel().tolist()
    assert log.drawn == {n: pytest.approx(names.count(n) / 90) for n in ("asystole", "coarse_vf", "normal_sinus")}
    assert log.kish == pytest.approx(np.mean([row.sum() ** 2 / np.sum(row**2) for row in weights]))
    assert log.largest_weight == weights.max()
    assert np.all(weights == 1.0) == (sampler in ("uniform", "obs"))

    if sampler == "obs":
        assert (log.gain, log.effective_batch) == (None, None)
        return
    y = PATIENTS.shockable
    class_weights = np.where(y, 90 / (2 * y.sum()), 90 / (2 * (~y).sum())) if balanced else np.ones(90)
    gradients = last_layers_gradients(WITHOUT_DROPOUT, PATIENTS, class_weights)
    squares, lengths, uniform, weighted = [], [], [], []
    for drawn, w in zip(indices, weights, strict=True):
        g = gradients[drawn]
        # The mean inner product of different draws is an unbiased estimate of the squared norm of the mean gradient.
        pairs = [w[i] * w[j] * g[i] @ g[j] for i in range(6) for j in range(6) if i != j]
        squares.append(np.mean(w * np.sum(g**2, axis=1)))
        lengths.append(np.mean(w * np.linalg.norm(g, axis=1)))
        uniform.append(squares[-1] - np.mean(pairs))
        weighted.append(np.mean(w**2 * np.sum(g**2, axis=1)) - np.mean(pairs))
    assert log.effective_batch == pytest.approx(6 * np.mean(uniform) / np.mean(weighted), rel=1e-3)
    # Dividing by the sum of the weights or by their number differs by chance only.
    assert log.gain == pytest.approx(max(1.0, np.sqrt(np.mean(squares)) / np.mean(lengths)), rel=0.15)
    assert json.loads((tmp_path / "history.json").read_text())["epochs"][0]["gain"] == log.gain


@pytest.mark.parametrize("balanced", [False, True])
def test_sampler_learns_the_norms_of_the_gradients(tmp_path, monkeypatch, balanced):
    """With constant weights the sampler learns the norm of every window's gradient."""
    everything, visited = [], []
    rescore, update = Sampler.rescore, Sampler.update
    monkeypatch.setattr(Sampler, "rescore", lambda self, scores: (everything.append(scores), rescore(self, scores)))
    monkeypatch.setattr(Sampler, "update", lambda self, *told: (visited.append(told), update(self, *told)))
    train(WITHOUT_DROPOUT, VARIED, VALIDATION, config(epochs=3, balanced=balanced, learning_rate=1e-12), tmp_path)
    y = VARIED.shockable
    class_weights = np.where(y, 90 / (2 * y.sum()), 90 / (2 * (~y).sum())) if balanced else np.ones(90)
    gradients = last_layers_gradients(WITHOUT_DROPOUT, VARIED, class_weights)
    expected = np.linalg.norm(gradients, axis=1)
    assert (len(everything), len(visited)) == (2, 3)  # all windows before the first epoch and the third
    for scores in everything:
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-12)
    for indices, scores in visited:
        np.testing.assert_allclose(scores, expected[indices], rtol=1e-4, atol=1e-12)


def test_rescoring_uses_dropout(tmp_path, monkeypatch):
    """With constant weights the scores of two passes over all windows differ only with dropout."""
    passes = []
    rescore = Sampler.rescore
    monkeypatch.setattr(Sampler, "rescore", lambda self, scores: (passes.append(scores), rescore(self, scores)))
    for spec, differ in ((SPEC, True), (WITHOUT_DROPOUT, False)):
        passes.clear()
        changes = {"epochs": 2, "rescore_every": 1, "learning_rate": 1e-12}
        train(spec, VARIED, VALIDATION, config(**changes), tmp_path / str(differ))
        first, second = passes
        assert (np.abs(first - second) > 0.01 * first).any() == differ


def test_result_has_the_best_weights(tmp_path):
    """The loaded model has the best epoch's balanced accuracy and loss, computed again with Keras."""
    seen = []
    result = train(SPEC, TRAINING, VALIDATION, config(epochs=12), tmp_path, on_epoch=seen.append)
    assert tuple(seen) == result.history
    assert [e.epoch for e in result.history] == list(range(1, 13))

    probability = result.load_model().predict(VALIDATION.ecg, verbose=0)[:, 0].astype(float)
    y = VALIDATION.shockable
    balanced_accuracy = (np.mean(probability[y] >= 0.5) + np.mean(probability[~y] < 0.5)) / 2
    loss = -np.mean(np.log(np.where(y, probability, 1 - probability)))
    assert result.best.balanced_accuracy == pytest.approx(balanced_accuracy, abs=1e-12)
    assert result.best.validation_loss == pytest.approx(loss, rel=1e-5)
    assert result.best.balanced_accuracy == max(e.balanced_accuracy for e in result.history) > 0.5

    written = json.loads((tmp_path / "history.json").read_text())
    assert tuple(EpochLog(**e) for e in written["epochs"]) == result.history
    assert written["best_epoch"] == result.best.epoch


def test_best_epoch_prefers_lower_loss_among_equals():
    """Balanced accuracy decides, then the lower loss, then the earlier epoch."""

    def log(epoch, balanced_accuracy, loss):
        return epoch_log(epoch, loss=1.0, validation_loss=loss, balanced_accuracy=balanced_accuracy)

    history = [log(1, 0.8, 0.1), log(2, 0.9, 0.5), log(3, 0.9, 0.3), log(4, 0.9, 0.3), log(5, 0.9, 0.4)]
    assert best_of(history).epoch == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"sampler": "uniform"},
        {"sampler": "uniform", "averaged_epochs": 0.0},
        {"sampler": "class"},
        {"sampler": "ras"},
        {"sampler": "obs"},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_interrupted_run_equals_an_uninterrupted_one(tmp_path, changes):
    """A run interrupted after each of two epochs reaches the same state, bit for bit."""

    def stop(log):
        raise KeyboardInterrupt

    settings = config(epochs=4, seed=7, **changes)
    train(SPEC, PATIENTS, VALIDATION, settings, tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(SPEC, PATIENTS, VALIDATION, settings, tmp_path / "parts", on_epoch=stop)
    train(SPEC, PATIENTS, VALIDATION, settings, tmp_path / "parts")
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


def every_second(seed=8):
    """Return overlapping views of a signal, with weights; half of an epoch's windows are those of a round."""
    parts = examples(30, seed=seed, amplitude_spread=1.5)
    start = np.arange(0, 29 * 250, 125)
    owner = start // 250
    return Examples(
        Views(parts.ecg.ravel(), start, 250), parts.shockable[owner], parts.rhythm[owner],
        weights=np.random.default_rng(1).gamma(1.0, size=len(start)), per_epoch=len(start) // 2,
    )  # fmt: skip


SECONDS = {"every_second": {"windows": 29}, "batch_size": 8, "balanced": True}


@pytest.mark.parametrize("sampler", ["uniform", "weighted", "ras", "presampled"])
def test_every_second_resumes_exactly_and_equals_copied_windows(tmp_path, sampler):
    """Views train like a copy of each window; a run that is interrupted in a round reaches the same state."""
    views = every_second()
    assert views.ecg[:].base is not views.ecg.signal
    np.testing.assert_array_equal(views.ecg[:][7], views.ecg.signal[875:1125])
    copies = dataclasses.replace(views, ecg=views.ecg[:])
    settings = config(epochs=4, sampler=sampler, **SECONDS)
    result = train(SPEC, views, VALIDATION, settings, tmp_path / "views")
    train(SPEC, copies, VALIDATION, settings, tmp_path / "copies")

    class StopError(Exception):
        pass

    def stop(log):
        if log.epoch == 3:
            raise StopError

    with pytest.raises(StopError):
        train(SPEC, views, VALIDATION, settings, tmp_path / "parts", on_epoch=stop)
    train(SPEC, views, VALIDATION, settings, tmp_path / "parts")
    assert_same_state(tmp_path / "views", tmp_path / "copies")
    assert_same_state(tmp_path / "views", tmp_path / "parts")
    # The summary counts the product of both weights, and compares with draws by weight.
    log = result.history[-1]
    assert (log.kish == pytest.approx(8)) == (sampler == "weighted")
    if sampler == "weighted":
        assert (log.largest_weight, log.effective_batch) == (pytest.approx(1), pytest.approx(8))
    with pytest.raises(ValueError, match=r"data.training.sha256"):
        train(SPEC, every_second(seed=9), VALIDATION, settings, tmp_path / "views")


@pytest.mark.parametrize("sampler", ["weighted", "ras", "presampled"])
def test_steps_count_the_objective_and_nothing_else(tmp_path, monkeypatch, sampler):
    """The two weights of a draw together are 1 if windows are drawn by weight, and at most 1/floor with scores."""
    seen = []
    original = TrainSteps.__call__

    def kept(self, indices, weights, first, length):
        seen.append((indices, weights))
        return original(self, indices, weights, first, length)

    monkeypatch.setattr(TrainSteps, "__call__", kept)
    views = every_second()
    train(SPEC, views, VALIDATION, config(epochs=3, sampler=sampler, **SECONDS), tmp_path)
    indices, products = (np.concatenate([array.ravel() for array in arrays]) for arrays in zip(*seen, strict=True))
    assert indices.size == 3 * 4 * 8  # ⌈29 / 8⌉ batches of 8
    classes = np.where(views.shockable, 0.5 / views.shockable.mean(), 0.5 / (~views.shockable).mean())
    products /= np.mean(views.weights * classes)  # the size of the objective
    if sampler == "weighted":
        np.testing.assert_allclose(products, 1.0)
    else:
        assert products.std() > 0.05
        assert products.max() <= 10 * (1 + 1e-9)


@pytest.mark.parametrize("sampler", ["uniform", "class", "ras", "obs"])
def test_runs_with_one_seed_are_equal(tmp_path, sampler):
    """Two runs with one seed agree bit for bit; another seed draws other windows."""
    for folder, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(SPEC, PATIENTS, VALIDATION, config(epochs=2, sampler=sampler, seed=seed), tmp_path / folder)
    assert_same_state(tmp_path / "a", tmp_path / "b")
    one, other = (json.loads((tmp_path / f / "history.json").read_text())["epochs"] for f in "ac")
    assert [e["loss"] for e in one] != [e["loss"] for e in other]


KILLED_RUN = """
import importlib.util, os, signal, sys
from pathlib import Path
from ecg_shock.training import sampler as samplers
from ecg_shock.training import trainer

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
    kill_at_call(os, "fsync", 4)  # history.json on resuming, checkpoint and history, then a checkpoint
trainer.STEPS_PER_CALL = 1
trainer.train(test.SPEC, test.PATIENTS, test.VALIDATION, test.config(seed=7), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    """Killing a run in an epoch, and again while it saves the checkpoint, does not change the final state."""
    monkeypatch.setattr("ecg_shock.training.trainer.STEPS_PER_CALL", 1)
    whole = train(SPEC, PATIENTS, VALIDATION, config(seed=7), tmp_path / "whole")
    assert max(log.largest_weight for log in whole.history[2:]) > 1.5  # scores decide what is drawn after the kill

    killed = tmp_path / "killed"
    for moment, epochs in (("in the middle of an epoch", 2), ("while writing", 3)):
        command = [sys.executable, "-c", KILLED_RUN, __file__, str(killed), moment]
        process = subprocess.run(command, check=False, capture_output=True, text=True)
        assert process.returncode == -signal.SIGKILL, process.stderr
        assert len(load_checkpoint(killed / "checkpoint.npz").history) == epochs
    (torn,) = killed.glob(".checkpoint.npz.*.tmp")
    train(SPEC, PATIENTS, VALIDATION, config(seed=7), killed)
    assert_same_state(tmp_path / "whole", killed)
    assert sorted(p.name for p in killed.iterdir()) == [torn.name, "checkpoint.npz", "history.json", "origin.json"]


def test_finished_run_returns_at_once(tmp_path, monkeypatch):
    """A finished folder gives the same result without building a network, by `train` and by `read_result`."""
    result = train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path)
    monkeypatch.setattr("ecg_shock.training.trainer.build_model", None)
    assert train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path) == result
    assert read_result(tmp_path) == result


def test_unreadable_result_is_refused(tmp_path):
    """A missing checkpoint, and one of another version, are errors that name it and say what to do."""
    with pytest.raises(FileNotFoundError, match=r"checkpoint\.npz is missing.*delete .* to train again"):
        read_result(tmp_path)
    train(SPEC, TRAINING, VALIDATION, config(epochs=1), tmp_path)
    path = tmp_path / "checkpoint.npz"
    checkpoint = load_checkpoint(path)
    save_checkpoint(path, dataclasses.replace(checkpoint, run=checkpoint.run | {"format": 3}))
    with pytest.raises(ValueError, match=r"checkpoint\.npz has format 3, but this version of the package reads 4"):
        read_result(tmp_path)
    with pytest.raises(ValueError, match="format: 3 in the folder, 4 now"):
        train(SPEC, TRAINING, VALIDATION, config(epochs=1), tmp_path)


def test_raised_epochs_equal_one_long_run(tmp_path):
    """A run of three epochs that is raised to five equals one run of five."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=3, patience=4), tmp_path / "raised")
    train(SPEC, TRAINING, VALIDATION, config(epochs=5), tmp_path / "raised")
    train(SPEC, TRAINING, VALIDATION, config(epochs=5), tmp_path / "once")
    assert_same_state(tmp_path / "raised", tmp_path / "once")


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    """Another network, setting or window is an error with the old and the new value; the folder is unchanged."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=2, patience=2), tmp_path)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    ecg = VALIDATION.ecg.copy()
    ecg[3, 5] += 1e-3
    changed = Examples(ecg, VALIDATION.shockable, VALIDATION.rhythm)
    regrouped = Examples(TRAINING.ecg, TRAINING.shockable, TRAINING.rhythm, TRAINING.groups + 1)
    renamed = Examples(TRAINING.ecg, TRAINING.shockable, np.char.add(TRAINING.rhythm, "2"), TRAINING.groups)
    wider = CnnSpec(filters=(4, 4), kernels=(9, 5), pool=3, input_samples=250)
    same = config(epochs=2, patience=2)
    for arguments, message in [
        ((wider, TRAINING, VALIDATION, same), r"network.filters: \[4, 3\] in the folder, \[4, 4\] now"),
        ((SPEC, TRAINING, VALIDATION, config(epochs=2, patience=2, learning_rate=0.02)), "learning_rate: 0.01 .* 0.02"),
        ((SPEC, TRAINING, VALIDATION, config(epochs=1, patience=2)), "config.epochs: 2 in the folder, 1 now"),
        ((SPEC, TRAINING, VALIDATION, config(epochs=3, patience=1)), "config.patience: 2 in the folder, 1 now"),
        ((SPEC, TRAINING, changed, same), "data.validation.sha256"),
        ((SPEC, regrouped, VALIDATION, same), "data.training.sha256"),
        ((SPEC, renamed, VALIDATION, same), "data.training.sha256"),
        (
            (SPEC, TRAINING, VALIDATION, config(epochs=2, patience=2, sampler="class")),
            "config.sampler: 'ras' .* 'class'",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            train(*arguments, tmp_path)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_patience_stops_and_may_be_raised(tmp_path):
    """Training stops after `patience` epochs without a better one, and not earlier."""
    result = train(SPEC, TRAINING, VALIDATION, config(epochs=60, patience=2, learning_rate=1e-9), tmp_path)
    best = [best_of(result.history[:n]).epoch for n in range(1, len(result.history) + 1)]
    waits = [n - b for n, b in enumerate(best, start=1)]
    assert waits[-1] == 2 or len(result.history) == 60
    assert max(waits[:-1]) < 2
    longer = train(SPEC, TRAINING, VALIDATION, config(epochs=len(best) + 1, learning_rate=1e-9), tmp_path / "never")
    assert len(longer.history) == len(best) + 1


def test_divergence_stops_and_keeps_the_best(tmp_path, monkeypatch):
    """A loss of NaN is an error that says what is kept; the earlier epochs can be loaded and the run resumed."""
    original = Sampler.draw

    def poisoned(self, shape):
        indices, weights = original(self, shape)
        return indices, weights * np.where(poisoned.calls > 2, np.nan, 1.0)

    poisoned.calls = 0

    def count(log):
        poisoned.calls = log.epoch + 1

    with monkeypatch.context() as patch:
        patch.setattr(Sampler, "draw", poisoned)
        with pytest.raises(DivergedError, match=r"epoch 3 is not finite.*keeps epoch [12] \(balanced accuracy"):
            train(SPEC, TRAINING, VALIDATION, config(), tmp_path / "a", on_epoch=count)
    assert len(json.loads((tmp_path / "a" / "history.json").read_text())["epochs"]) == 2
    assert np.isfinite(read_result(tmp_path / "a").load_model().predict(VALIDATION.ecg, verbose=0)).all()

    train(SPEC, TRAINING, VALIDATION, config(), tmp_path / "a")
    train(SPEC, TRAINING, VALIDATION, config(), tmp_path / "b")
    assert_same_state(tmp_path / "a", tmp_path / "b")


def test_divergence_in_the_first_epoch(tmp_path):
    """A learning rate far too high is an error that says that there is no complete epoch."""
    with pytest.raises(DivergedError, match="epoch 1 .*has no complete epoch"):
        train(SPEC, TRAINING, VALIDATION, config(learning_rate=1e30), tmp_path)


def test_damaged_checkpoint_is_refused(tmp_path):
    """A damaged checkpoint is an error that names it, and is not overwritten."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=1), tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"checkpoint\.npz is damaged"):
        train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path)
    assert path.stat().st_size == 5000


@pytest.mark.parametrize("kind", [True, False])
def test_subsets_need_both_classes(tmp_path, kind):
    """A subset of one class is an error that names the missing class, before anything is written."""
    keep = kind == VALIDATION.shockable
    subset = Examples(VALIDATION.ecg[keep], VALIDATION.shockable[keep], VALIDATION.rhythm[keep])
    missing = "nonshockable" if kind else "shockable"
    with pytest.raises(ValueError, match=f"validation subset has .* none is {missing}"):
        train(SPEC, TRAINING, subset, config(), tmp_path / "a")
    with pytest.raises(ValueError, match=f"training subset has .* none is {missing}"):
        train(SPEC, subset, VALIDATION, config(), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_windows_of_another_length_are_refused(tmp_path):
    """Windows that do not fit the network's input are an error that gives both lengths."""
    with pytest.raises(ValueError, match="training windows have 250 samples, but the network takes 625"):
        train(CnnSpec(filters=(4,), kernels=(9,)), TRAINING, VALIDATION, config(), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ecg": np.zeros(8)}, r"shapes \(8,\)"),
        ({"ecg": np.zeros((7, 250))}, r"\(N, samples\)"),
        ({"groups": np.zeros((8, 1), int)}, r"\(8, 1\)"),
        ({"rhythm": np.full(7, "asystole")}, r"\(7,\)"),
        ({"shockable": np.zeros(8)}, "must be bool"),
        ({"groups": np.zeros(8)}, "must be integer"),
        ({"ecg": np.full((8, 250), np.nan)}, "8 windows have samples that are not finite, first 0"),
        ({"ecg": np.zeros((0, 250)), "shockable": np.zeros(0, bool), "rhythm": [], "groups": None}, "at least one"),
    ],
)
def test_wrong_examples_are_refused(change, message):
    """Arrays of different lengths, wrong types, or samples that are not finite are errors."""
    good = {"ecg": np.zeros((8, 250)), "shockable": np.zeros(8, bool), "rhythm": np.full(8, "asystole")}
    good["groups"] = np.zeros(8, int)
    with pytest.raises(ValueError, match=message):
        Examples(**(good | change))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"averaged_epochs": -1},
        {"sampler": "RAS"},
        {"sampler": "instance"},
        {"score": "error"},
        {"groups": "patient"},
        {"groups": "rhythm-database"},
        {"groups": None},
        {"patience": 0},
        {"floor": 0},
        {"floor": 1.1},
        {"stratified": True},
        {"scale_learning_rate": True},
        {"rescore_every": 0},
        {"seed": -1},
        {"epoch": 5},
    ],
)
def test_wrong_configurations_are_refused(change):
    """Values out of range and unknown names are errors."""
    with pytest.raises(ValidationError):
        TrainingConfig(**change)


def test_augmentation_and_every_second_exclude_each_other():
    """Both at once is an error, and so is an unknown field."""
    with pytest.raises(ValueError, match="augmentation and every_second exclude each other"):
        TrainingConfig(augmentation={}, every_second={})
    with pytest.raises(ValueError, match="every_second.step"):
        TrainingConfig(every_second={"step": 2})


def test_removed_settings_are_accepted_with_their_default_only():
    """A card or study of an older version is read if its removed settings have their default; others are errors."""
    old = {"score": "gradient", "stratified": False, "scale_learning_rate": False, "sampler": "ras", "epochs": 7}
    assert TrainingConfig.model_validate(old) == TrainingConfig(sampler="ras", epochs=7)
    changes = {"stratified": True, "score": "error", "scale_learning_rate": True, "sampler": "instance"}
    for name, value in (changes | {"groups": "rhythm-database"}).items():
        with pytest.raises(ValidationError, match=f"{name} = {value!r} is not supported any more"):
            TrainingConfig.model_validate(old | {name: value})


def test_groups_are_the_rhythms_unless_given():
    """By default the windows of one rhythm are a group; given groups are kept."""
    for i, j in np.ndindex(90, 90):
        assert (TRAINING.groups[i] == TRAINING.groups[j]) == (TRAINING.rhythm[i] == TRAINING.rhythm[j])
    groups = np.arange(90) - 100
    np.testing.assert_array_equal(Examples(VARIED.ecg, VARIED.shockable, VARIED.rhythm, groups).groups, groups)


def test_origin_is_that_of_the_first_epoch(tmp_path):
    """A folder keeps the versions that began the training, even if others finish it."""
    train(SPEC, TRAINING, VALIDATION, config(epochs=1), tmp_path)
    origin = json.loads((tmp_path / "origin.json").read_text(encoding="utf-8"))
    assert set(origin) == {"commit", "versions"}
    assert "numpy" in origin["versions"]
    (tmp_path / "origin.json").write_text('{"commit": "earlier", "versions": {}}', encoding="utf-8")
    train(SPEC, TRAINING, VALIDATION, config(epochs=2), tmp_path)
    assert json.loads((tmp_path / "origin.json").read_text(encoding="utf-8"))["commit"] == "earlier"


class Drawn:
    """Windows that are drawn anew for each epoch."""

    def describe(self):
        """Return the name of the source."""
        return {"name": "drawn"}

    def draw(self, epoch):
        """Return other windows in each epoch."""
        return examples(90, seed=100 + epoch)


DRAWN = {"sampler": "uniform", "schedule": "cosine", "lengths_s": (2.0,)}


def test_windows_that_are_drawn_resume_exactly(tmp_path):
    """A run on drawn windows that stops after two of four epochs reaches the same weights; each epoch is drawn once."""
    whole = train(SPEC, Drawn(), VALIDATION, config(epochs=4, **DRAWN), tmp_path / "whole")

    class StopError(Exception):
        pass

    def stop(log):
        if log.epoch == 2:
            raise StopError

    with pytest.raises(StopError):
        train(SPEC, Drawn(), VALIDATION, config(epochs=4, **DRAWN), tmp_path / "parts", on_epoch=stop)
    resumed = train(SPEC, Drawn(), VALIDATION, config(epochs=4, **DRAWN), tmp_path / "parts")
    assert resumed.history == whole.history
    for one, other in zip(resumed.load_model().get_weights(), whole.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_cosine_ends_at_zero(tmp_path):
    """The last epoch changes the weights much less than with a constant rate; more epochs are another run."""

    def last_change(schedule):
        settings = config(epochs=6, averaged_epochs=0.0, **DRAWN | {"schedule": schedule})
        weights = []

        def collect(log):
            model = load_checkpoint(tmp_path / schedule / "checkpoint.npz").model
            weights.append(np.concatenate([v.ravel() for v in model if v.dtype == np.float32]))

        train(SPEC, TRAINING, VALIDATION, settings, tmp_path / schedule, on_epoch=collect)
        return np.linalg.norm(weights[-1] - weights[-2])

    assert last_change("cosine") < 0.3 * last_change("constant")
    with pytest.raises(ValueError, match=r"config.epochs: 6 in the folder, 7 now"):
        train(SPEC, TRAINING, VALIDATION, config(epochs=7, averaged_epochs=0.0, **DRAWN), tmp_path / "cosine")


def test_drawn_windows_need_uniform_sampling(tmp_path):
    """Scores of windows that change mean nothing; lengths above that of the windows are refused."""
    with pytest.raises(ValueError, match="sampler='ras' needs the same windows"):
        train(SPEC, Drawn(), VALIDATION, config(), tmp_path)
    with pytest.raises(ValueError, match=r"lengths_s is \(3.0,\)"):
        train(SPEC, TRAINING, VALIDATION, config(lengths_s=(3.0,)), tmp_path)


def test_shorter_parts_are_trained_on(monkeypatch):
    """The part of a window that a step trains on has one of the lengths, and lies anywhere in the window."""
    rng = np.random.default_rng(0)
    drawn = {_draw_cut([250, 625], 625, rng) for _ in range(2000)}
    assert {length for _, length in drawn} == {250, 625}
    assert {first for first, length in drawn if length == 625} == {0}
    firsts = [first for first, length in drawn if length == 250]
    assert min(firsts) < 10
    assert max(firsts) > 365
