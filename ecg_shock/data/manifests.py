"""Read manifests. A manifest lists the files of a database with their digests, and says how to read the labels.

A manifest is a TOML file. The manifests of the public databases are in `data_manifests/`. A function that takes the
name of a database also takes the path of your own manifest.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ecg_shock.files import explain, read_toml
from ecg_shock.rhythms import RHYTHMS, UNUSABLE

# Letters, digits, "_" and "-", with single dots between them: no separator, no drive, no "..", no hidden file.
# Temporary files of a download begin with a dot, so they never clash with a name in a manifest.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
MAX_FAULTS = 3  # faults that an error lists; each of a thousand files may have the same fault
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """The size and digest that a file must have.

    Parameters
    ----------
    bytes : int
        Size of the file in bytes.
    sha256 : str, optional
        SHA-256 of the file, 64 lower-case hexadecimal digits.
    samples_sha256 : str, optional
        SHA-256 of the digital samples of a WFDB format 212 file, decoded to little-endian int16. Use it if copies of
        the file may pack the same samples differently.
    header_sha256 : str, optional
        SHA-256 of the signal descriptions in a WFDB header, as ``ecg_shock.data.fetch.header_content`` returns them.
        Use it if copies of the header may differ in comments or spacing. `bytes` is then not checked.
    """

    __pydantic_config__ = {"extra": "forbid"}

    bytes: int
    sha256: str | None = None
    samples_sha256: str | None = None
    header_sha256: str | None = None

    def __post_init__(self) -> None:
        if self.bytes <= 0:
            raise ValueError(f"bytes is {self.bytes!r}; give the size of the file, 1 or more")
        digests = [d for d in (self.sha256, self.samples_sha256, self.header_sha256) if d is not None]
        if not digests:
            raise ValueError("there is no checksum; give one of sha256, samples_sha256 and header_sha256")
        if self.samples_sha256 is not None and self.bytes % 3:
            raise ValueError(f"bytes is {self.bytes!r}; the size of a format 212 file must be a multiple of 3")
        for digest in digests:
            if not _SHA256.fullmatch(digest):
                raise ValueError(f"{digest!r} is not a SHA-256; write 64 lower-case hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A database: where it comes from, its files, its rhythm codes and its patients.

    Parameters
    ----------
    name : str
        Name of the database, and of the folder that holds its files, such as ``"vfdb"``.
    title, version, licence, citation : str
        As the publisher gives them; `citation` has one publication per line.
    doi, url : str
        Empty if the database is not published. The files are fetched from the folder `url`, in which ``{name[:3]}``
        stands for the first three characters of a file's name.
    annotator : str
        Suffix of the annotation files.
    guard_s : float
        Uncertainty of the onsets of the labels, in seconds.
    rhythm_codes : mapping of str to str
        The meaning of each rhythm code of the database: the name of a rhythm in `ecg_shock.rhythms`.
    record_labels : mapping of str to str or to tuple of (float, str)
        Labels of records without an annotation file: one rhythm code for the whole record, or pairs of start time in s
        and rhythm code. The first start time is 0.
    patients : mapping of str to str
        For patients with several records: maps each record to the first record of the same patient. If the first record
        is in another database, write ``"database/record"``. A patient without an entry is named after the record.
    files : mapping of str to FileEntry
        Size and digest of each file, by file name.
    """

    __pydantic_config__ = {"extra": "forbid"}

    name: str
    title: str
    version: str
    licence: str
    citation: str
    doi: str = ""
    url: str = ""
    annotator: str = "atr"
    guard_s: float = 0.0
    rhythm_codes: Mapping[str, str] = field(default_factory=dict)
    record_labels: Mapping[str, str | tuple[tuple[float, str], ...]] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, FileEntry]

    def __post_init__(self) -> None:
        if not self.files:
            raise ValueError("[files] is empty; `ecg-shock manifest FOLDER` writes a manifest of the files in a folder")
        for name in (self.name, *self.files):
            check_plain_name(name)
        if not 0 <= self.guard_s < float("inf"):
            raise ValueError(f"guard_s is {self.guard_s!r}; it must be a finite number of seconds, 0 or more")
        known = (*RHYTHMS, *UNUSABLE)
        if empty := [code for code, rhythm in self.rhythm_codes.items() if rhythm == ""]:
            raise ValueError(
                f"[rhythm_codes] does not say what {', '.join(map(repr, empty))} means; allowed are {', '.join(known)}"
            )
        for code, rhythm in self.rhythm_codes.items():
            if rhythm not in known:
                raise ValueError(f"[rhythm_codes] gives {code!r} the rhythm {rhythm!r}; allowed are {', '.join(known)}")
        if unlabelled := [record for record, label in self.record_labels.items() if label == ""]:
            more = f" and {len(unlabelled) - 1} more" if len(unlabelled) > 1 else ""
            raise ValueError(
                f"[record_labels] gives no code for {unlabelled[0]!r}{more}; write the code of each record's rhythm"
            )
        for record in self.record_labels:
            self._check_record_label(record)
        for record, patient in self.patients.items():
            if f"{record}.hea" not in self.files:
                raise ValueError(
                    f"[patients] names the record {record!r}, but [files] has no {record}.hea; add this file, or "
                    "correct the name"
                )
            if len(patient.split("/")) > 2 or not all(map(_PLAIN_NAME.fullmatch, patient.split("/"))):
                raise ValueError(
                    f"[patients] gives {record!r} the patient {patient!r}; write 'record' or 'database/record'"
                )
            first = patient.removeprefix(f"{self.name}/")
            if first in self.patients and self.patient_of(first) != self.patient_of(record):
                raise ValueError(
                    f"[patients] gives {record!r} the patient {first!r}, but {first!r} has the patient "
                    f"{self.patients[first]!r}; write {record} = {self.patients[first]!r}"
                )

    def _check_record_label(self, record: str) -> None:
        if f"{record}.hea" not in self.files:
            raise ValueError(
                f"[record_labels] names the record {record!r}, but [files] has no {record}.hea; add this file, or "
                "correct the name"
            )
        labels = self.labels_of(record)
        starts_s = [start_s for start_s, _ in labels]
        rises = all(a < b < float("inf") for a, b in zip(starts_s, starts_s[1:], strict=False))
        if not (labels and starts_s[0] == 0 and rises):
            raise ValueError(
                f"[record_labels] gives {record!r} the start times {starts_s} s; the first must be 0, and they must "
                "increase"
            )
        unknown = [code for _, code in labels if code not in self.rhythm_codes]
        if unknown:
            raise ValueError(
                f"[record_labels] gives {record!r} the code {unknown[0]!r}, which is not in [rhythm_codes]; add it "
                "there"
            )

    @property
    def records(self) -> tuple[str, ...]:
        """Names of the WFDB records, in the order of `files`."""
        return tuple(PurePosixPath(name).stem for name in self.files if name.endswith(".hea"))

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.bytes for entry in self.files.values())

    @property
    def files_sha256(self) -> str:
        """SHA-256 of a text with one line per file, sorted by name: name, size and digest."""
        lines = (
            f"{name} {entry.bytes} {entry.sha256 or entry.samples_sha256 or entry.header_sha256}\n"
            for name, entry in sorted(self.files.items())
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def labels_of(self, record: str) -> tuple[tuple[float, str], ...]:
        """Return the labels of a record in `record_labels`, as pairs of start time in s and rhythm code."""
        labels = self.record_labels[record]
        return ((0.0, labels),) if isinstance(labels, str) else labels

    def patient_of(self, record: str) -> str:
        """Return the name of a record's patient: the first record of this patient, as ``"database/record"``.

        Raises
        ------
        ValueError
            If the database has no such record.

        Examples
        --------
        >>> load_manifest("mitdb").patient_of("202")
        'mitdb/201'
        """
        if f"{record}.hea" not in self.files:
            raise ValueError(f"{self.name} has no record {record!r}; it has {', '.join(self.records)}")
        patient = self.patients.get(record, record)
        return patient if "/" in patient else f"{self.name}/{patient}"


def check_plain_name(name: str) -> None:
    """Raise ValueError if a name of a file or database could refer to a place outside its folder."""
    if not _PLAIN_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not allowed as a name of a file or database; allowed are letters, digits, '_' and '-', with "
            "single dots between them"
        )


