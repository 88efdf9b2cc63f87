"""`ecg-shock tune`: train many networks, choose one, and save it as a bundle."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from ecg_shock.commands import Scheduler, Workers, counted
from ecg_shock.commands._trainings import Trainings

if TYPE_CHECKING:
    from ecg_shock.data.datasets import Subsets
    from ecg_shock.search.consensus import Candidate, Setting
    from ecg_shock.search.engine import Engine
    from ecg_shock.search.study import Study
    from ecg_shock.search.tasks import Task
    from ecg_shock.search.trials import Trial
    from ecg_shock.training.fold import TrainingFold
    from ecg_shock.training.trainer import TrainingConfig

SELECTION = "epoch, network and learning rate chosen on the validation patients; the test patients were not looked at"

console = Console()


def tune(
    study: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help="A study file (.toml), or a built-in study: quickstart (synthetic recordings; takes minutes), public "
            "(vfdb, cudb, mitdb; takes hours) or paper (the published search; takes months).",
        ),
    ] = "quickstart",
    trials: Annotated[
        int | None, typer.Option(help="Number of random networks to train.", show_default="from STUDY")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Maximum number of epochs for each network.", show_default="from STUDY")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="Number of seeds with which each candidate is trained again.", show_default="from STUDY"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. If it holds a run, that run is continued.", show_default="runs/STUDY"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings.", show_default="ECG_SHOCK_DATA, else the cache folder"),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
) -> None:
    """Train many networks, choose the best, and save it as a bundle.

    1. Train random networks, or those that the strategy of STUDY chooses.
    2. For each depth, make a candidate: a network whose numbers of filters and
       kernel lengths are the medians of those of the best networks.
    3. Train the candidates again with several learning rates and seeds.
    4. Choose the candidate with the highest balanced accuracy on the
       validation patients, and save it in the folder bundle/ of the run.

    The test patients are not used. Ctrl-C stops after the current epoch. To
    continue after Ctrl-C or a crash, run the same command again.

    Example: ecg-shock tune public --out runs/public
    """
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_time=False, show_path=False)],
    )
    from ecg_shock.data.manifests import data_dir
    from ecg_shock.files import locked
    from ecg_shock.search.engine import LOG_FILE, Engine
    from ecg_shock.search.study import read_study
    from ecg_shock.training.fold import TrainingFold

    changes = {"search.trials": trials, "search.epochs": epochs, "training.epochs": epochs, "consensus.seeds": seeds}
    asked = read_study(study, {key: value for key, value in changes.items() if value is not None})
    folder = out or Path("runs") / asked.name
    recordings = data_dir(data)
    try:
        with console.status("reading the recordings"):
            fold = TrainingFold.load(asked.data, recordings)
        engine = Engine(
            folder / LOG_FILE,
            workers=workers,
            scheduler=scheduler,
            trainings_per_process=asked.search.trials_per_process,
        )
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder), engine:
            _run(asked, fold, folder, engine)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("run the same command to continue") from None


def _run(study: Study, fold: TrainingFold, folder: Path, engine: Engine) -> None:
    from ecg_shock.models.bundle import BUNDLE_NAME
    from ecg_shock.plots import draw_candidates, draw_trials
    from ecg_shock.search import consensus
    from ecg_shock.search import runner as run
    from ecg_shock.search import trials as ledger
    from ecg_shock.search.strategies import count_trainings
    from ecg_shock.search.study import save_study
    from ecg_shock.training.fold import FoldSource
    from ecg_shock.training.trainer import read_result

    save_study(study, folder)
    run.record_start(study, fold, folder)
    _show_plan(study, fold.subsets, folder)
    source = FoldSource(fold.data, None if engine.remote else fold.folder, fold.digest)

    earlier = ledger.read_trials(folder / "search")
    _train(engine, "search", *count_trainings(study, earlier), earlier, run.trial_tasks(study, folder, source))
    trials = ledger.read_trials(folder / "search")
    mark = " · synthetic" if study.synthetic else ""
    ledger.write_csv(folder / "trials.csv", trials)
    draw_trials(trials, title=f"{study.name}: {len(trials)} trials{mark}").savefig(folder / "trials.png")
    _show_trials(trials, mark)
    _print_path("all trials", f"{folder / 'trials.csv'}, {folder / 'trials.png'}\n")

    candidates = run.study_candidates(study, folder)
    if not candidates:
        raise ValueError(
            f"all {len(trials)} trials failed; read error.txt in the folders of {folder / 'search'} for the reasons, "
            "and run the command again."
        )
    _show_candidates(candidates, study)
    draw_candidates(candidates, title=f"{study.name}{mark}").savefig(folder / "consensus.png")
    _print_path("the trials behind each candidate", f"{folder / 'consensus.png'}\n")
    jobs, earlier = run.retraining_jobs(study, candidates), run.read_retrained(study, candidates, folder)
    _train(engine, "retrain", len(jobs), len(earlier), earlier, run.retraining_tasks(study, candidates, folder, source))
    retrained = run.read_retrained(study, candidates, folder)
    compared = consensus.group_by_setting(retrained)
    choice = consensus.choose(compared)
    ledger.write_csv(folder / "retrained.csv", retrained)
    run.write_choice(folder, study, candidates, compared, choice)
    _show_settings(compared, choice, mark)

    best = read_result(folder / "retrain" / choice.runs[0].name)
    bundle = fold.write_bundle(folder / BUNDLE_NAME, f"study {study.name}", best, selection=SELECTION)
    _print_path(f"bundle{mark}", f"{bundle.folder}")
    if study.synthetic:
        _print_path("to evaluate it on real ECG", f"ecg-shock validate {bundle.folder} --databases vfdb,cudb,mitdb")


def _print_path(name: str, path: str) -> None:
    """Print a path or command on one line, so that users can copy it."""
    console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)


def _train(
    engine: Engine, what: str, total: int, done: int, earlier: tuple[Trial, ...], tasks: Iterator[Task | None]
) -> None:
    from ecg_shock.search.runner import train_networks

    best = max((trial.balanced_accuracy for trial in earlier if trial.error is None), default=0.0)
    with Trainings(console, what, total, done, best) as trainings:
        for trial in train_networks(engine, tasks, trainings.on_progress):
            trainings.end(trial.name, trial.balanced_accuracy, trial.error, trial.stopped)


def _show_plan(study: Study, subsets: Subsets, folder: Path) -> None:
    space = study.space
    plan = Table.grid(padding=(0, 2))
    mark = " · [yellow]synthetic: says nothing about patients[/]" if study.synthetic else ""
    plan.add_row("study", f"[bold]{study.name}[/]{mark}")
    plan.add_row(
        "data",
        f"{escape(', '.join(study.data.databases))} · {escape(study.data.split)} fold {study.data.fold} · "
        f"{study.data.window_s:g}-s windows",
    )
    plan.add_row(
        "space",
        f"blocks {space.blocks[0]}–{space.blocks[1]}, filters {space.filters[0]}–{space.filters[1]}, "
        f"kernels {space.kernels[0]}–{space.kernels[1]}, in steps of {space.step}",
    )
    strategy: str = study.search.strategy
    at_random = study.space.random_trials
    if strategy == "bayesian":
        strategy += f" (the first {at_random} at random)"
    if study.stopping is not None:
        strategy += " with the median rule"
    plan.add_row("search", f"{study.search.trials} networks, {_epochs(study.trial_training)}, {strategy}")
    plan.add_row(
        "retraining",
        f"1 network per depth × {counted(len(study.consensus.learning_rates), 'learning rate')} × "
        f"{counted(study.consensus.seeds, 'seed')}, {_epochs(study.training)}",
    )
    console.print(plan, highlight=False)
    if study.search.strategy == "bayesian" and study.search.trials <= at_random:
        console.print(
            f"[yellow]All {study.search.trials} networks are drawn at random[/]: Bayesian optimisation begins after "
            f"{at_random}, 3 for each dimension of the space. Set more trials, or fewer blocks.",
            highlight=False,
        )
    _print_path("run folder", f"{folder}")
    _show_windows(study, subsets)


def _show_windows(study: Study, subsets: Subsets) -> None:
    """Print the numbers of windows and patients; count synthetic and extra training windows separately."""
    from ecg_shock.data.datasets import of_extra
    from ecg_shock.rhythms import AHA_CLASSES, AHA_LABELS, CLASSES
    from ecg_shock.search.runner import supplemented

    table = Table(title="windows (patients)", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("AHA class")
    named = {"train": subsets.train, "validation": subsets.validation, "test, not used": subsets.test}
    for name in named:
        table.add_column(name, justify="right")
    added = {
        name: {"synthetic": supplemented(subset, study), "extra": of_extra(subset, study.data)}
        for name, subset in named.items()
    }

    def counts(name: str, of_class: np.ndarray) -> str:
        masks = {kind: mask[of_class] for kind, mask in added[name].items()}
        return _counts(named[name].patient[of_class], masks)

    found = np.concatenate([subset.aha_class for subset in named.values()])
    for aha_class in (name for name in CLASSES if name in AHA_CLASSES or name in found):
        cells = (counts(name, subset.aha_class == aha_class) for name, subset in named.items())
        table.add_row(AHA_LABELS[aha_class], *cells)
    table.add_section()
    table.add_row("all", *(counts(name, np.ones(len(subset), bool)) for name, subset in named.items()))
    console.print(table)
    for name, subset in named.items():
        own = ~np.any(list(added[name].values()), axis=0)
        patients = sorted(set(subset.patient[own].tolist()))
        patients += [
            f"{len(set(subset.patient[mask].tolist()))} {kind}" for kind, mask in added[name].items() if mask.any()
        ]
        console.print(f"[bold]{name}[/]: {escape(', '.join(patients))}", highlight=False)
    console.print()


def _counts(patients: np.ndarray, added: dict[str, np.ndarray]) -> str:
    """Format the numbers of windows and patients, and of the windows that only train, by kind."""
    own = patients[~np.any(list(added.values()), axis=0)]
    counted = f"{len(own):,} ({len(set(own.tolist()))})"
    return counted + "".join(f" + {mask.sum():,} {kind}" for kind, mask in added.items() if mask.any())


def _epochs(training: TrainingConfig) -> str:
    stop = f" (stops after {training.patience} without improvement)" if training.patience else ""
    return f"{counted(training.epochs, 'epoch')}{stop}"


def _show_trials(trials: tuple[Trial, ...], mark: str, rows: int = 10) -> None:
    from ecg_shock.search.trials import rank

    ranked = rank(trials)
    failed, stopped = len(trials) - len(ranked), sum(trial.stopped for trial in trials)
    headings = ("#", "N", "filters", "kernels", "params", "MMACs", "BAC %", "Se %", "Sp %", "loss", "epoch", "s")
    table = _narrow_table(f"best trials, validation subset{mark}", headings)
    counts = {"stopped early": stopped, "failed": failed}
    table.caption = f"{len(trials)} trained, {min(rows, len(ranked))} shown" + "".join(
        f", {count} {what}" for what, count in counts.items() if count
    )
    for place, trial in enumerate(ranked[:rows], start=1):
        table.add_row(
            str(place),
            *_blocks(trial, trial.parameters),
            f"{trial.macs / 1e6:.2f}",
            *(f"{100 * value:.2f}" for value in (trial.balanced_accuracy, trial.sensitivity, trial.specificity)),
            f"{trial.loss:.3f}",
            str(trial.best_epoch),
            f"{trial.seconds:.0f}",
        )
    console.print(table)


def _show_candidates(candidates: tuple[Candidate, ...], study: Study) -> None:
    headings = ("N", "filters", "kernels", "params", "median of", "their BAC %")
    table = _narrow_table("consensus: the median of the best trials of each depth", headings)
    for candidate in candidates:
        spec = study.spec(candidate.filters, candidate.kernels)
        table.add_row(
            *_blocks(candidate, spec.parameter_count()), str(len(candidate.top)), _range_of_accuracy(candidate.top)
        )
    console.print(table)


def _show_settings(compared: tuple[Setting, ...], choice: Setting, mark: str) -> None:
    headings = ("N", "filters", "kernels", "params", "LR", "runs", "BAC %", "range", "")
    table = _narrow_table(f"retrained, mean BAC on the validation subset{mark}", headings)
    for setting in compared:
        table.add_row(
            *_blocks(setting, setting.parameters),
            f"{setting.learning_rate:g}",
            str(len(setting.runs)) + (f" ({setting.failed} failed)" if setting.failed else ""),
            f"{100 * setting.balanced_accuracy:.2f}",
            _range_of_accuracy(setting.runs),
            "[bold green]chosen[/]" if setting is choice else "",
        )
    console.print(table)


def _narrow_table(title: str, headings: tuple[str, ...]) -> Table:
    """Make an empty table for 80 columns; only the columns filters and kernels wrap."""
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in headings:
        wraps = heading in ("filters", "kernels")
        table.add_column(heading, justify="left" if wraps else "right", no_wrap=not wraps)
    return table


def _blocks(network: Trial | Candidate | Setting, parameters: int) -> tuple[str, ...]:
    """Return the first cells of a network's row: depth, filters, kernels and parameters."""
    filters, kernels = (" ".join(map(str, values)) for values in (network.filters, network.kernels))
    return str(len(network.filters)), filters, kernels, f"{parameters:,}"


def _range_of_accuracy(ranked: tuple[Trial, ...]) -> str:
    return f"{100 * ranked[-1].balanced_accuracy:.2f}–{100 * ranked[0].balanced_accuracy:.2f}"
