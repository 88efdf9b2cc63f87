"""Race the samplers on real windows: `python tuning/results/sampling/race.py`, some hours on two cores.

The results beside this file hold variants that have been removed since; a new run writes into a folder of its own.

The published network on public-v1, fold 0: 61 patients to train on, 22 to measure with; the test patients are not
looked at. Two objectives, the databases' own class prior and the balanced one. Stages:

1. *choose*: each sampler with every batch size and learning rate of the grid, two seeds; its own best is the setting of
   the highest validation balanced accuracy, mean over all epochs and seeds. It rewards speed and level alike, and the
   seeds are not raced with.
2. *race*: each sampler at its own best, and ras at uniform's best, with ten other seeds. A seed sets the initial
   weights.
3. *long*: uniform and ras of the race on the balanced objective for three times as long, two seeds.
4. *variants* of ras at its best, on the balanced objective, two seeds: other laws, no average. Laws that the package
   does not offer are in this file.
5. *fresh*: ras at uniform's best setting, the only line of the race whose median came to twice as fast, against uniform
   with twenty seeds that nothing was chosen by, and a variant that costs nothing. Whether ras is the default hangs on
   ras as it is in this stage: a median of at least 2, and an interval from more than 1.3 on.
6. *variance*: the variance that one draw's gradient has, of the whole network, along one training.

A run's curve is the mean of the last three epochs' balanced accuracy. Levels are uniform's own final one (mean over
seeds of the last five epochs) and that less half a point and one point. The speed-up of a seed is the number of
gradient evaluations that uniform needs to the level over that of the sampler. Uniform that never gets there counts as
if it did with its last epoch; a sampler that never does has a speed-up of 0; where neither does it is 1. Printed are
medians over seeds, with 90 % percentile intervals of 10,000 bootstraps of the seeds. Forward passes of re-scores are
not counted as gradient evaluations; they are in the seconds.

Each run is kept in the folder; the same command goes on where it was stopped. Run on an idle machine: as many runs as
there are cores go on at once, one thread each.

So that an answer does not hang on one choice of setting, every sampler is also compared with uniform at the same
setting, over the whole grid of the first stage: balanced accuracy, and the training loss, the objective with dropout,
which the weighted batches estimate without bias ("obs" does not, and has none).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from ecg_shock.files import locked
from ecg_shock.training.sampler import Sampler

SAMPLERS = ("uniform", "class", "ras", "obs")
OBJECTIVES = ("prior", "balanced")
BATCHES = (8, 16, 32)
RATES = (1e-3, 3e-3)
CHOICE_SEEDS = (100, 101)
SEEDS = tuple(range(10))
VARIANT_SEEDS = SEEDS[:2]
FRESH_SEEDS = tuple(range(10, 30))
FRESH_VARIANTS = ("", "floor from 0.5 to 0.02")
EPOCHS = 20
LONG_EPOCHS, LONG_SEEDS = 3 * EPOCHS, SEEDS[:2]
SMOOTHED = 3  # epochs of the running mean
FINAL = 5  # last epochs that make the final accuracy
BELOW = (0.0, 0.5, 1.0)  # points of balanced accuracy below uniform's final one
BOOTSTRAPS = 10_000
INTERVAL = (5.0, 95.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "not averaged": {"averaged_epochs": 0.0},
    "floor from 0.5 to 0.02": {"floor": 0.5},
    "uniform for five epochs": {},
    "within the class alone": {},
    "presampled": {},
    "easy half left out": {},
    "long": {"epochs": LONG_EPOCHS},
}
VARIANCE_EPOCHS = (1, 2, 3, 5, 10, EPOCHS)
MASKS = 4  # of dropout, for each window's gradient; the first half makes the laws that the second half measures


@dataclass(frozen=True)
class Run:
    """One training of the experiment."""

    objective: str
    sampler: str
    batch_size: int
    learning_rate: float
    seed: int
    variant: str = ""

    @property
    def name(self) -> str:
        """The name of its file."""
        variant = "".join(f"-{word}" for word in self.variant.split())
        return f"{self.objective}-{self.sampler}-b{self.batch_size}-r{self.learning_rate:g}-s{self.seed}{variant}"


class FallingFloor(Sampler):
    """A floor that falls from 0.5 to 0.02, by half every two epochs."""

    _epochs = 0.0

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Count the draws."""
        self._epochs += np.size(indices) / self._scores.size
        self.floor = max(0.5 * 0.5 ** (self._epochs / 2), 0.02)
        super().update(indices, scores)


