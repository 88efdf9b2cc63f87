"""Describe a folder of your own WFDB records as a manifest, which you then complete."""

from __future__ import annotations

import csv
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from ecg_shock.data.annotations import list_codes
from ecg_shock.data.manifests import check_plain_name, load_manifest
from ecg_shock.data.wfdb_header import read_header
from ecg_shock.files import sha256
from ecg_shock.rhythms import RHYTHMS, UNUSABLE

DEFAULT_ANNOTATOR = "atr"
GUARD_S = 1.0  # a cautious value: people seldom place labels more exactly
STANDARD = ("mitdb", "vfdb")  # databases whose rhythm codes are the standard codes of the WFDB format

HEAD = """\
# Written by `ecg-shock manifest`. Complete it by hand; the command does not replace it.
name = {name}
title = ""
version = "1"
licence = ""
citation = ""
annotator = {annotator}  # suffix of the annotation files
guard_s = {guard_s}  # uncertainty of the labelled changes of rhythm, in seconds
"""
CODES = """
# The rhythm that each code means, one of:
# {rhythms};
# noise (artefact); unlabelled (the rhythm cannot be told).
"""
LABELS = """
# The code of each record. For several rhythms, write start times in seconds: [[0, "code"], [31.5, "other code"]].
"""
PATIENTS = """
# The patient of each record. If a patient has several records, give all of them the name of the first record.
"""
FILES = """
# Size and SHA-256 of each file. If a file changes, commands that read it stop with an error.
"""


@dataclass(frozen=True)
class Description:
    """The content of a folder of WFDB records.

    Parameters
    ----------
    name : str
        Name of the folder, and of the database.
    annotator : str
        Suffix of the annotation files.
    records : tuple of str
        Names of the records, sorted.
    annotated : frozenset of str
        Names of the records that have an annotation file.
    labels : dict of str to list of (float, str)
        Labels of each record without an annotation file, as pairs of start time in seconds and rhythm code. The list
        is empty if no label is given.
    not_here : int
        Number of labelled records that are not in the folder.
    codes : dict of str to int
        Number of records that contain each rhythm code.
    rhythms : dict of str to str
        The rhythm that each code means. An unknown rhythm is an empty text, which you replace in the manifest.
    files : tuple of pathlib.Path
        Headers, signal files and annotation files, sorted by name.
    """

    name: str
    annotator: str
    records: tuple[str, ...]
    annotated: frozenset[str]
    labels: dict[str, list[tuple[float, str]]]
    not_here: int
    codes: dict[str, int]
    rhythms: dict[str, str]
    files: tuple[Path, ...]

    def to_toml(self) -> str:
        """Return the text of the manifest."""
        text = HEAD.format(name=_quoted(self.name), annotator=_quoted(self.annotator), guard_s=GUARD_S)
        text += CODES.format(rhythms=textwrap.fill(", ".join(RHYTHMS), 110, subsequent_indent="# ")) + _table(
            "rhythm_codes", self.rhythms
        )
        if self.labels:
            text += LABELS + _table("record_labels", {record: _label(label) for record, label in self.labels.items()})
        text += PATIENTS + _table("patients", {record: record for record in self.records})
        text += FILES + "[files]\n"
        for file in self.files:
            text += f'"{file.name}" = {{ bytes = {file.stat().st_size}, sha256 = "{sha256(file)}" }}\n'
        return text


