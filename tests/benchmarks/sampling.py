"""Race the samplers on real windows: `python tests/benchmarks/sampling.py`, two hours on two cores.

The published network on public-v1, fold 0: 63 patients to train on, 20 to measure with; the test patients are not
looked at. Two objectives, the databases' own class prior and the balanced one. Three stages:

1. *choose*: each sampler with every batch size and learning rate of the grid, two seeds; its own best is the setting of
   the highest validation balanced accuracy, mean over all epochs and seeds. It rewards speed and level alike, and the
   seeds are not raced with.
2. *race*: each sampler at its own best, and at uniform's best, with ten other seeds. A seed sets the initial weights.
3. *variance*: the variance that one draw's gradient has, of the whole network, along one training.
4. *variants* of ras at its best, on the balanced objective: other scores, floors, groups.

A run's curve is the mean of the last three epochs' balanced accuracy. Levels are uniform's own final one (mean over
seeds of the last five epochs) and that less half a point and one point. The speed-up of a seed is the number of
gradient evaluations that uniform needs to the level over that of the sampler. Uniform that never gets there counts as
if it did with its last epoch; a sampler that never does has a speed-up of 0. Printed are medians over seeds, with 90 %
percentile intervals of 10,000 bootstraps of the seeds.

Each run is kept in the folder; the same command goes on where it was stopped. Run on an idle machine: as many runs as
as there are cores go on at once, one thread each.

So that an answer does not hang on one choice of setting, every sampler is also held against uniform at the same
setting, over the whole grid of the first stage. And since balanced accuracy on other patients says little about
optimising, the speed-up is given for the training loss, too: the objective with dropout, which the weighted batches
estimate without bias ("obs" does not, and has none).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from ecg_shock.training.checkpoint import lock

SAMPLERS = ("uniform", "class", "instance", "ras", "obs")
OBJECTIVES = ("prior", "balanced")
BATCHES = (8, 16, 32)
RATES = (1e-3, 3e-3)
CHOICE_SEEDS = (100, 101)
SEEDS = tuple(range(10))
VARIANT_SEEDS = SEEDS[:5]
EPOCHS = 24
SMOOTHED = 3  # epochs of the running mean
FINAL = 5  # last epochs that make the final accuracy
BELOW = (0.0, 0.5, 1.0)  # points of balanced accuracy below uniform's final one
BOOTSTRAPS = 10_000
INTERVAL = (5.0, 95.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "score error": {"score": "error"},
    "floor 0.3": {"floor": 0.3},
    "re-scored every epoch": {"rescore_every": 1},
    "never re-scored": {"rescore_every": 1000},
    "stratified": {"stratified": True},
    "scaled learning rate": {"scale_learning_rate": True},
    "groups by patient": {"groups": "rhythm-patient"},
}
VARIANCE_EPOCHS = (1, 2, 3, 5, 10, 24)
RESULTS = Path(__file__).parents[2] / "tuning" / "results" / "sampling"


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
        variant = "-".join(str(value) for item in VARIANTS[self.variant].items() for value in ("", *item))
        return f"{self.objective}-{self.sampler}-b{self.batch_size}-r{self.learning_rate:g}-s{self.seed}{variant}"


@lru_cache(maxsize=1)
def parts(groups: Any = "rhythm") -> tuple[Any, Any]:
    """Return the training and the validation windows of fold 0."""
    from ecg_shock.data.parts import DataConfig, load_parts
    from ecg_shock.training.shipping import examples

    loaded = load_parts(DataConfig())
    return examples(loaded.train, groups), examples(loaded.validation)


def train_one(folder: Path, run: Run, work: Path) -> None:
    """Train, and keep the history as one JSON file."""
    from ecg_shock.models import CnnSpec
    from ecg_shock.provenance import commit, versions
    from ecg_shock.training.checkpoint import atomic_writer
    from ecg_shock.training.trainer import TrainingConfig, train

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
    base = [min(first_reaching(c, s, level), s[-1]) for c, s in zip(smoothed(uniform), spent, strict=True)]
    mine = [first_reaching(c, s, level) for c, s in zip(smoothed(other), other_spent, strict=True)]
    return np.array(base) / np.array(mine)


def interval(values: np.ndarray) -> list[float]:
    """Return the median over seeds and its bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(values[rng.integers(0, len(values), (BOOTSTRAPS, len(values)))], axis=1)
    return [float(np.median(values)), *np.percentile(medians, INTERVAL).tolist()]


def race_runs(objective: str, sampler: str, setting: tuple[int, float], variant: str = "") -> list[Run]:
    """Return the runs of one line of the race, seed by seed."""
    seeds = VARIANT_SEEDS if variant else SEEDS
    return [Run(objective, sampler, setting[0], setting[1], seed, variant) for seed in seeds]


