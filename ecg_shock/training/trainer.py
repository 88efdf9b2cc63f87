"""Train a network with importance sampling, keep the best epoch by balanced accuracy, and resume exactly."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ecg_shock.data.augment import Augmentation
from ecg_shock.data.strips import EverySecond
from ecg_shock.files import commit, flatten, versions, write_text
from ecg_shock.models.bundle import logit_of
from ecg_shock.models.cnn import CnnSpec, build_model, import_keras
from ecg_shock.preprocessing import FS, MIN_WINDOW_S
from ecg_shock.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ecg_shock.training.draws import Draws, DrawSummary
from ecg_shock.training.examples import Examples, ExampleSource, FixedExamples, check_subset, describe_examples, digest
from ecg_shock.training.sampler import (
    BIASED,
    DEFAULT_FLOOR,
    FROM_BASE,
    MIN_FLOOR,
    SCORE_HALF_LIFE_EPOCHS,
    Sampler,
    gradient_scores,
)
from ecg_shock.training.steps import TrainSteps, compile_inference

if TYPE_CHECKING:
    import keras

logger = logging.getLogger(__name__)

CHECKPOINT_NAME = "checkpoint.npz"
HISTORY_NAME = "history.json"
ORIGIN_NAME = "origin.json"
CHECKPOINT_FORMAT = 4  # must be increased if an old run would be resumed differently
THRESHOLD = 0.5  # probability for the balanced accuracy during training
# Steps in one call of TensorFlow. Fewer steps are slower; with more, the sampler uses older scores.
STEPS_PER_CALL = 8
# With `every_second`, an update of the scores takes as long as some steps, and a window is not soon drawn again.
STEPS_PER_UPDATE = 32
SCORE_HALF_LIFE_DRAWS = 30_000  # with `every_second`, where a round of all windows takes too long to learn from
Groups = Literal["rhythm", "rhythm-patient"]
# Settings that may be raised when a run is resumed.
RAISABLE = ("epochs", "patience")
# Settings of older versions. A card or study may still have them if their value is the current behaviour, given here.
REMOVED_SETTINGS = {"score": "gradient", "stratified": False, "scale_learning_rate": False}
REMOVED_VALUES = {"sampler": "instance", "groups": "rhythm-database"}


class TrainingConfig(BaseModel):
    """Settings of a training run.

    Parameters
    ----------
    epochs : int
        Maximum number of epochs. The paper uses 400.
    batch_size : int
        Number of windows in a step, at least 2.
    learning_rate : float
        Learning rate of Adam.
    averaged_epochs : float
        Time constant, in epochs, of an exponential moving average of the weights. The averaged weights are evaluated
        and saved; training continues with the weights themselves. 0 for no averaging.
    sampler : {"uniform", "weighted", "class", "ras", "presampled", "obs"}
        How windows are drawn, see `ecg_shock.training.sampler`.
    groups : {"rhythm", "rhythm-patient"}
        Which windows form a group for the sampler: all windows of an AHA class, or the windows of an AHA class in one
        patient.
    balanced : bool
        Whether both classes have the same total weight in the loss; a window then has the weight N/(2 N_class).
        Otherwise all windows have the same weight.
    patience : int or None
        Number of epochs without improvement after which training stops; None to train all epochs.
    floor : float
        Proportion of windows that an adaptive sampler draws uniformly, or, with `every_second`, in proportion to the
        windows' weights. Importance weights are at most 1/floor.
    rescore_every : int
        Number of epochs after which a forward pass over all training windows renews the scores. They are first scored
        before the first epoch or, with `every_second`, after `rescore_every` epochs.
    schedule : {"constant", "cosine"}
        Learning rate over the training: constant, or falling to 0 along half a cosine.
    lengths_s : tuple of float
        Lengths in seconds to which training windows are cut, at most the length of the windows. For every 8 steps, a
        length is drawn at random, and the windows are cut to a random part of this length. If empty, windows are not
        cut.
    augmentation : Augmentation or None
        How `ecg_shock.training.fold.TrainingFold` draws and changes the training windows of each epoch. If None, all
        epochs have the same windows.
    every_second : EverySecond or None
        Train on every second of the training patients' recordings, without augmentation; None for the windows of
        `DataConfig`.
    calibrated : bool
        Whether `ecg_shock.training.fold.TrainingFold.write_bundle` calibrates the probabilities on the validation
        patients. This changes no decision.
    seed : int
        Seed of the initial weights, the dropout, the sampler and the augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=400, ge=1)
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    averaged_epochs: float = Field(default=0.25, ge=0)
    sampler: Literal["uniform", "weighted", "class", "ras", "presampled", "obs"] = (
        "uniform"  # ras, class and obs are not better on the windows of DataConfig, see tuning/results/sampling
    )
    groups: Groups = "rhythm"
    balanced: bool = True
    patience: int | None = Field(default=None, ge=1)
    floor: float = Field(default=DEFAULT_FLOOR, ge=MIN_FLOOR, le=1)
    rescore_every: int = Field(default=10, ge=1)
    schedule: Literal["constant", "cosine"] = "constant"
    lengths_s: tuple[Annotated[float, Field(ge=MIN_WINDOW_S)], ...] = ()
    augmentation: Augmentation | None = None
    every_second: EverySecond | None = None
    calibrated: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _drop_removed_settings(cls, settings: Any) -> Any:
        if not isinstance(settings, Mapping):
            return settings
        for name, default in REMOVED_SETTINGS.items():
            if settings.get(name, default) != default:
                raise ValueError(
                    f"{name} = {settings[name]!r} is not supported any more; the only allowed value is {default!r}"
                )
        for name, removed in REMOVED_VALUES.items():
            if settings.get(name) == removed:
                raise ValueError(f"{name} = {removed!r} is not supported any more; choose another value")
        return {name: value for name, value in settings.items() if name not in REMOVED_SETTINGS}

    @model_validator(mode="after")
    def _has_one_kind_of_windows(self) -> TrainingConfig:
        if self.augmentation and self.every_second:
            raise ValueError("augmentation and every_second exclude each other; remove one of them")
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Start:
    """Weights of a trained network to start from, in place of random ones.

    Parameters
    ----------
    weights : list of numpy.ndarray
        The weights, as `keras.Model.get_weights` returns them. The trained network and the new network must have the
        same blocks.
    frozen_blocks : int
        Number of blocks, counted from the first, whose weights are not trained.
    """

    weights: list[np.ndarray]
    frozen_blocks: int = 0

    def __repr__(self) -> str:
        return f"Start({digest(*self.weights)!r}, frozen_blocks={self.frozen_blocks})"


