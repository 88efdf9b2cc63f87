"""`ecg-shock split`: divide the patients of databases into the folds of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def split(
    databases: Annotated[
        list[str], typer.Argument(metavar="DB", help="Databases: paths of manifests (.toml), or names such as vfdb.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.toml", help="File for the split.")] = Path("split.toml"),
    folds: Annotated[int, typer.Option(min=3, help="Number of folds.")] = 5,
    window: Annotated[float, typer.Option(help="Length of the windows that are counted, in seconds, 2 to 10.")] = 5.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the choice between groups that are equally good.")] = 0,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds a folder for each database.", show_default="ECG_SHOCK_DATA, else the cache folder"
        ),
    ] = None,
) -> None:
    """Divide the patients into groups, one for each fold.

    In fold k, the patients of group k are the test patients. Those of the next
    group are the validation patients, and all others are the training patients.
    All groups get about the same number of patients, and of windows of each AHA
    class.

    Example: ecg-shock split mine.toml --folds 3 --out mine-split.toml
    """
    from ecg_shock.data.datasets import DataConfig, load_windows, patients_in
    from ecg_shock.data.splits import count_patients, propose_groups, split_to_toml
    from ecg_shock.files import write_text
    from ecg_shock.rhythms import AHA_LABELS, NONSHOCKABLE, SHOCKABLE

    console = Console(markup=False, highlight=False)
    if out.suffix != ".toml":
        raise ValueError(f"--out is {str(out)!r}; give a file that ends in .toml")
    if out.exists():
        raise ValueError(
            f"{out} exists, and results can be compared only on the same split; remove the file, or give another --out"
        )
    config = DataConfig(databases=tuple(databases), window_s=window)
    with console.status("reading the recordings"):
        found = load_windows(config, data)
        counts = count_patients(found, patients_in(databases) | set(found.patient.tolist()))
    groups = propose_groups(counts, folds, seed)
    write_text(out, split_to_toml(groups, f"ecg-shock split {' '.join(databases)} --folds {folds} --seed {seed}"))
    classes = SHOCKABLE + NONSHOCKABLE
    table = Table("group", title="Patients", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("all", *(AHA_LABELS[name].split(" (")[0] for name in classes)):
        table.add_column(heading, justify="right", max_width=max(map(len, heading.split())))
    lacking = []
    for number, group in enumerate(groups):
        have = [sum(bool(counts[patient][i]) for patient in group) for i in range(len(classes))]
        table.add_row(str(number), str(len(group)), *map(str, have))
        for kind, those in (("shockable", have[: len(SHOCKABLE)]), ("nonshockable", have[len(SHOCKABLE) :])):
            if not any(those):
                lacking.append(f"group {number} has no patient with {kind} windows")
    console.print(table)
    for line in lacking:
        advice = "so a model cannot be chosen or tested on it; use fewer folds, or more recordings"
        console.print(f"warning: {line}, {advice}", soft_wrap=True)
    console.print(f"written: {out}", soft_wrap=True)
    console.print(f"then: ecg-shock train --databases {','.join(databases)} --split {out}", soft_wrap=True)
