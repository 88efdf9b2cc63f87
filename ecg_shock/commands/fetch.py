"""`ecg-shock fetch`: download public databases, or check the files of a local copy."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from ecg_shock.data.manifests import Manifest

MAX_PROBLEMS_SHOWN = 10  # of each database


def fetch(
    databases: Annotated[
        list[str],
        typer.Argument(
            metavar="DB",
            help="Databases to download: vfdb, cudb, mitdb, nstdb, ludb, qtdb, challenge-2011, challenge-2017, "
            "aami-ec13, or the path of a manifest (.toml).",
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of the recordings, with a folder for each database.",
            show_default="ECG_SHOCK_DATA, else the cache folder",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Only check the local files; exit with 1 if a file is missing or wrong."),
    ] = False,
) -> None:
    """Download databases from PhysioNet, and check each file's size and SHA-256.

    Files that are already there and correct are not downloaded again. The
    command prints the licences and the publications to cite.

    Example: ecg-shock fetch vfdb cudb mitdb --data recordings
    """
    from ecg_shock.data.manifests import data_dir, load_manifest

    console = Console()
    folder = data_dir(data)
    manifests = {database: load_manifest(database) for database in databases}
    if not verify:
        _fetch(manifests, folder, console)
    elif not _verify(manifests, folder, console):
        raise typer.Exit(1)


def _fetch(manifests: dict[str, Manifest], folder: Path, console: Console) -> None:
    from ecg_shock.data.fetch import fetch as fetch_database

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for database, manifest in manifests.items():
            task = progress.add_task(manifest.name, total=manifest.total_bytes)
            fetch_database(database, folder, progress=partial(progress.advance, task))
    for manifest in manifests.values():
        text = (
            f"\n{manifest.title} {manifest.version}: {len(manifest.files)} files, {manifest.total_bytes:,} bytes, "
            f"in {folder / manifest.name}\nLicence: {manifest.licence}\nPlease cite:\n{manifest.citation}"
        )
        if manifest.doi:
            text += f"\nhttps://doi.org/{manifest.doi}"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _verify(manifests: dict[str, Manifest], folder: Path, console: Console) -> bool:
    from ecg_shock.data.fetch import verify as verify_database

    problems = {database: verify_database(database, folder) for database in manifests}
    table = Table("database", title=f"Files in {folder}", title_justify="left")
    table.add_column("files", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("state")
    for database, manifest in manifests.items():
        found = [problem.state for problem in problems[database]]
        state = ", ".join(f"{found.count(kind)} {kind}" for kind in sorted(set(found))) or "correct"
        table.add_row(manifest.name, str(len(manifest.files)), f"{manifest.total_bytes:,}", state)
    console.print(table)
    for database, manifest in manifests.items():
        lines = [f"{manifest.name}/{problem}" for problem in problems[database]]
        if len(lines) > MAX_PROBLEMS_SHOWN:
            lines[MAX_PROBLEMS_SHOWN:] = [f"{manifest.name}: and {len(lines) - MAX_PROBLEMS_SHOWN} more"]
        console.print(*lines, sep="\n", end="\n" if lines else "", markup=False, highlight=False, soft_wrap=True)
    if any(manifest.url and problems[database] for database, manifest in manifests.items()):
        console.print("Run the same command without --verify to download missing and wrong files.")
    return not any(problems.values())