@dataclass(frozen=True)
class EpochLog:
    """The results of an epoch.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    loss : float
        Mean weighted loss of the epoch's batches, with dropout.
    validation_loss : float
        Mean loss of the validation windows, without dropout. If `balanced`, both classes have the same total weight.
    sensitivity, specificity, balanced_accuracy : float
        On the validation windows at probability 0.5, from 0 to 1; NaN if there are no validation windows.
    drawn, kish, largest_weight, gain, effective_batch
        See `DrawSummary`; the gradient is that of the last layer. With `every_second`, and for the samplers "weighted"
        and "presampled", w includes the window's weight in the loss, and the draws are compared with those in
        proportion to these weights instead of uniform ones. `gain` and `effective_batch` are None for the sampler
        "obs".
    seconds : float
        Wall-clock time of the epoch. It is ignored when two logs are compared.
    """

    epoch: int
    loss: float
    validation_loss: float
    sensitivity: float
    specificity: float
    balanced_accuracy: float
    drawn: dict[str, float]
    kish: float
    largest_weight: float
    gain: float | None
    effective_batch: float | None
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training run.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the checkpoint and the history.
    spec : CnnSpec
        The network.
    config : TrainingConfig
        The settings.
    history : tuple of EpochLog
        The logs of all epochs, in order.
    """

    folder: Path
    spec: CnnSpec
    config: TrainingConfig
    history: tuple[EpochLog, ...]

    @property
    def best(self) -> EpochLog:
        """The log of the best epoch, see `best_of`."""
        return best_of(self.history)

    def load_model(self) -> keras.Model:
        """Return the network with the weights of the best epoch.

        Returns
        -------
        keras.Model
            Its input is windows in mV, shape (batch, samples, 1). Its output is the probability of shockable, shape
            (batch, 1).
        """
        model = build_model(self.spec)
        _assign(model.variables, load_checkpoint(self.folder / CHECKPOINT_NAME).best)
        return model


class DivergedError(ValueError):
    """Raised if a loss is not finite, so that training cannot continue."""


def train(
    spec: CnnSpec,
    training: Examples | ExampleSource,
    validation: Examples | None,
    config: TrainingConfig,
    folder: Path,
    *,
    start: Start | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> TrainingResult:
    """Train a network, or resume a run in the same folder.

    The state is saved in `folder` after every epoch. After an interruption, the next call resumes from the last
    complete epoch. On the same machine, with the same versions and number of threads, it reaches exactly the same
    weights and history as without the interruption. If the run in the folder is finished, its result is returned.

    Parameters
    ----------
    spec : CnnSpec
        The network.
    training : Examples or ExampleSource
        Windows for training, of both classes: the same windows in all epochs, or new windows in each epoch.
    validation : Examples or None
        Windows of other patients on which the epoch is chosen, of both classes. If None, the last epoch is kept.
    config : TrainingConfig
        The settings.
    folder : pathlib.Path
        Folder for ``checkpoint.npz``, ``history.json`` and ``origin.json`` (commit and versions); created if missing.
    start : Start, optional
        Weights to start from; random weights if not given.
    on_epoch : callable, optional
        Called with the `EpochLog` of each new epoch, after its state has been saved.

    Raises
    ------
    ValueError
        If `training` is an `ExampleSource` and the sampler is not "uniform"; if a length in `lengths_s` is longer than
        the windows; if a subset has only one class; if the windows do not fit the network's input; if the checkpoint is
        damaged; or if the folder holds a run with other settings or data (`epochs` and `patience` may be raised).
    DivergedError
        If a loss is not finite. The folder keeps the earlier epochs, see `read_result`.

    Notes
    -----
    An epoch has ⌈N / batch_size⌉ full batches, where N is the number of windows, or `Examples.per_epoch`. With uniform
    sampling the last batch is completed from the next shuffled round, so that all steps have the same size and every
    window is drawn once in each round.

    Each step minimises Σ w_i c_i l_i / B over the B windows drawn, where l is the binary cross-entropy, c the class
    weight (`balanced`) and w the importance weight. The forward pass of each batch gives new scores of the windows
    drawn. In the first epoch, and then every `rescore_every` epochs, a forward pass gives new scores of all windows.
    Both passes use dropout, like the gradient.

    After each epoch the moving average of the weights (`averaged_epochs`) is evaluated. The average of the best epoch
    is kept.
    """
    folder = Path(folder)
    if isinstance(training, Examples):
        check_subset("training", training, spec)
        source: ExampleSource = FixedExamples(training)
    elif config.sampler == "uniform":
        source = training
    else:
        raise ValueError(
            f"sampler={config.sampler!r} needs the same windows in all epochs, but augmentation draws new windows; "
            "use sampler='uniform', or train without augmentation"
        )
    if validation is not None:
        check_subset("validation", validation, spec)
    lengths = [round(length_s * FS) for length_s in config.lengths_s] or [spec.input_samples]
    if max(lengths) > spec.input_samples:
        raise ValueError(
            f"lengths_s is {config.lengths_s!r}, but the windows are only {spec.input_samples / FS:g} s long; remove "
            "the longer lengths, or use longer windows"
        )
    run = _describe_run(spec, source, validation, config)
    if start is not None:
        run["start"] = {"sha256": digest(*start.weights), "frozen_blocks": start.frozen_blocks}

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, history = _resume(folder, run)
    if checkpoint is None:  # written now, because the versions may change before the bundle is written
        write_text(folder / ORIGIN_NAME, json.dumps({"commit": commit(), "versions": versions()}, indent=1))
    if _is_finished(history, config):
        return TrainingResult(folder, spec, config, tuple(history))

    model = build_model(spec, seed=config.seed)
    drawn_epoch = len(history) + 1
    examples = source.draw(drawn_epoch)
    check_subset("training", examples, spec)
    batches = math.ceil(examples.per_epoch / config.batch_size)
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = import_keras().optimizers.schedules.CosineDecay(rate, config.epochs * batches)
    if start is not None:
        model.set_weights(start.weights)
        for block in range(start.frozen_blocks):
            model.get_layer(f"conv_{block + 1}").trainable = False
    averaged = config.averaged_epochs > 0
    optimizer = import_keras().optimizers.Adam(
        rate,
        use_ema=averaged,
        ema_momentum=math.exp(-1.0 / (config.averaged_epochs * batches)) if averaged else 0.0,
    )
    optimizer.build(model.trainable_variables)
    # Without every_second, the floor of the samplers that were raced is uniform, so that earlier runs can be resumed.
    by_weight = config.every_second is not None or config.sampler in FROM_BASE
    objective = examples.weights * _class_weights(examples.shockable, config.balanced) if by_weight else None
    half_life = SCORE_HALF_LIFE_DRAWS / len(examples.ecg) if config.every_second else SCORE_HALF_LIFE_EPOCHS
    sampler = Sampler(
        config.sampler,
        examples.groups,
        weights=objective,
        floor=config.floor,
        half_life=half_life,
        seed=config.seed,
    )
    best_variables: list[np.ndarray] = []
    if checkpoint is not None:
        best_variables = checkpoint.best
        _assign(model.variables, checkpoint.model)
        _assign(optimizer.variables, checkpoint.optimizer)
        sampler.restore(checkpoint.sampler)

    steps_per_call = STEPS_PER_UPDATE if config.every_second and sampler.learns else STEPS_PER_CALL
    train_steps = TrainSteps(model, optimizer)
    loaded: Examples | None = None
    infer, infer_with_dropout = compile_inference(model), compile_inference(model, dropout=True)

    while not _is_finished(history, config):
        started = time.perf_counter()
        epoch = len(history) + 1
        if epoch != drawn_epoch:
            examples, drawn_epoch = source.draw(epoch), epoch
        if examples is not loaded:
            train_steps.load(examples.ecg, examples.targets)
            class_weights = examples.weights * _class_weights(examples.shockable, config.balanced)
            loaded = examples
        cuts = np.random.default_rng([config.seed, epoch])
        is_due = (epoch - 1) % config.rescore_every == 0 and (epoch > 1 or config.every_second is None)
        if sampler.learns and is_due:
            sampler.rescore(gradient_scores(*infer_with_dropout(examples.ecg), examples.shockable, class_weights))
        losses: list[float] = []
        draws = Draws(examples.rhythm)
        for first in range(0, batches, steps_per_call):
            steps = min(steps_per_call, batches - first)
            shape = (steps, config.batch_size)
            if sampler.presamples:
                some = sampler.draw_candidates(shape)
                fresh = infer_with_dropout(examples.ecg[some])
                scores = gradient_scores(*fresh, examples.shockable[some], class_weights[some])
                indices, weights = sampler.choose(some, scores, shape)
            else:
                indices, weights = sampler.draw(shape)
            drawn_class_weights = class_weights[indices]
            step_losses, logits, squared_norms, squared_sums = train_steps(
                indices, weights * drawn_class_weights, *_draw_cut(lengths, spec.input_samples, cuts)
            )
            if not np.isfinite(step_losses).all():
                raise _divergence_error(epoch, step_losses, history, config, folder)
            losses.extend(step_losses)
            scores = gradient_scores(logits, squared_norms, examples.shockable[indices], drawn_class_weights)
            counted = drawn_class_weights / class_weights.mean() if by_weight else 1.0
            draws.add(indices, weights * counted, scores / counted, squared_sums)
            if sampler.learns:
                sampler.update(indices, scores)
        variables = _values(model.variables)
        if averaged:
            optimizer.finalize_variable_values(model.trainable_variables)
        averages = _values(model.variables)
        score = _Score() if validation is None else _score(infer(validation.ecg)[0], validation.shockable, config)
        _assign(model.variables, variables)
        log = _epoch_log(epoch, losses, draws.summary(), score, config, started)
        if validation is not None and not math.isfinite(log.validation_loss):
            raise _divergence_error(epoch, log.validation_loss, history, config, folder)

        history.append(log)
        if best_of(history) is log:
            best_variables = averages
        save_checkpoint(
            folder / CHECKPOINT_NAME,
            Checkpoint(
                run=run,
                history=[asdict(e) for e in history],
                model=variables,
                best=best_variables,
                optimizer=_values(optimizer.variables),
                sampler=sampler.state(),
            ),
        )
        _write_history(folder, history)
        if on_epoch is not None:
            on_epoch(log)

    return TrainingResult(folder, spec, config, tuple(history))


def _draw_cut(lengths: Sequence[int], samples: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the first sample and the length, in samples, of the part of each window that the next steps train on."""
    length = lengths[int(rng.integers(len(lengths)))]
    return int(rng.integers(samples - length + 1)), length