def resource_dir(name: str) -> Path:
    """Return the path of a folder that comes with the package, such as ``"data_manifests"``.

    An installed wheel has the folder inside the package; a checkout has it next to the package.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = (package / "_resources" / name, package.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"found neither {candidates[0]} nor {candidates[1]}; install ecg-shock again")


def _packaged() -> dict[str, Path]:
    return {path.stem: path for path in sorted(resource_dir("data_manifests").glob("*.toml"))}


def packaged_names() -> tuple[str, ...]:
    """Return the names of the databases whose manifests come with the package."""
    return tuple(_packaged())


def is_packaged(name_or_path: str | Path) -> bool:
    """Return whether this is the name of a database whose manifest comes with the package."""
    return str(name_or_path) in _packaged()


def load_manifest(name_or_path: str | Path) -> Manifest:
    """Read and check a manifest.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        The name of a database whose manifest comes with the package, or the path of your own manifest, ending in
        ``.toml``.

    Returns
    -------
    Manifest
        The manifest.

    Raises
    ------
    FileNotFoundError
        If there is no file at the path.
    ValueError
        If the database is unknown, or the file is not a valid manifest.

    Examples
    --------
    >>> vfdb = load_manifest("vfdb")
    >>> vfdb.records[:3], vfdb.rhythm_codes["(VFL"]
    (('418', '419', '420'), 'vf')
    """
    from pydantic import TypeAdapter, ValidationError

    packaged = _packaged()
    path = packaged.get(str(name_or_path), Path(name_or_path).expanduser())
    if path.suffix != ".toml":
        raise ValueError(
            f"unknown database {str(name_or_path)!r}; known are {', '.join(packaged)}. To use your own database, give "
            "the path of its manifest, ending in .toml"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no manifest {path}; give its path, or write it: `ecg-shock manifest FOLDER`")
    try:
        return TypeAdapter(Manifest).validate_python(read_toml(path))
    except ValidationError as error:
        raise ValueError(f"{path} is not a valid manifest; correct {_first(explain(error))}") from error


def _first(faults: list[str]) -> str:
    more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    return "; ".join([*faults[:MAX_FAULTS], *more])


def data_dir(override: str | Path | None = None) -> Path:
    """Return the data folder, in which each database has a folder of the same name.

    This is `override` if given (the commands pass ``--data``), else the environment variable ``ECG_SHOCK_DATA``, else
    the user's cache folder for this package.
    """
    chosen = override or os.environ.get("ECG_SHOCK_DATA")
    if chosen:
        return Path(chosen).expanduser()
    import pooch

    return Path(pooch.os_cache("ecg_shock"))


def cache_dir() -> Path:
    """Return the folder for cached files, which the package can compute again.

    This is the folder in the environment variable ``ECG_SHOCK_CACHE``, else the user's cache folder for this package.
    """
    import pooch

    return Path(os.environ.get("ECG_SHOCK_CACHE") or pooch.os_cache("ecg_shock")).expanduser()


def database_path(database: str | Path, folder: str | Path | None = None, file: str = "") -> Path:
    """Return the path of a database's folder, or of a file in this folder; raise FileNotFoundError if it is missing.

    `database` is the name of a database, or the path of its manifest.
    """
    manifest = load_manifest(database)
    path = data_dir(folder) / manifest.name / file
    if not (path.is_file() if file else path.is_dir()):
        get = f"run `ecg-shock fetch {database}`" if manifest.url else f"copy the recordings of {database} there"
        raise FileNotFoundError(
            f"{path} is missing; {get}, or point --data or ECG_SHOCK_DATA to the folder that holds {manifest.name}/."
        )
    return path