def compare(folder: Path, runs: list[Run], base: tuple[int, float]) -> dict[str, Any]:
    """Hold a line of the race against uniform at its best, with the same seeds."""
    uniform_runs = race_runs(runs[0].objective, "uniform", base)[: len(runs)]
    uniform, other = accuracies(folder, uniform_runs), accuracies(folder, runs)
    windows = json.loads((folder / f"{runs[0].name}.json").read_text(encoding="utf-8"))["windows"]

    def evaluations(batch_size: int) -> np.ndarray:
        epoch = -(-windows // batch_size) * batch_size
        return np.tile(epoch * np.arange(1, EPOCHS + 1), (len(runs), 1)).astype(float)

    def seconds(these: Sequence[Run]) -> np.ndarray:
        return np.array([np.cumsum([e["seconds"] for e in history(folder, run)]) for run in these])

    clock, uniform_clock = seconds(runs), seconds(uniform_runs)

    def losses(these: Sequence[Run]) -> np.ndarray:
        return np.array([[e["loss"] for e in history(folder, run)] for run in these])

    spent, uniform_spent = evaluations(runs[0].batch_size), evaluations(base[0])
    uniform_loss = losses(uniform_runs)
    lowest = uniform_loss[:, -FINAL:].mean()
    to_loss = speed_ups(-uniform_loss, -losses(runs), uniform_spent, spent, -lowest)
    final = uniform[:, -FINAL:].mean()
    difference = other[:, -FINAL:].mean(axis=1) - uniform[:, -FINAL:].mean(axis=1)
    levels = []
    for below in BELOW:
        ups = speed_ups(uniform, other, uniform_spent, spent, final - below)
        by_clock = speed_ups(uniform, other, uniform_clock, clock, final - below)
        levels.append({"level": final - below, "evaluations": interval(ups), "wall_clock": interval(by_clock)})
    return {
        **asdict(runs[0]),
        "area": float(other.mean()),
        "final": float(other[:, -FINAL:].mean()),
        "final_spread": float(other[:, -FINAL:].mean(axis=1).std(ddof=1)),
        "final_minus_uniform": interval(difference),
        "epoch_s": float(np.median(np.diff(clock, axis=1))),
        "final_loss": None if runs[0].sampler == "obs" else float(losses(runs)[:, -FINAL:].mean()),
        "loss_speed_up": None if runs[0].sampler == "obs" else interval(to_loss),
        "speed_up": levels,
    }


def gradient_norms(model: Any, training: Any, class_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the norm of each window's loss gradient, shape (N,), and the mean gradient, without dropout."""
    import tensorflow as tf

    from ecg_shock.models.cnn import import_keras
    from ecg_shock.training.trainer import INFERENCE_CHUNK

    pooled = import_keras().Model(model.input, model.get_layer("global_pool").output)
    dense = model.get_layer("shockable")
    variables = model.trainable_variables

    def one(window: Any) -> Any:
        ecg, label, weight = window
        with tf.GradientTape() as tape:
            value = tf.matmul(pooled(ecg[tf.newaxis], training=False), dense.kernel)[0, 0] + dense.bias[0]
            loss = weight * tf.nn.sigmoid_cross_entropy_with_logits(label, value)
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, variables)], axis=0)

    @tf.function(jit_compile=False)
    def some(ecg: Any, label: Any, weight: Any) -> tuple[Any, Any]:
        gradients = tf.map_fn(one, (ecg, label, weight), fn_output_signature=tf.float32)
        return tf.norm(gradients, axis=1), tf.reduce_sum(gradients, axis=0)

    ecg = training.ecg[..., np.newaxis]
    labels, weights = training.shockable.astype(np.float32), class_weights.astype(np.float32)
    norms, total = [], np.zeros(model.count_params())
    for i in range(0, len(ecg), INFERENCE_CHUNK):
        some_norms, summed = some(*(tf.constant(a[i : i + INFERENCE_CHUNK]) for a in (ecg, labels, weights)))
        norms.append(some_norms.numpy().astype(np.float64))
        total = total + summed.numpy().astype(np.float64)
    return np.concatenate(norms), total / len(ecg)