def read_result(folder: Path) -> TrainingResult:
    """Read the result of a training run from its folder. The run need not be finished.

    Raises
    ------
    FileNotFoundError
        If the folder holds no checkpoint.
    ValueError
        If the checkpoint is damaged, or was written by an incompatible version of this package.
    """
    path = Path(folder) / CHECKPOINT_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, so there are no trained weights; delete {folder} to train again")
    checkpoint = load_checkpoint(path)
    found = checkpoint.run.get("format")
    if found != CHECKPOINT_FORMAT:
        raise ValueError(
            f"{path} has format {found}, but this version of the package reads {CHECKPOINT_FORMAT}; "
            f"use the version that wrote it, or delete {folder} to train again"
        )
    return TrainingResult(
        folder=Path(folder),
        spec=CnnSpec(**checkpoint.run["network"]),
        config=TrainingConfig.model_validate(checkpoint.run["config"]),
        history=tuple(EpochLog(**epoch) for epoch in checkpoint.history),
    )


def best_of(history: Sequence[EpochLog]) -> EpochLog:
    """Return the epoch with the highest balanced accuracy and, among equals, the lowest validation loss.

    Without validation windows, this is the last epoch.
    """
    if math.isnan(history[-1].balanced_accuracy):
        return history[-1]
    return max(history, key=lambda e: (e.balanced_accuracy, -e.validation_loss))