def describe_folder(folder: str | Path, labels: str | Path | None = None) -> Description:
    """Find the WFDB records of a folder, their files, and the rhythm codes of their annotations.

    Parameters
    ----------
    folder : str or pathlib.Path
        Folder of the records. The database gets the name of this folder. Subfolders are not searched.
    labels : str or pathlib.Path, optional
        A CSV file with the labels of records that have no annotation file. The columns are ``record,code`` or
        ``record,start_s,code``. The first line may contain these names.

    Raises
    ------
    OSError
        If the folder or a file that a header names is missing.
    ValueError
        If the folder has no record; if the name of the folder or of a file is not allowed (see `check_plain_name`); if
        a record has several segments; if a line of `labels` has another format, or labels a record that has an
        annotation file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give the folder that holds your WFDB records")
    name = folder.resolve().name
    check_plain_name(name)
    headers = sorted(folder.glob("*.hea"))
    if not headers:
        below = len(list(folder.glob("*/**/*.hea")))
        why = f"; {below} are in folders below it, so give the folder that holds them" if below else ""
        raise ValueError(
            f"{folder} has no WFDB header (.hea){why}. Other recordings can be written as WFDB records, as "
            "docs/own-recordings.md shows"
        )
    files = {file for header in headers for file in (header, *_signal_files(header))}
    records = tuple(header.stem for header in headers)
    annotator = _find_annotator(folder, records, files)
    annotated = frozenset(record for record in records if (folder / f"{record}.{annotator}").is_file())
    files |= {folder / f"{record}.{annotator}" for record in annotated}
    for file in files:
        check_plain_name(file.name)
    given = _read_labels(Path(labels)) if labels is not None else {}
    if both := sorted(annotated & given.keys()):
        raise ValueError(
            f"{labels} labels {both[0]!r}, which also has the annotation file {both[0]}.{annotator}; remove the "
            "label or the file"
        )
    of_records = {record: given.get(record, []) for record in records if record not in annotated}
    codes: Counter[str] = Counter()
    for record in records:
        found = list_codes(folder / record, annotator) if record in annotated else [c for _, c in of_records[record]]
        codes.update(dict.fromkeys(found, 1))
    standard = {code: rhythm for known in STANDARD for code, rhythm in load_manifest(known).rhythm_codes.items()}
    own = {rhythm: rhythm for rhythm in (*RHYTHMS, *UNUSABLE)}
    return Description(
        name=name,
        annotator=annotator,
        records=records,
        annotated=annotated,
        labels=of_records,
        not_here=len(given.keys() - set(records)),
        codes=dict(codes),
        rhythms={code: (standard | own).get(code, "") for code in codes},
        files=tuple(sorted(files)),
    )


def _signal_files(header: Path) -> set[Path]:
    found = read_header(header)
    if found.segments:
        raise ValueError(
            f"{header} has several segments, which a manifest cannot label; write the record as one segment"
        )
    files = {header.parent / signal.file for signal in found.signals if signal.file != "~"}
    for file in sorted(files):
        if not file.is_file():
            raise FileNotFoundError(
                f"{header} names the signal file {file.name}, which is missing; copy it to this folder"
            )
    return files


def _find_annotator(folder: Path, records: Iterable[str], files: set[Path]) -> str:
    """Return the suffix of the annotation files: ``atr``, unless the records have other files with one other suffix."""
    of_records = set(records)
    found = {file.suffix[1:] for file in folder.iterdir() if file.stem in of_records and file not in files}
    if DEFAULT_ANNOTATOR in found or len(found) != 1:
        return DEFAULT_ANNOTATOR
    return found.pop()


def _read_labels(path: Path) -> dict[str, list[tuple[float, str]]]:
    labels: dict[str, list[tuple[float, str]]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file, skipinitialspace=True), start=1):
            if not row or (number == 1 and row[0].strip().lower() == "record"):
                continue
            try:
                record, *start, code = (cell.strip() for cell in row)
                (start_s,) = map(float, start or ["0"])
                if not (record and code):
                    raise ValueError("a cell is empty")
            except ValueError:
                raise ValueError(
                    f"{path}, line {number}: {','.join(row)!r} is not a label; write record,code or record,start_s,code"
                ) from None
            labels.setdefault(record, []).append((start_s, code))
    return labels


def _label(label: list[tuple[float, str]]) -> object:
    """Return a label in the form of a manifest. A missing label is empty, and `load_manifest` refuses it."""
    if not label:
        return ""
    return label[0][1] if len(label) == 1 and label[0][0] == 0 else [list(part) for part in label]


def _table(name: str, content: Mapping[str, object]) -> str:
    return tomli_w.dumps({name: content}) if content else f"[{name}]\n"


def _quoted(text: str) -> str:
    return tomli_w.dumps({"text": text}).partition(" = ")[2].strip()
