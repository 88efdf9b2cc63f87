"""`ecg-shock train`: train a network on one fold, or on each fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ecg_shock.commands import CorrectionsFile, Scheduler, Workers, counted
from ecg_shock.commands._trainings import Trainings

if TYPE_CHECKING:
    from ecg_shock.data.datasets import DataConfig
    from ecg_shock.data.windows import WindowSet
    from ecg_shock.models import CnnSpec
    from ecg_shock.models.bundle import Bundle
    from ecg_shock.search.engine import Engine
    from ecg_shock.training.fold import FoldSource, TrainingFold
    from ecg_shock.training.trainer import EpochLog, Start, TrainingConfig

DEFAULT = "default"  # the bundle in the package
FINE_TUNING_RATE = 1e-4  # a tenth of the usual one, so that the first steps do not undo what was learnt
PUBLISHED_FILTERS, PUBLISHED_KERNELS = "20,15,15,10,5", "10,10,10,10,10"  # Krasteva et al. 2020

console = Console()


def train(
    out: Annotated[Path, typer.Option(help="Folder of the run. If it holds a run, that run is continued.")] = Path(
        "runs/train"
    ),
    like: Annotated[
        Path | None,
        typer.Option(help="Use the data, network and training settings of this bundle; other options override them."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="Bundle whose weights the training starts from, or 'default' for the pretrained model. It must not "
            "have been trained or selected on the test patients.",
            show_default=False,
        ),
    ] = None,
    freeze: Annotated[
        int, typer.Option(min=0, help="With --from: number of first blocks whose weights do not change.")
    ] = 0,
    fold: Annotated[
        str | None,
        typer.Option(
            help="Number of the fold, or 'all' to train a network for each fold.",
            show_default="0",
            rich_help_panel="Data",
        ),
    ] = None,
    databases: Annotated[
        str | None,
        typer.Option(
            help="Databases of the split, separated by commas.", show_default="vfdb,cudb,mitdb", rich_help_panel="Data"
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split of the patients: a name, or the path of a file (.toml) such as `ecg-shock split` writes.",
            show_default="public-v1, or synthetic-v1",
            rich_help_panel="Data",
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(help="Length of the windows in seconds, 2 to 10.", show_default="5", rich_help_panel="Data"),
    ] = None,
    supplement: Annotated[
        str | None,
        typer.Option(
            help="Add synthetic training windows of these AHA classes, separated by commas.",
            show_default="none",
            rich_help_panel="Data",
        ),
    ] = None,
    extra: Annotated[
        str | None,
        typer.Option(
            help="Train also on these databases, separated by commas, such as ludb,qtdb. A fifth of their patients are "
            "not used for training; the specificity for these patients is printed.",
            show_default="none",
            rich_help_panel="Data",
        ),
    ] = None,
    corrections: CorrectionsFile = None,
    filters: Annotated[
        str | None,
        typer.Option(
            help="Number of filters of each block, separated by commas.",
            show_default=PUBLISHED_FILTERS,
            rich_help_panel="Network",
        ),
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            help="Kernel length of each block in samples, separated by commas.",
            show_default=PUBLISHED_KERNELS,
            rich_help_panel="Network",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Maximum number of epochs.", show_default="400", rich_help_panel="Training")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after this number of epochs without improvement; 0: never stop early.",
            show_default="0",
            rich_help_panel="Training",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="How training windows are drawn. uniform: all equally often. weighted: by their weight in the loss. "
            "Others: windows with large gradients more often, by class (class), by class and window (ras), from new "
            "scores (presampled), or by rank (obs, biased).",
            show_default="uniform",
            rich_help_panel="Training",
        ),
    ] = None,
    balanced: Annotated[
        bool | None,
        typer.Option(
            "--balanced/--prior",
            help="Give shockable and nonshockable windows equal weight in total (--balanced), or give each window "
            "equal weight (--prior).",
            show_default="balanced",
            rich_help_panel="Training",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate of the Adam optimiser.",
            show_default="0.001; with --from 0.0001",
            rich_help_panel="Training",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of initial weights, dropout and sampler.", show_default="0", rich_help_panel="Training"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the recordings.",
            show_default="ECG_SHOCK_DATA, else the cache folder",
            rich_help_panel="Data",
        ),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
) -> None:
    """Train a network, and save its best epoch as a bundle.

    The best epoch has the highest balanced accuracy on the validation patients.
    The test patients are not used. To continue after Ctrl-C or a crash, run the
    same command again; at most one epoch is lost. With --fold all, --workers
    trains several folds side by side.

    Example: ecg-shock train --fold all --epochs 100 --out runs/mine
    """
    from ecg_shock.data.datasets import SYNTHETIC, DataConfig
    from ecg_shock.data.splits import load_split
    from ecg_shock.files import locked, with_values
    from ecg_shock.inference.advisor import DEFAULT_BUNDLE
    from ecg_shock.models import CnnSpec
    from ecg_shock.models.bundle import load_bundle
    from ecg_shock.preprocessing import FS
    from ecg_shock.search.engine import LOG_FILE, Engine
    from ecg_shock.training.fold import TrainingFold, training_of
    from ecg_shock.training.trainer import TrainingConfig

    if start and (like or filters or kernels):
        raise ValueError("--from takes the network of its bundle; remove --like, --filters and --kernels.")
    if freeze and not start:
        raise ValueError("--freeze needs --from; give the bundle to start from with --from, or remove --freeze.")
    base = load_bundle(like) if like else None
    earlier = load_bundle(DEFAULT_BUNDLE if start == DEFAULT else start) if start else None
    config = with_values(
        base.card.data if base else DataConfig(),
        databases=_names(databases),
        supplement=_names(supplement),
        extra=_names(extra),
        split=split or ("synthetic-v1" if databases == SYNTHETIC else None),
        window_s=window,
        preprocessing=earlier.preprocessing if earlier else None,
    )
    if corrections:
        labels = replace(config.labels, corrections=str(corrections), corrections_sha256=None)
        config = config.model_copy(update={"labels": labels})
    training = with_values(
        training_of(base) if base else TrainingConfig.model_validate({}),
        epochs=epochs,
        patience=patience or None,
        sampler=sampler,
        balanced=balanced,
        learning_rate=learning_rate or (FINE_TUNING_RATE if earlier else None),
        seed=seed,
    )
    if patience == 0:
        training = training.model_copy(update={"patience": None})
    spec = (
        earlier.spec
        if earlier
        else base.spec
        if base
        else CnnSpec(_integers(PUBLISHED_FILTERS), _integers(PUBLISHED_KERNELS))
    )
    if filters or kernels or window or earlier:
        spec = replace(
            spec,
            input_samples=round(config.window_s * FS),
            filters=_integers(filters) if filters else spec.filters,
            kernels=_integers(kernels) if kernels else spec.kernels,
        )

    if fold is not None and fold != "all" and not fold.isdecimal():
        raise ValueError(f"--fold is {fold!r}; give a number, such as 0, or 'all'.")
    if fold == "all":
        folds = list(range(len(load_split(config.split))))
    else:
        folds = [config.fold if fold is None else int(fold)]
    start_from = Earlier(earlier, freeze) if earlier else None
    configs = [with_values(config, fold=k) for k in folds]
    if workers > 1 or scheduler:
        with Engine(out / LOG_FILE, workers=min(workers, len(folds)), scheduler=scheduler) as engine:
            _train_side_by_side(engine, configs, data, spec, training, out, start_from)
    for config in configs:
        with console.status("reading the recordings"):
            of_fold = TrainingFold.load(config, data)
        folder = out / f"fold-{config.fold}"
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            _train_fold(of_fold, spec, training, folder, base, start_from)
    console.print(f"to evaluate it: ecg-shock validate {out}", highlight=False, markup=False)


class Earlier(NamedTuple):
    """The model to start from, and how many of its blocks are frozen."""

    bundle: Bundle
    frozen_blocks: int


def _train_side_by_side(
    engine: Engine,
    configs: Sequence[DataConfig],
    data: Path | None,
    spec: CnnSpec,
    training: TrainingConfig,
    out: Path,
    earlier: Earlier | None,
) -> None:
    """Train on several folds in worker processes; `_train_fold` finds what they have trained."""
    from ecg_shock.search.engine import LOG_FILE
    from ecg_shock.search.tasks import Task, WorkerError
    from ecg_shock.training.fold import FoldSource, TrainingFold
    from ecg_shock.training.trainer import read_result

    out.mkdir(parents=True, exist_ok=True)
    tasks = []
    for config in configs:
        with console.status("reading the recordings"):
            fold = TrainingFold.load(config, data)
        source = FoldSource(config, None if engine.remote else data, fold.digest)
        arguments = (spec, training, source, fold.start_from(*earlier) if earlier else None)
        folder = out / f"fold-{config.fold}"
        tasks.append(Task(f"fold {config.fold}", folder, training.epochs, train_fold, arguments))
    trainings = Trainings(console, "train", len(tasks), 0)
    with trainings, closing(engine.run(tasks, trainings.on_progress)) as ended:
        for task, failure in ended:
            if failure:
                raise WorkerError(f"{task.name}: {failure}; {out / LOG_FILE} may say why")
            trainings.end(task.name, read_result(task.folder).best.balanced_accuracy)


def train_fold(
    spec: CnnSpec,
    config: TrainingConfig,
    source: FoldSource,
    start: Start | None,
    *,
    folder: Path,
    on_epoch: Callable[[EpochLog], None],
) -> None:
    """Train on a fold in a worker process."""
    from ecg_shock.training.fold import load_fold

    load_fold(source).train(spec, config, folder, start=start, on_epoch=on_epoch)


def _train_fold(
    fold: TrainingFold,
    spec: CnnSpec,
    training: TrainingConfig,
    folder: Path,
    base: Bundle | None,
    earlier: Earlier | None,
) -> None:
    """Train on one fold, and save its bundle and learning curve."""
    from ecg_shock.models.bundle import BUNDLE_NAME
    from ecg_shock.plots import draw_history
    from ecg_shock.training.fold import patients, selection_of

    named = {"train": fold.subsets.train, "validation": fold.subsets.validation}
    if fold.subsets.other_hospitals is not None:
        named["other hospitals"] = fold.subsets.other_hospitals
    sizes = ", ".join(
        f"{name} {len(subset):,} windows of {len(patients(subset))} patients" for name, subset in named.items()
    )
    console.print(f"[bold]fold {fold.data.fold}[/]: {sizes}", highlight=False)
    start = fold.start_from(*earlier) if earlier else None
    validated = len(fold.subsets.validation) > 0
    columns = (
        TextColumn("epoch"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("train", total=training.epochs, now="")

        def on_epoch(log: EpochLog) -> None:
            now = f"loss {log.loss:.4f}"
            if validated:
                now += f", validation BAC {100 * log.balanced_accuracy:.2f} %"
            progress.update(task, completed=log.epoch, now=now)

        result = fold.train(spec, training, folder, start=start, on_epoch=on_epoch)
    draw_history(result.history).savefig(folder / "history.png")
    bundle = fold.write_bundle(
        folder / BUNDLE_NAME,
        f"fold {fold.data.fold} of {fold.data.split}",
        result,
        selection=(
            f"the network is that of {earlier.bundle.name}, chosen without the test patients; the training was given"
            if earlier
            else selection_of(base, patients(fold.subsets.test))
        ),
        earlier=earlier.bundle if earlier else None,
        frozen_blocks=earlier.frozen_blocks if earlier else 0,
    )
    best = result.best
    chosen = (
        f"best is {best.epoch}: validation BAC {100 * best.balanced_accuracy:.2f} %, "
        f"Se {100 * best.sensitivity:.2f} %, Sp {100 * best.specificity:.2f} %"
        if validated
        else f"all patients of {fold.data.split} train, so the last epoch is kept"
    )
    console.print(f"  {counted(len(result.history), 'epoch')}; {chosen}", highlight=False)
    if fold.subsets.other_hospitals is not None:
        _show_other_hospitals(bundle, fold.subsets.other_hospitals)
    console.print(f"  {bundle.folder}", highlight=False, markup=False)


def _show_other_hospitals(bundle: Bundle, windows: WindowSet) -> None:
    """Print the specificity for the patients of extra databases who were kept out of training."""
    from ecg_shock.evaluation.other_hospitals import specificity_by_database
    from ecg_shock.inference.advisor import Advisor

    shock = Advisor(bundle).probabilities(windows.ecg) >= bundle.threshold
    for database, found in specificity_by_database(windows, shock).items():
        limit = "" if found.cluster_limit is None else f", lower limit by patient {100 * found.cluster_limit:.1f} %"
        console.print(
            f"  other hospitals, {database}: Sp {100 * (found.observed or 0):.2f} %{limit} "
            f"({found.patients} patients, {found.windows:,} windows)",
            highlight=False,
        )


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(
            f"{text!r} is not a list of whole numbers; separate them by commas, such as 20,15,10."
        ) from None