class LateStart(Sampler):
    """Uniform for five epochs, so that easy windows are learned first."""

    _epochs = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the five epochs are over."""
        return self._epochs >= 5 and super().is_open

    def update(self, indices: np.ndarray, scores: np.ndarray) -> None:
        """Count the draws."""
        self._epochs += np.size(indices) / self._scores.size
        super().update(indices, scores)


class WithinClass(Sampler):
    """Every class with its share of the windows, its windows by their scores."""

    def _set_distribution(self, gain_weight: float) -> None:
        super()._set_distribution(gain_weight)
        within = self._p / np.bincount(self._groups, weights=self._p)[self._groups]
        self._p = within * self._sizes[self._groups] / self._p.size


class Presampled(Sampler):
    """Fresh scores of three times as many windows as are drawn, before each call of steps."""

    look: Callable[[np.ndarray], np.ndarray]

    def draw(self, shape: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Look at candidates first."""
        size = self._scores.size
        candidates = self._rng.choice(size, min(size, 3 * int(np.prod(shape))), replace=False)
        self._average_scores(candidates, self.look(candidates), 0)
        self._set_distribution(0.0)
        return super().draw(shape)


class EasyHalfLeftOut(Sampler):
    """The half of the larger scores, uniformly and without weights, with a floor of all windows: biased."""

    def _set_distribution(self, gain_weight: float) -> None:
        super()._set_distribution(gain_weight)
        hard = self._estimated_scores() >= np.median(self._estimated_scores())
        self._p = (1 - self.floor) * hard / hard.sum() + self.floor / hard.size

    def draw(self, shape: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Draw without weights."""
        indices, _ = super().draw(shape)
        return indices, np.ones(indices.shape)


LAWS = {
    "floor from 0.5 to 0.02": FallingFloor,
    "uniform for five epochs": LateStart,
    "within the class alone": WithinClass,
    "presampled": Presampled,
    "easy half left out": EasyHalfLeftOut,
}


def patients() -> tuple[int, int]:
    """Count the patients of the training and of the validation part."""
    from ecg_shock.data.datasets import DataConfig, load_subsets

    loaded = load_subsets(DataConfig())
    return len(set(loaded.train.patient.tolist())), len(set(loaded.validation.patient.tolist()))


@lru_cache(maxsize=1)
def parts(groups: Any = "rhythm") -> tuple[Any, Any]:
    """Return the training and the validation windows of fold 0."""
    from ecg_shock.data.datasets import DataConfig, load_subsets
    from ecg_shock.training.fold import examples

    loaded = load_subsets(DataConfig())
    return examples(loaded.train, groups), examples(loaded.validation)


def use_law(law: type[Sampler], training: Any, class_weights: np.ndarray, work: Path) -> None:
    """Let the trainer of this process draw by another law."""
    from ecg_shock.training import trainer

    (work / trainer.CHECKPOINT_NAME).unlink(missing_ok=True)  # it does not hold what these laws count
    trainer.Sampler = law  # type: ignore[misc]
    compile_inference = trainer.compile_inference

    def compile_and_keep(model: Any, *, dropout: bool = False) -> Any:
        infer = compile_inference(model, dropout=dropout)
        if dropout:
            Presampled.look = lambda self, i: trainer.gradient_scores(
                *infer(training.ecg[i]), training.shockable[i], class_weights[i]
            )
        return infer

    trainer.compile_inference = compile_and_keep


def train_one(folder: Path, run: Run, work: Path) -> None:
    """Train, and keep the history as one JSON file."""
    from ecg_shock.files import atomic_writer, commit, versions
    from ecg_shock.models import CnnSpec
    from ecg_shock.training.trainer import TrainingConfig, _class_weights, train

    config = TrainingConfig.model_validate(
        {
            "epochs": EPOCHS,
            "batch_size": run.batch_size,
            "learning_rate": run.learning_rate,
            "sampler": run.sampler,
            "balanced": run.objective == "balanced",
            "seed": run.seed,
            **VARIANTS[run.variant],
        }
    )
    training, validation = parts(config.groups)
    spec = CnnSpec(filters=(20, 15, 15, 10, 5), kernels=(10,) * 5)  # Krasteva et al. 2020
    if run.variant in LAWS:
        use_law(LAWS[run.variant], training, _class_weights(training.shockable, config.balanced), work)
    result = train(spec, training, validation, config, work)
    record = {
        "run": asdict(run),
        "config": config.model_dump(),
        "windows": len(training.ecg),
        "commit": commit(),
        "versions": versions(),
        "history": [asdict(epoch) for epoch in result.history],
    }
    with atomic_writer(folder / f"{run.name}.json") as file:
        file.write(json.dumps(record).encode())


def variance_name(run: Run) -> str:
    """Return the name of the file of a training along which the variance is measured."""
    return f"variance-{run.name}"


def do_all(folder: Path, title: str, runs: Sequence[Run], variance: bool = False) -> None:
    """Do what is missing, one process of one thread for each core."""
    names = {run: variance_name(run) if variance else run.name for run in runs}
    missing = [run for run in names if not (folder / f"{names[run]}.json").exists()]
    environment = os.environ | {
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }

    def work(run: Run) -> None:
        command = [sys.executable, __file__, "--folder", str(folder), "--one", json.dumps(asdict(run))]
        command += ["--variance"] if variance else []
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode:
            raise RuntimeError(f"{names[run]} failed:\n{finished.stderr[-2000:]}")

    with Progress() as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        task = progress.add_task(title, total=len(names), completed=len(names) - len(missing))
        for _ in pool.map(work, missing):
            progress.advance(task)


def history(folder: Path, run: Run) -> list[dict[str, Any]]:
    """Read one run's epochs."""
    return json.loads((folder / f"{run.name}.json").read_text(encoding="utf-8"))["history"]


def accuracies(folder: Path, runs: Iterable[Run]) -> np.ndarray:
    """Return balanced accuracies in percent, shape (runs, epochs)."""
    return np.array([[100 * e["balanced_accuracy"] for e in history(folder, run)] for run in runs])


def best_setting(folder: Path, objective: str, sampler: str) -> tuple[int, float]:
    """Choose batch size and learning rate by the mean balanced accuracy over epochs and the seeds of the choice."""

    def mean(setting: tuple[int, float]) -> float:
        runs = [Run(objective, sampler, setting[0], setting[1], seed) for seed in CHOICE_SEEDS]
        return float(accuracies(folder, runs).mean())

    return max(product(BATCHES, RATES), key=mean)


def smoothed(curves: np.ndarray) -> np.ndarray:
    """Return running means over the last epochs, shape (runs, epochs); NaN where there are too few."""
    out = np.full(curves.shape, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(curves, SMOOTHED, axis=1)
    out[:, SMOOTHED - 1 :] = windows.mean(axis=2)
    return out


def first_reaching(curve: np.ndarray, spent: np.ndarray, level: float) -> float:
    """Return what was spent when a smoothed curve first reached a level, between epochs by a straight line."""
    reached = np.flatnonzero(curve >= level)
    if not reached.size:
        return np.inf
    i = int(reached[0])
    if np.isnan(curve[i - 1]) or i == 0:
        return float(spent[i])
    share = (level - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(spent[i - 1] + share * (spent[i] - spent[i - 1]))


def speed_ups(uniform: np.ndarray, other: np.ndarray, spent: np.ndarray, other_spent: np.ndarray, level: float) -> Any:
    """Return each seed's speed-up to a level; spent has the shape of the curves, (seeds, epochs)."""
    base = np.array([first_reaching(c, s, level) for c, s in zip(smoothed(uniform), spent, strict=True)])
    mine = np.array([first_reaching(c, s, level) for c, s in zip(smoothed(other), other_spent, strict=True)])
    neither = np.isinf(base) & np.isinf(mine)
    return np.where(neither, 1.0, np.minimum(base, spent[:, -1]) / np.where(neither, 1.0, mine))


def interval(values: np.ndarray) -> list[float]:
    """Return the median over seeds and its bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(0, len(values), (BOOTSTRAPS, len(values)))], axis=1)
    return [float(np.median(values)), *np.percentile(medians, INTERVAL).tolist()]


def race_runs(objective: str, sampler: str, setting: tuple[int, float], variant: str = "") -> list[Run]:
    """Return the runs of one line of the race, seed by seed."""
    seeds = LONG_SEEDS if variant == "long" else VARIANT_SEEDS if variant else SEEDS
    return [Run(objective, sampler, setting[0], setting[1], seed, variant) for seed in seeds]


def fresh_runs(setting: tuple[int, float]) -> list[list[Run]]:
    """Return the lines of the stage with fresh seeds: uniform, then ras and its variants, at one setting."""
    lines = [("uniform", ""), *(("ras", variant) for variant in FRESH_VARIANTS)]
    return [[Run("balanced", s, setting[0], setting[1], seed, v) for seed in FRESH_SEEDS] for s, v in lines]


def spending(folder: Path, runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray]:
    """Return gradient evaluations and seconds after each epoch, both of shape (runs, epochs)."""
    evaluations, seconds = [], []
    for run in runs:
        epochs = history(folder, run)
        windows = json.loads((folder / f"{run.name}.json").read_text(encoding="utf-8"))["windows"]
        epoch = -(-windows // run.batch_size) * run.batch_size
        evaluations.append(epoch * np.arange(1.0, len(epochs) + 1))
        seconds.append(np.cumsum([e["seconds"] for e in epochs]))
    return np.array(evaluations), np.array(seconds)


def compare(folder: Path, runs: list[Run], uniform_runs: list[Run]) -> dict[str, Any]:
    """Compare a line of the race with uniform, with the same seeds."""
    uniform_runs = [uniform for uniform in uniform_runs if uniform.seed in {run.seed for run in runs}]
    uniform, other = accuracies(folder, uniform_runs), accuracies(folder, runs)
    spent, clock = spending(folder, runs)
    uniform_spent, uniform_clock = spending(folder, uniform_runs)
    final = uniform[:, -FINAL:].mean()
    levels = []
    for below in BELOW:
        ups = speed_ups(uniform, other, uniform_spent, spent, final - below)
        by_clock = speed_ups(uniform, other, uniform_clock, clock, final - below)
        levels.append({"level": final - below, "evaluations": interval(ups), "wall_clock": interval(by_clock)})
    return {
        **asdict(runs[0]),
        "seeds": len(runs),
        "area": float(other.mean()),
        "final": float(other[:, -FINAL:].mean()),
        "final_spread": float(other[:, -FINAL:].mean(axis=1).std(ddof=1)),
        "final_minus_uniform": interval(other[:, -FINAL:].mean(axis=1) - uniform[:, -FINAL:].mean(axis=1)),
        "best_epoch": float(other.max(axis=1).mean()),
        "best_epoch_minus_uniform": interval(other.max(axis=1) - uniform.max(axis=1)),
        "epoch_s": float(np.median(np.diff(clock, axis=1))),
        "speed_up": levels,
    }


def gradient_norms(model: Any, training: Any, class_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return norms of each window's loss gradient under dropout, shape (masks, N), and the mean gradient."""
    import tensorflow as tf

    from ecg_shock.training.steps import INFERENCE_CHUNK, last_layer_of

    last_layer = last_layer_of(model)
    variables = model.trainable_variables

    def one(window: Any) -> Any:
        ecg, label, weight = window
        with tf.GradientTape() as tape:
            logits, _ = last_layer(ecg[tf.newaxis], training=True)
            loss = weight * tf.nn.sigmoid_cross_entropy_with_logits(label, logits[0])
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, variables)], axis=0)

    @tf.function(jit_compile=False)
    def some(ecg: Any, labels: Any, weights: Any) -> tuple[Any, Any]:
        gradients = tf.map_fn(one, (ecg, labels, weights), fn_output_signature=tf.float32)
        return tf.norm(gradients, axis=1), tf.reduce_sum(gradients, axis=0)

    ecg = training.ecg[..., np.newaxis]
    labels, weights = training.shockable.astype(np.float32), class_weights.astype(np.float32)
    norms, total = np.empty((MASKS, len(ecg))), np.zeros(model.count_params())
    for mask, i in product(range(MASKS), range(0, len(ecg), INFERENCE_CHUNK)):
        chunk = slice(i, i + INFERENCE_CHUNK)
        norms[mask, chunk], summed = some(*(tf.constant(a[chunk]) for a in (ecg, labels, weights)))
        total = total + summed.numpy().astype(np.float64)
    return norms, total / len(ecg) / MASKS