def measure_variance(folder: Path, run: Run, work: Path) -> None:
    """Train, and measure after some epochs what one draw's gradient varies by, from p and exact gradients."""
    from scipy.stats import spearmanr

    from ecg_shock.models import CnnSpec, build_model
    from ecg_shock.training.checkpoint import atomic_writer, load_checkpoint
    from ecg_shock.training.samplers import Sampler, error_scores, gradient_scores, sampling_distribution
    from ecg_shock.training.trainer import CHECKPOINT_NAME, EpochLog, TrainingConfig, _compile_inference, train

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
        norms, mean = gradient_norms(model, training, class_weights)
        logits, squared = _compile_inference(model)(training.ecg)
        last = gradient_scores(logits, squared, training.shockable, class_weights)
        error = error_scores(logits, squared, training.shockable, class_weights)
        kept = Sampler(config.sampler, training.groups, floor=config.floor)
        kept.restore(checkpoint.sampler)
        n = len(norms)

        def variance(p: np.ndarray) -> float:
            used = norms > 0
            return float(np.sum(norms[used] ** 2 / p[used]) / n**2 - mean @ mean)

        def law(name: str, scores: np.ndarray, floor: float) -> np.ndarray:
            return sampling_distribution(name, scores, training.groups, floor)

        uniform = variance(np.full(n, 1 / n))
        rows.append(
            {
                "epoch": log.epoch,
                "uniform": 1.0,
                "class, exact norms": variance(law("class", norms, 0.0)) / uniform,
                "optimum, exact norms": variance(law("ras", norms, 0.0)) / uniform,
                "ras, exact norms and floor": variance(law("ras", norms, config.floor)) / uniform,
                "ras, fresh last-layer norm": variance(law("ras", last, config.floor)) / uniform,
                "ras, fresh error": variance(law("ras", error, config.floor)) / uniform,
                "ras, as it drew": variance(kept.probabilities) / uniform,
                "rank correlation of last-layer norm": float(spearmanr(last, norms).statistic),
                "rank correlation of the error": float(spearmanr(error, norms).statistic),
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


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return a Markdown table of the race."""
    heads = ["objective", "sampler", "batch", "rate", "final, %", "less uniform's"]
    heads += [f"speed-up to {-b:+.1f}" if b else "speed-up to final" for b in BELOW]
    heads += ["to final, by the clock", "to its training loss", "epoch, s"]
    rows = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for line in lines:
        ups = [f"{m:.2f} ({a:.2f}–{b:.2f})" for m, a, b in (level["evaluations"] for level in line["speed_up"])]
        by_clock, by_loss = (
            "–" if value is None else f"{value[0]:.2f} ({value[1]:.2f}–{value[2]:.2f})"
            for value in (line["speed_up"][0]["wall_clock"], line["loss_speed_up"])
        )
        d, low, high = line["final_minus_uniform"]
        cells = [
            line["objective"],
            " ".join(filter(None, (line["sampler"], line["variant"]))),
            str(line["batch_size"]),
            f"{line['learning_rate']:g}",
            f"{line['final']:.2f}",
            f"{d:+.2f} ({low:+.2f} to {high:+.2f})",
            *ups,
            by_clock,
            by_loss,
            f"{line['epoch_s']:.2f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def grid(folder: Path, objective: str, sampler: str) -> dict[str, Any]:
    """Hold a sampler against uniform at every setting of the grid: area under the curve, seconds of an epoch."""
    differences, ratios = [], []
    for batch, rate, seed in product(BATCHES, RATES, CHOICE_SEEDS):
        ours, uniform = (history(folder, Run(objective, s, batch, rate, seed)) for s in (sampler, "uniform"))
        area = [100 * np.mean([e["balanced_accuracy"] for e in epochs]) for epochs in (ours, uniform)]
        clock = [np.median([e["seconds"] for e in epochs]) for epochs in (ours, uniform)]
        differences.append(area[0] - area[1])
        ratios.append(clock[0] / clock[1])
    return {
        "objective": objective,
        "sampler": sampler,
        "pairs": len(differences),
        "better": int(np.sum(np.array(differences) > 0)),
        "area_minus_uniform": interval(np.array(differences)),
        "epoch_ratio": interval(np.array(ratios)),
    }


def write_results(
    results: Path,
    folder: Path,
    *,
    choice: dict[str, float],
    race: list[dict[str, Any]],
    grids: list[dict[str, Any]],
    variants: list[dict[str, Any]],
    variance: dict[str, list[dict[str, float]]],
) -> None:
    """Write the figures as JSON and the tables as Markdown."""
    one = json.loads(next(folder.glob("*-uniform-*.json")).read_text(encoding="utf-8"))
    training, validation = parts()
    facts = {
        "commit": one["commit"],
        "versions": one["versions"],
        "cores": os.cpu_count(),
        "training_windows": len(training.ecg),
        "validation_windows": len(validation.ecg),
        "seeds": len(SEEDS),
        "epochs": EPOCHS,
    }
    tables = {"choice": choice, "race": race, "grid": grids, "variants": variants, "variance": variance}
    text = json.dumps(facts | tables, indent=1)
    (results / "race.json").write_text(text + "\n", encoding="utf-8")

    report = [
        "# How fast the samplers learn",
        "",
        f"Printed by `python tests/benchmarks/sampling.py`, whose head says how: the published network on public-v1, "
        f"fold 0, {len(training.ecg):,} windows to train on and {len(validation.ecg):,} to measure with, {EPOCHS} "
        f"epochs, {len(SEEDS)} seeds. Medians over the seeds with 90 % bootstrap intervals. Speed-ups are ratios of "
        "gradient evaluations, and *by the clock* of seconds, to uniform's final balanced accuracy at uniform's best "
        "setting. The intervals are of the seeds: other patients may give another answer.",
        "",
        "## The race, each sampler at its own best",
        "",
        *table(race),
        "",
        "## The grid, each sampler against uniform at the same setting",
        "",
        f"Balanced accuracy, mean over the epochs, in points; {len(BATCHES) * len(RATES)} settings and "
        f"{len(CHOICE_SEEDS)} seeds.",
        "",
        "| objective | sampler | better than uniform | points more | epoch, ratio of seconds |",
        "|---|---|---|---|---|",
        *(
            f"| {line['objective']} | {line['sampler']} | {line['better']} of {line['pairs']} | "
            "{:+.2f} ({:+.2f} to {:+.2f}) | {:.2f} ({:.2f}–{:.2f}) |".format(
                *line["area_minus_uniform"], *line["epoch_ratio"]
            )
            for line in grids
        ),
        "",
        f"## Variants of ras, {len(VARIANT_SEEDS)} of the seeds",
        "",
        *table(variants),
        "",
        "## Variance of one draw's gradient, as a share of uniform's",
        "",
        "Of the whole network, from the exact gradient of every training window, without dropout, along one training "
        "with ras.",
    ]
    for objective, rows in variance.items():
        heads = [head for head in rows[0] if head != "epoch"]
        report += ["", f"| {objective}, after epoch | {' | '.join(str(row['epoch']) for row in rows)} |"]
        report += [f"|{'---|' * (len(rows) + 1)}"]
        report += [f"| {head} | {' | '.join(f'{row[head]:.3f}' for row in rows)} |" for head in heads]
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
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results are written")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one run, as JSON, in a process of its own
    parser.add_argument("--variance", action="store_true", help=argparse.SUPPRESS)  # along that run
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        run = Run(**json.loads(arguments.one))
        work = folder / "work" / (variance_name(run) if arguments.variance else run.name)
        work.mkdir(parents=True, exist_ok=True)
        with lock(work):  # a child may outlive the command that started it, and meet its own successor
            (measure_variance if arguments.variance else train_one)(folder, run, work)
        shutil.rmtree(work)
        return

    choices = [
        Run(objective, sampler, batch, rate, seed)
        for seed, objective, sampler, batch, rate in product(CHOICE_SEEDS, OBJECTIVES, SAMPLERS, BATCHES, RATES)
    ]
    do_all(folder, "choose", choices)
    best = {(o, s): best_setting(folder, o, s) for o, s in product(OBJECTIVES, SAMPLERS)}
    lines = [race_runs(o, s, best[o, s]) for o, s in product(OBJECTIVES, SAMPLERS)]
    lines += [race_runs(o, "ras", best[o, "uniform"]) for o in OBJECTIVES if best[o, "ras"] != best[o, "uniform"]]
    # By turns, so that a machine that is slow for a while is slow for all.
    do_all(folder, "race", [run for by_seed in zip(*lines, strict=True) for run in by_seed])
    measured = {o: Run(o, "ras", best[o, "ras"][0], best[o, "ras"][1], SEEDS[0]) for o in OBJECTIVES}
    do_all(folder, "variance", list(measured.values()), variance=True)
    variants = [race_runs("balanced", "ras", best["balanced", "ras"], variant) for variant in VARIANTS if variant]
    do_all(folder, "variants", [run for by_seed in zip(*variants, strict=True) for run in by_seed])

    arguments.results.mkdir(parents=True, exist_ok=True)
    write_results(
        arguments.results,
        folder,
        choice={run.name: float(accuracies(folder, [run]).mean()) for run in choices},
        race=[compare(folder, runs, best[runs[0].objective, "uniform"]) for runs in lines],
        grids=[grid(folder, o, s) for o, s in product(OBJECTIVES, SAMPLERS) if s != "uniform"],
        variants=[compare(folder, runs, best["balanced", "uniform"]) for runs in variants],
        variance={
            o: json.loads((folder / f"{variance_name(run)}.json").read_text("utf-8")) for o, run in measured.items()
        },
    )
    write_curves([run for runs in lines + variants for run in runs], folder, arguments.results / "curves.csv")
    for objective in OBJECTIVES:
        settings = {s: best[objective, s] for s in SAMPLERS}
        plot(folder, objective, settings, arguments.results / f"{objective}.png")
    print((arguments.results / "report.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
