"""Record complete training curves of 400 random networks: `python tuning/results/search-study/run.py --workers 2`.

The networks are those that random search draws from the space of `tuning/public.toml`. Each one is trained for 20
epochs on fold 0 of public-v1 and evaluated on its validation patients; the test patients are not used. Every epoch
becomes a row of `curves.csv`, from which `replay.py` computes what other strategies would have cost.

The same command continues after Ctrl-C or a crash. On another machine, it needs only `curves.csv`: the trials that are
in it are not trained again. The trials are trained in the order in which they were drawn, so that those that have ended
are a random sample at any time.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from ecg_shock.data.manifests import data_dir
from ecg_shock.files import atomic_writer, locked
from ecg_shock.search.engine import LOG_FILE, Engine
from ecg_shock.search.runner import record_start, train_networks, trial_tasks
from ecg_shock.search.study import Study, read_study, save_study
from ecg_shock.search.trials import Trial, dashed, read_trials
from ecg_shock.training.fold import FoldSource, TrainingFold
from ecg_shock.training.trainer import HISTORY_NAME

HERE = Path(__file__).parent
CURVES = HERE / "curves.csv"
RESULTS = ("loss", "validation_loss", "balanced_accuracy", "sensitivity", "specificity", "seconds")
# `macs` is for one window, and `windows` the number of windows in an epoch; `data` is the digest of all windows.
COLUMNS = ("trial", "filters", "kernels", "parameters", "macs", "windows", "data", "epoch", *RESULTS, "error")

Rows = list[dict[str, Any]]


def make_study(trials: int, epochs: int) -> Study:
    """Return the study `public` with so many trials, none of which ends before its last epoch."""
    changes = {"search.trials": trials, "search.epochs": epochs, "search.patience": None, "training.patience": None}
    return read_study("public", changes)


def read_curves(file: Path, epochs: int, data: str) -> dict[str, Rows]:
    """Return the rows of each recorded trial.

    Raises
    ------
    ValueError
        If a trial was recorded with another number of epochs, or with other windows.
    """
    found: dict[str, Rows] = {}
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                found.setdefault(row["trial"], []).append(row)
    for name, rows in found.items():
        if rows[0]["data"] != data:
            raise ValueError(f"{file}: trial {name} has windows {rows[0]['data']}, not {data}; give another --csv")
        if not rows[0]["error"] and len(rows) != epochs:
            raise ValueError(f"{file}: trial {name} has {len(rows)} epochs, not {epochs}; give another --csv")
    return found


def write_curves(file: Path, curves: dict[str, Rows]) -> None:
    """Replace the file."""
    with atomic_writer(file) as stream:
        lines = [",".join(COLUMNS)]
        lines += [",".join(str(row[column]) for column in COLUMNS) for name in sorted(curves) for row in curves[name]]
        stream.write(("\n".join(lines) + "\n").encode())


def rows_of(trial: Trial, folder: Path, windows: int, data: str) -> Rows:
    """Return the rows of a trial in a folder: one for each epoch, or one with the error."""
    fixed = {
        "trial": trial.name,
        "filters": dashed(trial.filters),
        "kernels": dashed(trial.kernels),
        "parameters": trial.parameters,
        "macs": trial.macs,
        "windows": windows,
        "data": data,
    }
    if trial.error:
        failed = {"epoch": 0, **dict.fromkeys(RESULTS, ""), "error": trial.error.replace(",", ";").replace('"', "'")}
        return [{**fixed, **failed}]
    epochs = json.loads((folder / HISTORY_NAME).read_text(encoding="utf-8"))["epochs"]
    return [{**fixed, "epoch": e["epoch"], **{name: e[name] for name in RESULTS}, "error": ""} for e in epochs]


def main() -> None:
    """Train the trials that are not recorded, and record each one when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the recordings")
    parser.add_argument("--out", type=Path, default=Path("runs/search-study"), help="folder of the run")
    parser.add_argument("--csv", type=Path, default=CURVES, help="file of the curves")
    parser.add_argument("--trials", type=int, default=400, help="number of networks")
    parser.add_argument("--epochs", type=int, default=20, help="number of epochs of each network")
    parser.add_argument("--workers", type=int, default=1, help="number of networks that are trained at the same time")
    parser.add_argument("--scheduler", help="tls://HOST:PORT of a Dask scheduler, whose workers train")
    asked = parser.parse_args()
    study = make_study(asked.trials, asked.epochs)
    fold = TrainingFold.load(study.data, data_dir(asked.data))
    windows = fold.presentations(study.trial_training) // asked.epochs
    curves = read_curves(asked.csv, asked.epochs, fold.digest[:16])

    def record(trial: Trial) -> None:
        folder = asked.out / "search" / f"trial_{trial.name}"
        curves[trial.name] = rows_of(trial, folder, windows, fold.digest[:16])
        write_curves(asked.csv, curves)

    asked.out.mkdir(parents=True, exist_ok=True)
    engine = Engine(asked.out / LOG_FILE, workers=asked.workers, scheduler=asked.scheduler)
    with locked(asked.out), engine:
        save_study(study, asked.out)
        record_start(study, fold, asked.out)
        for trial in read_trials(asked.out / "search"):
            if trial.name not in curves:  # the run was killed before it was recorded
                record(trial)
        source = FoldSource(fold.data, None if engine.remote else fold.folder, fold.digest)
        tasks = [task for task in trial_tasks(study, asked.out, source) if task and task.name not in curves]
        tasks.sort(key=lambda task: task.name)
        for trial in train_networks(engine, tasks, lambda task, epoch, balanced_accuracy: None):
            record(trial)
            result = trial.error or f"balanced accuracy {100 * trial.balanced_accuracy:.2f} %, {trial.seconds:.0f} s"
            print(f"{len(curves)}/{asked.trials}: trial {trial.name}, {result}", flush=True)
    print(f"{len(curves)} trials are in {asked.csv}")


if __name__ == "__main__":
    main()