def measure_variance(folder: Path, run: Run, work: Path) -> None:
    """Train, and measure after some epochs what one draw's gradient varies by, from p and exact gradients."""
    from scipy.stats import spearmanr

    from ecg_shock.files import atomic_writer
    from ecg_shock.models import CnnSpec, build_model
    from ecg_shock.training.checkpoint import load_checkpoint
    from ecg_shock.training.sampler import Sampler, gradient_scores, sampling_distribution
    from ecg_shock.training.steps import compile_inference
    from ecg_shock.training.trainer import CHECKPOINT_NAME, EpochLog, TrainingConfig, train

    training, validation = parts()
    spec = CnnSpec(filters=(20, 15, 15, 10, 5), kernels=(10,) * 5)
    config = TrainingConfig(
        epochs=max(VARIANCE_EPOCHS),
        batch_size=run.batch_size,
        learning_rate=run.learning_rate,
        sampler="ras",
        balanced=run.objective == "balanced",
        seed=run.seed,
    )
    shares = np.bincount(training.shockable) / len(training.shockable)
    class_weights = 0.5 / shares[training.shockable.astype(int)] if config.balanced else np.ones(len(training.ecg))
    (work / CHECKPOINT_NAME).unlink(missing_ok=True)  # epochs of an earlier attempt would not be measured
    rows: list[dict[str, float]] = []

    def on_epoch(log: EpochLog) -> None:
        if log.epoch not in VARIANCE_EPOCHS:
            return
        checkpoint = load_checkpoint(work / CHECKPOINT_NAME)
        model = build_model(spec)
        for variable, value in zip(model.variables, checkpoint.model, strict=True):
            variable.assign(value)
        by_mask, mean = gradient_norms(model, training, class_weights)
        norms, squares = (
            np.sqrt(np.mean(by_mask[: MASKS // 2] ** 2, axis=0)),
            np.mean(by_mask[MASKS // 2 :] ** 2, axis=0),
        )
        logits, squared = compile_inference(model, dropout=True)(training.ecg)
        last = gradient_scores(logits, squared, training.shockable, class_weights)
        kept = Sampler(config.sampler, training.groups, floor=config.floor)
        kept.restore(checkpoint.sampler)
        n = len(norms)

        def variance(p: np.ndarray) -> float:
            return float(np.sum(squares / p) / n**2 - mean @ mean)

        def law(name: str, scores: np.ndarray, floor: float) -> np.ndarray:
            return sampling_distribution(name, scores, training.groups, floor)

        uniform = variance(np.full(n, 1 / n))
        rows.append(
            {
                "epoch": log.epoch,
                "uniform": 1.0,
                "class, exact norms": variance(law("class", norms, config.floor)) / uniform,
                "optimum by the measured norms": float(np.mean(np.sqrt(squares)) ** 2 - mean @ mean) / uniform,
                "ras, exact norms": variance(law("ras", norms, config.floor)) / uniform,
                "ras, fresh last-layer norm": variance(law("ras", last, config.floor)) / uniform,
                "ras, as it drew": variance(kept.probabilities) / uniform,
                "rank correlation of last-layer norm": float(spearmanr(last, squares).statistic),
            }
        )

    train(spec, training, validation, config, work, on_epoch=on_epoch)
    with atomic_writer(folder / f"{variance_name(run)}.json") as file:
        file.write(json.dumps(rows).encode())


def plot(folder: Path, objective: str, settings: dict[str, tuple[int, float]], path: Path) -> None:
    """Draw curves of the race against gradient evaluations and wall-clock, medians and quartiles of the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for sampler, setting in settings.items():
        runs = race_runs(objective, sampler, setting)
        curves = smoothed(accuracies(folder, runs))[:, SMOOTHED - 1 :]
        seconds = np.median([np.cumsum([e["seconds"] for e in history(folder, run)]) for run in runs], axis=0)
        epochs = np.arange(SMOOTHED, EPOCHS + 1)
        low, middle, high = np.percentile(curves, (25, 50, 75), axis=0)
        label = f"{sampler}, batch {setting[0]}, rate {setting[1]:g}"
        for ax, x in zip(axes, (epochs, seconds[SMOOTHED - 1 :]), strict=True):
            (line,) = ax.plot(x, middle, label=label)
            ax.fill_between(x, low, high, color=line.get_color(), alpha=0.12, lw=0)
    for ax, text in zip(axes, ("Gradient evaluations (epochs' worth)", "Wall-clock (s, one thread)"), strict=True):
        ax.set_xlabel(text)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("Validation balanced accuracy (%)")
    axes[0].set_ylim(bottom=90)
    axes[0].legend(loc="lower right", fontsize="small")
    figure.suptitle(
        f"{objective} objective: {len(SEEDS)} seeds, medians and quartiles, running mean of {SMOOTHED} epochs"
    )
    figure.savefig(path, dpi=120)


def plus_minus(values: Sequence[float], sign: str = "") -> str:
    """Write a median and its interval."""
    median, low, high = (f"{value:{sign}.2f}" for value in values)
    return f"{median} ({low} to {high})"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Write a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return a Markdown table of lines of the race."""
    heads = ["objective", "sampler", "batch", "rate", "final, %", "less uniform's", "best epoch, %", "less uniform's"]
    heads += [f"speed-up to {-b:+.1f}" if b else "speed-up to final" for b in BELOW]
    heads += ["to final, by the clock", "epoch, s"]
    rows = [
        (
            line["objective"],
            " ".join(filter(None, (line["sampler"], line["variant"]))),
            str(line["batch_size"]),
            f"{line['learning_rate']:g}",
            f"{line['final']:.2f}",
            plus_minus(line["final_minus_uniform"], "+"),
            f"{line['best_epoch']:.2f}",
            plus_minus(line["best_epoch_minus_uniform"], "+"),
            *(plus_minus(level["evaluations"]) for level in line["speed_up"]),
            plus_minus(line["speed_up"][0]["wall_clock"]),
            f"{line['epoch_s']:.2f}",
        )
        for line in lines
    ]
    return markdown(heads, rows)


def grid(folder: Path, objective: str, sampler: str) -> dict[str, Any]:
    """Compare a sampler with uniform at every setting of the grid, pair by pair of runs with one seed."""
    areas, ratios, ups, loss_ups = [], [], [], []
    for batch, rate in product(BATCHES, RATES):
        ours, uniform = ([Run(objective, s, batch, rate, seed) for seed in CHOICE_SEEDS] for s in (sampler, "uniform"))
        mine, base = accuracies(folder, ours), accuracies(folder, uniform)
        (spent, clock), (base_spent, base_clock) = spending(folder, ours), spending(folder, uniform)
        areas.extend(mine.mean(axis=1) - base.mean(axis=1))
        ratios.extend(np.median(np.diff(clock, axis=1), axis=1) / np.median(np.diff(base_clock, axis=1), axis=1))
        ups.extend(speed_ups(base, mine, base_spent, spent, base[:, -FINAL:].mean()))
        loss, base_loss = (
            -np.array([[e["loss"] for e in history(folder, r)] for r in runs]) for runs in (ours, uniform)
        )
        loss_ups.extend(speed_ups(base_loss, loss, base_spent, spent, base_loss[:, -FINAL:].mean()))
    return {
        "objective": objective,
        "sampler": sampler,
        "pairs": len(areas),
        "better": int(np.sum(np.array(areas) > 0)),
        "area_minus_uniform": interval(np.array(areas)),
        "speed_up": interval(np.array(ups)),
        "loss_speed_up": None if sampler == "obs" else interval(np.array(loss_ups)),
        "epoch_ratio": interval(np.array(ratios)),
    }


def write_results(
    results: Path,
    folder: Path,
    *,
    choice: dict[str, float],
    race: list[dict[str, Any]],
    grids: list[dict[str, Any]],
    long: list[dict[str, Any]],
    variants: list[dict[str, Any]],
    fresh: list[dict[str, Any]],
    variance: dict[str, list[dict[str, float]]],
) -> None:
    """Write the figures as JSON and the tables as Markdown."""
    one = json.loads(next(folder.glob("*-uniform-*.json")).read_text(encoding="utf-8"))
    training, validation = parts()
    people = patients()
    facts = {
        "commit": one["commit"],
        "versions": one["versions"],
        "cores": os.cpu_count(),
        "training_windows": len(training.ecg),
        "validation_windows": len(validation.ecg),
        "training_patients": people[0],
        "validation_patients": people[1],
        "seeds": len(SEEDS),
        "epochs": EPOCHS,
    }
    tables = {"choice": choice, "race": race, "grid": grids, "long": long, "variants": variants}
    tables |= {"fresh": fresh, "variance": variance}
    text = json.dumps(facts | tables, indent=1)
    (results / "race.json").write_text(text + "\n", encoding="utf-8")

    heads = ["objective", "sampler", "better than uniform", "points more", "speed-up to uniform's final"]
    heads += ["to its training loss", "epoch, ratio of seconds"]
    rows = [
        (
            line["objective"],
            line["sampler"],
            f"{line['better']} of {line['pairs']}",
            plus_minus(line["area_minus_uniform"], "+"),
            plus_minus(line["speed_up"]),
            "–" if line["loss_speed_up"] is None else plus_minus(line["loss_speed_up"]),
            plus_minus(line["epoch_ratio"]),
        )
        for line in grids
    ]
    report = [
        "# How fast the samplers learn",
        "",
        "Printed by `python tuning/results/sampling/race.py`, whose head says how: the published network on "
        f"public-v1, fold 0, {len(training.ecg):,} windows of {people[0]} patients to train on and "
        f"{len(validation.ecg):,} of "
        f"{people[1]} to measure with, {EPOCHS} epochs, {len(SEEDS)} seeds. Medians over the seeds with 90 % bootstrap "
        "intervals. Speed-ups are ratios of gradient evaluations, and *by the clock* of seconds, to uniform's final "
        "balanced accuracy at uniform's best setting. *Best epoch* is what a training keeps. The intervals are of the "
        "seeds: other patients may give another answer.",
        "",
        "## The race, each sampler at its own best",
        "",
        *table(race),
        "",
        "## The grid, each sampler against uniform at the same setting",
        "",
        f"Balanced accuracy, mean over the epochs, in points; {len(BATCHES) * len(RATES)} settings and "
        f"{len(CHOICE_SEEDS)} seeds, taken as independent.",
        "",
        *markdown(heads, rows),
        "",
        f"## Three times as long, {len(LONG_SEEDS)} of the seeds",
        "",
        f"{LONG_EPOCHS} epochs; the level is what uniform ends with then.",
        "",
        *table(long),
        "",
        f"## What was tried: variants of ras, {len(VARIANT_SEEDS)} of the seeds",
        "",
        "The first row is ras as it is. A few seeds say little: a variant that pays has to stand out.",
        "",
        *table(variants),
        "",
        f"## At uniform's best setting, {len(FRESH_SEEDS)} seeds that nothing was chosen by",
        "",
        "The level is what uniform ends with here. Whether `ras` is the default hangs on its line: at least 2, and an "
        "interval from more than 1.3 on.",
        "",
        *table(fresh),
        "",
        "## Variance of one draw's gradient, as a share of uniform's",
        "",
        f"Of the whole network, from the gradient of every training window with dropout, {MASKS} masks each, along one "
        "training with ras. Laws are made with two of the masks and measured with the other two; they have the floor, "
        "but for the optimum.",
    ]
    for objective, measured in variance.items():
        names = [name for name in measured[0] if name != "epoch"]
        report += [
            "",
            *markdown(
                [f"{objective}, after epoch", *(str(row["epoch"]) for row in measured)],
                [[name, *(f"{row[name]:.3f}" for row in measured)] for name in names],
            ),
        ]
    (results / "report.md").write_text("\n".join(report) + "\n", encoding="utf-8")


def write_curves(runs: Sequence[Run], folder: Path, path: Path) -> None:
    """Write every epoch of the race as CSV."""
    columns = ("balanced_accuracy", "validation_loss", "loss", "effective_batch", "kish", "seconds")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("run", "epoch", *columns))
        for run in dict.fromkeys(runs):
            for epoch in history(folder, run):
                values = ("" if epoch[c] is None else f"{epoch[c]:.5g}" for c in columns)
                writer.writerow((run.name, epoch["epoch"], *values))


def main() -> None:
    """Run what is missing, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/sampling"), help="where runs are kept")
    parser.add_argument(
        "--results", type=Path, default=Path("runs/sampling/results"), help="where the results are written"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one run, as JSON, in a process of its own
    parser.add_argument("--variance", action="store_true", help=argparse.SUPPRESS)  # along that run
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        run = Run(**json.loads(arguments.one))
        work = folder / "work" / (variance_name(run) if arguments.variance else run.name)
        work.mkdir(parents=True, exist_ok=True)
        with locked(work):  # a child may outlive the command that started it, and meet its own successor
            (measure_variance if arguments.variance else train_one)(folder, run, work)
        shutil.rmtree(work)
        return

    choices = [
        Run(objective, sampler, batch, rate, seed)
        for seed, objective, batch, rate, sampler in product(CHOICE_SEEDS, OBJECTIVES, BATCHES, RATES, SAMPLERS)
    ]
    do_all(folder, "choose", choices)
    best = {(o, s): best_setting(folder, o, s) for o, s in product(OBJECTIVES, SAMPLERS)}
    lines = [race_runs(o, s, best[o, s]) for o, s in product(OBJECTIVES, SAMPLERS)]
    lines += [race_runs(o, "ras", best[o, "uniform"]) for o in OBJECTIVES if best[o, "ras"] != best[o, "uniform"]]
    # By turns, so that a machine that is slow for a while is slow for all.
    do_all(folder, "race", [run for by_seed in zip(*lines, strict=True) for run in by_seed])
    long = [race_runs("balanced", s, best["balanced", s], "long") for s in ("uniform", "ras")]
    do_all(folder, "long", [run for by_seed in zip(*long, strict=True) for run in by_seed])
    measured = {o: Run(o, "ras", best[o, "ras"][0], best[o, "ras"][1], SEEDS[0]) for o in OBJECTIVES}
    variants = [race_runs("balanced", "ras", best["balanced", "ras"], v) for v in VARIANTS if v not in ("", "long")]
    uniform = {o: race_runs(o, "uniform", best[o, "uniform"]) for o in OBJECTIVES}
    as_it_is = race_runs("balanced", "ras", best["balanced", "ras"])[: len(VARIANT_SEEDS)]

    fresh = fresh_runs(best["balanced", "uniform"])

    def write(done: list[list[Run]]) -> None:
        write_results(
            arguments.results,
            folder,
            choice={run.name: float(accuracies(folder, [run]).mean()) for run in choices},
            race=[compare(folder, runs, uniform[runs[0].objective]) for runs in lines],
            grids=[grid(folder, o, s) for o, s in product(OBJECTIVES, SAMPLERS) if s != "uniform"],
            long=[compare(folder, runs, long[0]) for runs in long],
            variants=[compare(folder, runs, uniform["balanced"]) for runs in (as_it_is, *done)],
            fresh=[compare(folder, runs, fresh[0]) for runs in fresh if done],
            variance={
                o: json.loads((folder / f"{variance_name(run)}.json").read_text("utf-8"))
                for o, run in measured.items()
                if (folder / f"{variance_name(run)}.json").exists()
            },
        )
        write_curves(
            [run for runs in lines + long + done + (fresh if done else []) for run in runs],
            folder,
            arguments.results / "curves.csv",
        )

    arguments.results.mkdir(parents=True, exist_ok=True)
    for objective in OBJECTIVES:
        settings = {s: best[objective, s] for s in SAMPLERS}
        plot(folder, objective, settings, arguments.results / f"{objective}.png")
    write([])  # the main result does not wait for the variants
    do_all(folder, "variants", [run for by_seed in zip(*variants, strict=True) for run in by_seed])
    do_all(folder, "fresh", [run for by_seed in zip(*fresh, strict=True) for run in by_seed])
    write(variants)
    do_all(folder, "variance", list(measured.values()), variance=True)
    write(variants)
    print((arguments.results / "report.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
