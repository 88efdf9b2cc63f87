"""`ecg-shock adjudicate`: choose the seconds that an expert should read again, and write a page to read them on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ecg_shock.commands import counted

if TYPE_CHECKING:
    from ecg_shock.evaluation.adjudication import QueueEntry


def adjudicate(
    recordings: Annotated[
        list[str],
        typer.Argument(
            metavar="RECORDINGS",
            help="Databases, such as vfdb or the path of a manifest; or records, such as vfdb/424.",
        ),
    ],
    models: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Bundle, or folder with fold-0/bundle, fold-1/bundle …; give it several times for networks of several "
            "seeds.",
            show_default="the five networks of the headline, one for each fold",
        ),
    ] = None,
    min_score: Annotated[
        float, typer.Option(help="Smallest score of a window; 1 if all networks contradict the label.")
    ] = 0.5,
    gap: Annotated[float, typer.Option(help="Smallest time between two windows of a recording, in seconds.")] = 30.0,
    per_patient: Annotated[int, typer.Option(help="Largest number of windows of a patient.")] = 10,
    step: Annotated[float, typer.Option(help="Step from one window to the next in seconds, 0.1 to 10.")] = 1.0,
    answered: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", help="Skip the seconds that were answered in this file.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")] = Path("queue.html"),
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the recordings.", show_default="ECG_SHOCK_DATA, else the cache folder"),
    ] = None,
) -> None:
    """Choose the seconds of recordings whose labels an expert should read again.

    A committee of networks slides over the recordings. A window has a high
    score if the networks disagree with each other or with the label, or are
    close to their thresholds. The windows with the highest scores are written
    to a page with the ECG. An expert opens it in a browser, answers, and saves
    the answers as corrections.toml; no other program is needed.

    ecg-shock windows, train and validate apply this file with --corrections.

    Example: ecg-shock adjudicate vfdb/424 vfdb/418
    """
    from ecg_shock.data.corrections import read_corrections
    from ecg_shock.data.datasets import DataConfig, guard_s, labelled_recordings
    from ecg_shock.data.manifests import resource_dir
    from ecg_shock.evaluation.adjudication import QueueRule, build_queue
    from ecg_shock.evaluation.committee import find_committee
    from ecg_shock.models.seen_files import check_unseen_files
    from ecg_shock.report.adjudication import write_queue

    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"--out is {str(out)!r}; give a file that ends in .html.")
    rule = QueueRule(min_score=min_score, gap_s=gap, max_per_patient=per_patient)
    wanted = _by_database(recordings)
    committee = find_committee(models or [resource_dir("tuning") / "results" / "headline" / "bundles"])
    for bundle in committee.bundles:
        check_unseen_files(bundle, wanted, data)
    read = read_corrections(answered) if answered else None
    console = Console(markup=False, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("recordings", total=sum(map(len, wanted.values())))
        queue = build_queue(
            (recording for name, records in wanted.items() for recording in labelled_recordings(name, data, records)),
            committee,
            rule,
            guard_s=guard_s(DataConfig(databases=tuple(wanted))),
            step_s=step,
            readings=(*read.entries, *read.unchanged) if read else (),
            on_recording=lambda: progress.advance(task),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_queue(out, queue, committee, rule)
    if queue:
        console.print(_table(queue))
    if seen := sum(entry.seen for entry in queue):
        console.print(
            f"For {counted(seen, 'window')}, networks were asked that had been trained or selected on the patient. "
            "They may have learnt a wrong label, and not contradict it. To avoid this, give two or more networks that "
            "have not seen the patients, such as those of several seeds of one fold.",
            style="yellow",
        )
    console.print(f"written: {out}, {counted(len(queue), 'window')}; open it in a browser", soft_wrap=True)


def _by_database(recordings: Sequence[str]) -> dict[str, list[str]]:
    """Return the records to read by database, as the caller named it; raise ValueError if there is no such record."""
    from ecg_shock.data.datasets import patients_by_record

    found: dict[str, list[str]] = {}
    for name in recordings:
        database, slash, record = name.rpartition("/")
        of_database = not slash or name.endswith(".toml")
        known = patients_by_record(name if of_database else database)
        if not of_database and record not in known:
            raise ValueError(f"{database} has no record {record!r}; it has {', '.join(known)}.")
        listed = found.setdefault(name if of_database else database, [])
        listed += [one for one in (known if of_database else [record]) if one not in listed]
    return found


def _table(queue: Sequence[QueueEntry]) -> Table:
    """Count the windows of the queue by their label."""
    from ecg_shock.report.formats import class_name

    table = Table(title="windows in the queue", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("label of the database")
    for heading in ("patients", "windows"):
        table.add_column(heading, justify="right")
    labels = [class_name(one.label.aha_class) if one.label.aha_class else one.label.reason for one in queue]
    for label in sorted(set(labels), key=lambda label: (-labels.count(label), label)):
        patients = {entry.patient for entry, of in zip(queue, labels, strict=True) if of == label}
        table.add_row(label, str(len(patients)), str(labels.count(label)))
    return table