def _resume(folder: Path, run: dict[str, Any]) -> tuple[Checkpoint | None, list[EpochLog]]:
    path = folder / CHECKPOINT_NAME
    if not path.exists():
        return None, []
    checkpoint = load_checkpoint(path)
    _check_same_run(checkpoint.run, run, folder)
    history = [EpochLog(**epoch) for epoch in checkpoint.history]
    _write_history(folder, history)  # the run may have been killed after saving the checkpoint
    logger.info("%s holds %d epochs", folder, len(history))
    return checkpoint, history


def _class_weights(shockable: np.ndarray, balanced: bool) -> np.ndarray:
    """Return each window's weight in the objective, shape (N,): N/(2 N_class) if balanced, else 1."""
    if not balanced:
        return np.ones(len(shockable))
    counts = np.bincount(shockable, minlength=2)
    return (len(shockable) / (2.0 * counts))[shockable.astype(int)]


@dataclass(frozen=True)
class _Score:
    """The results on the validation windows; NaN if there are no validation windows."""

    validation_loss: float = math.nan
    sensitivity: float = math.nan
    specificity: float = math.nan


def _score(logits: np.ndarray, shockable: np.ndarray, config: TrainingConfig) -> _Score:
    towards_label = np.where(shockable, logits, -logits).astype(np.float64)
    cross_entropy = np.logaddexp(0.0, -towards_label)
    shock = logits >= logit_of(THRESHOLD)
    return _Score(
        validation_loss=float(np.mean(_class_weights(shockable, config.balanced) * cross_entropy)),
        sensitivity=float(shock[shockable].mean()),
        specificity=float((~shock[~shockable]).mean()),
    )


def _epoch_log(
    epoch: int,
    losses: Sequence[float],
    draws: DrawSummary,
    score: _Score,
    config: TrainingConfig,
    started: float,
) -> EpochLog:
    drawn = asdict(draws)
    if config.sampler in BIASED:  # these draws estimate the gradient of another objective
        drawn |= {"gain": None, "effective_batch": None}
    return EpochLog(
        epoch=epoch,
        loss=float(np.mean(losses, dtype=np.float64)),
        **asdict(score),
        balanced_accuracy=(score.sensitivity + score.specificity) / 2,
        **drawn,
        seconds=time.perf_counter() - started,
    )


def _is_finished(history: Sequence[EpochLog], config: TrainingConfig) -> bool:
    if not history:
        return False
    waited = len(history) - best_of(history).epoch
    return len(history) >= config.epochs or (config.patience is not None and waited >= config.patience)


def _divergence_error(
    epoch: int, loss: Any, history: Sequence[EpochLog], config: TrainingConfig, folder: Path
) -> DivergedError:
    kept = f"{folder} has no complete epoch"
    if history:
        best = best_of(history)
        kept = f"{folder} keeps epoch {best.epoch} (balanced accuracy {best.balanced_accuracy:.4f})"
    return DivergedError(
        f"the loss of epoch {epoch} is not finite: {loss}, at a learning rate of {config.learning_rate}; {kept}. "
        "Train in another folder with a lower learning rate, and look for windows of extreme amplitude"
    )


def _describe_run(
    spec: CnnSpec, training: ExampleSource, validation: Examples | None, config: TrainingConfig
) -> dict[str, Any]:
    """Return what identifies a run, as JSON types: the network, the settings and the digests of the data."""
    data = {"training": training.describe(), "validation": describe_examples(validation) if validation else {}}
    run = {"format": CHECKPOINT_FORMAT, "network": spec.to_dict(), "config": config.model_dump(), "data": data}
    return json.loads(json.dumps(run))


def _check_same_run(stored: dict[str, Any], current: dict[str, Any], folder: Path) -> None:
    before, now = flatten(stored), flatten(current)
    differences = [
        f"{name}: {before.get(name)!r} in the folder, {now.get(name)!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
        # The cosine ends with the last epoch, so a longer run does not begin like a shorter one.
        and not (_is_raised(name, before.get(name), now.get(name)) and now.get("config.schedule") == "constant")
    ]
    if differences:
        raise ValueError(
            f"{folder} holds a training run with other settings or data; use another folder, or undo the differences "
            f"({' and '.join(RAISABLE)} may be raised):\n  " + "\n  ".join(differences)
        )


def _is_raised(name: str, before: int | None, now: int | None) -> bool:
    """Return whether a setting is higher than before and may be raised; None, which means no limit, is the highest."""
    if name.removeprefix("config.") not in RAISABLE:
        return False
    return now is None or (before is not None and now > before)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [variable.numpy().copy() for variable in variables]


def _assign(variables: Sequence[Any], arrays: Sequence[np.ndarray]) -> None:
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _write_history(folder: Path, history: Sequence[EpochLog]) -> None:
    best = best_of(history)
    text = json.dumps({"best_epoch": best.epoch, "epochs": [asdict(e) for e in history]}, indent=1)
    write_text(folder / HISTORY_NAME, text)
