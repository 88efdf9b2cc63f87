"""Load the windows of a run, split by patient into training, validation and test subsets."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ecg_shock.data.annotations import read_labelled
from ecg_shock.data.corrections import Corrections, read_corrections
from ecg_shock.data.fetch import require_verified
from ecg_shock.data.manifests import Manifest, cache_dir, load_manifest, packaged_names
from ecg_shock.data.recordings import Recording
from ecg_shock.data.same_files import signal_digests
from ecg_shock.data.splits import Fold, load_split
from ecg_shock.data.synthetic import DATABASE as SYNTHETIC
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import ARRAY_FIELDS, Excluded, LabelPolicy, WindowSet, concatenate, cut_windows
from ecg_shock.files import atomic_writer
from ecg_shock.preprocessing import MAX_WINDOW_S, MIN_WINDOW_S, Preprocessing
from ecg_shock.rhythms import INTERMEDIATE, NONSHOCKABLE, SHOCKABLE

logger = logging.getLogger(__name__)

SYNTHETIC_PATIENTS = 60  # the number of patients in data_manifests/splits/synthetic-v1.toml
SYNTHETIC_SEED = 0
SHOWN_NAMES = 5  # names that an error lists; a database may have thousands of patients
CHECK_ONE_IN = 5  # one in five patients of extra databases is used to measure specificity, not for training
SYNTHETIC_GUARD_S = 0.5  # synthetic labels are exact, but the filters need time to settle

# Modules that determine the windows. If one of them changes, cached windows are computed again.
SOURCES = (
    "preprocessing.py",
    "rhythms.py",
    "data/annotations.py",
    "data/corrections.py",
    "data/datasets.py",
    "data/edf_files.py",
    "data/lead_labels.py",
    "data/manifests.py",
    "data/readers.py",
    "data/signal_files.py",
    "data/record_labels.py",
    "data/recordings.py",
    "data/tables.py",
    "data/unpacking.py",
    "data/wfdb_files.py",
    "data/wfdb_header.py",
    "data/synthetic.py",
    "data/windows.py",
)


class DataConfig(BaseModel):
    """Settings of the data: which recordings are used, and how they are cut into windows.

    Parameters
    ----------
    databases : tuple of str
        Names of databases or paths of manifests, or ``("synthetic",)`` for synthetic recordings.
    split : str, optional
        Name of a split in `data_manifests/splits/`, or the path of your own ``.toml`` file. The default is
        ``"synthetic-v1"`` for synthetic recordings and ``"public-v1"`` for other databases.
    fold : int
        Index of the outer fold, from 0, which determines the test patients.
    window_s : float
        Length of the windows in seconds, 2 to 10.
    train_leads : {"first", "all"}
        Leads to train on. Validation and test use the first lead only.
    max_windows : int or None
        Maximum number of training windows per patient and AHA class, evenly spread over the recording; None for no
        limit.
    supplement : tuple of str
        AHA classes of which synthetic windows are added to the training subset.
    extra : tuple of str
        Names of databases or paths of manifests. About four fifths of the patients of these databases are added to the
        training subset. The other patients are used to measure the specificity on patients of other hospitals. No
        patient of these databases may be in the split.
    extra_weight : float
        Total weight of the nonshockable windows of `extra`, as a proportion of the total weight of all nonshockable
        training windows; above 0 and below 1. See `training_weights`.
    preprocessing : Preprocessing
        Parameters of the preprocessing.
    labels : LabelPolicy
        The limits between AHA classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    databases: tuple[str, ...] = Field(default=("vfdb", "cudb", "mitdb"), min_length=1)
    split: str = "public-v1"
    fold: int = Field(default=0, ge=0)
    window_s: float = Field(default=5.0, ge=MIN_WINDOW_S, le=MAX_WINDOW_S)
    train_leads: Literal["first", "all"] = "all"
    max_windows: int | None = Field(default=60, ge=1)
    supplement: tuple[Literal["coarse_vf", "rapid_vt", "normal_sinus", "other_nonshockable", "asystole"], ...] = ()
    extra: tuple[str, ...] = ()
    extra_weight: float = Field(default=0.4, gt=0, lt=1)
    preprocessing: Preprocessing = Preprocessing()
    labels: LabelPolicy = LabelPolicy()

    @model_validator(mode="before")
    @classmethod
    def _choose_split(cls, values: Any) -> Any:
        """Set the default split if none is given."""
        if not isinstance(values, dict) or values.get("split") is not None:
            return values
        synthetic_only = values.get("databases") in ([SYNTHETIC], (SYNTHETIC,))
        return {**values, "split": "synthetic-v1" if synthetic_only else "public-v1"}

    @field_validator("databases", "extra")
    @classmethod
    def _are_different(cls, databases: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(databases)) < len(databases):
            raise ValueError("a database is listed twice; list each database once")
        return databases

    def with_paths(self, convert: Callable[[str], str]) -> DataConfig:
        """Return a copy in which `convert` was applied to the paths of manifests, split and corrections."""

        def replaced(name: str) -> str:
            return convert(name) if name.endswith(".toml") else name

        corrections = self.labels.corrections
        return self.model_copy(
            update={
                "databases": tuple(map(replaced, self.databases)),
                "extra": tuple(map(replaced, self.extra)),
                "split": replaced(self.split),
                "labels": replace(self.labels, corrections=corrections and convert(corrections)),
            }
        )

    @field_validator("extra")
    @classmethod
    def _are_recorded(cls, extra: tuple[str, ...]) -> tuple[str, ...]:
        if SYNTHETIC in extra:
            raise ValueError(f"{SYNTHETIC!r} is not allowed in extra; add synthetic windows with supplement")
        return extra


@dataclass(frozen=True, eq=False)
class Subsets:
    """Windows for training, validation and test. Each patient is in one subset only.

    Parameters
    ----------
    train, validation, test : WindowSet
        The three subsets. Only `test` has windows of the intermediate AHA classes.
    other_hospitals : WindowSet, optional
        Nonshockable windows of the `DataConfig.extra` patients that are not in `train`, to measure specificity.
    seen_files : tuple of str
        Digests of the signal files of all patients except the test patients, sorted; see `signal_digests`.
    """

    train: WindowSet
    validation: WindowSet
    test: WindowSet
    other_hospitals: WindowSet | None = None
    seen_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        train, validation, test = (
            frozenset(windows.patient.tolist()) for windows in (self.train, self.validation, self.test)
        )
        Fold(train, validation, test)  # raises ValueError if two subsets share a patient
        if self.other_hospitals is not None:
            shared = (train | validation | test).intersection(self.other_hospitals.patient.tolist())
            if shared:
                raise ValueError(
                    f"patients {sorted(shared)!r} are in other_hospitals and in another subset; each patient must be "
                    "in one subset only."
                )


@dataclass(frozen=True)
class ExtraPatients:
    """The patients that a database of `DataConfig.extra` adds.

    Parameters
    ----------
    version : str
        Version of the database.
    train : frozenset of str
        The patients who are added to the training subset.
    check : frozenset of str
        All other patients of the database. The specificity on other hospitals is measured on these patients.
    """

    version: str
    train: frozenset[str]
    check: frozenset[str]


def load_subsets(data: DataConfig, folder: Path | None = None) -> Subsets:
    """Load the training, validation and test windows of a run.

    Windows that are not in the cache are cut from the recordings, and written to the cache.

    Parameters
    ----------
    data : DataConfig
        The settings of the data.
    folder : pathlib.Path, optional
        Folder that holds the databases; see `ecg_shock.data.manifests.data_dir`.

    Raises
    ------
    ValueError
        If the split has no such fold; if a patient is in the split but in no database, or in a database but not in the
        split; if a patient of `data.extra` is in the split; if two patients have the same signal file; or if a record
        has no labels, or differs from its manifest.
    FileNotFoundError
        If a database is missing.
    """
    digests = signal_digests((name for name in (*data.databases, *data.extra) if name != SYNTHETIC), folder)
    fold, first_lead = _load_known(data, folder, "first")
    train = first_lead if data.train_leads == "first" else _load_known(data, folder, data.train_leads)[1]
    train = train.select(_has_patient_of(fold.train, train) & _is_not_intermediate(train))
    if data.supplement:
        added = load_windows(data.model_copy(update={"databases": (SYNTHETIC,)}))
        train = concatenate([train, added.select(np.isin(added.aha_class, data.supplement))])
    if data.extra:
        patients = extra_patients(data).values()
        extra = data.model_copy(update={"databases": data.extra})
        added = load_windows(extra, folder, leads=data.train_leads)
        added = added.select(
            _has_patient_of(frozenset().union(*(p.train for p in patients)), added) & _is_not_intermediate(added)
        )
        train = concatenate([train, added])
    return Subsets(
        train=train if data.max_windows is None else train.select(_thin_out(train, data.max_windows)),
        validation=first_lead.select(_has_patient_of(fold.validation, first_lead) & _is_not_intermediate(first_lead)),
        test=first_lead.select(_has_patient_of(fold.test, first_lead)),
        other_hospitals=load_other_hospitals(data, folder) if data.extra else None,
        seen_files=tuple(sorted(key for key, patient in digests.items() if patient not in fold.test)),
    )


def load_other_hospitals(data: DataConfig, folder: Path | None = None) -> WindowSet:
    """Load the nonshockable windows of the patients of `data.extra` who are not used for training.

    `data.extra` must name at least one database. For the errors, see `extra_patients` and `load_windows`.
    """
    check = frozenset().union(*(patients.check for patients in extra_patients(data).values()))
    windows = load_windows(data.model_copy(update={"databases": data.extra}), folder)
    return windows.select(_has_patient_of(check, windows) & np.isin(windows.aha_class, NONSHOCKABLE))


def extra_patients(data: DataConfig) -> dict[str, ExtraPatients]:
    """Return the patients of each database in `data.extra`, by database name.

    All patients in the manifest of a database are included, even patients whose recordings have no windows.

    Raises
    ------
    ValueError
        If the split has no such fold, or if a patient of `data.extra` is in the split or in two databases.
    """
    fold = _fold_of(data)
    known = fold.train | fold.validation | fold.test
    found: dict[str, ExtraPatients] = {}
    for name in data.extra:
        manifest = load_manifest(name)
        patients = frozenset(map(manifest.patient_of, manifest.records))
        if shared := patients & known:
            raise ValueError(
                f"extra has {name!r}, but its patients {sorted(shared)[:5]!r} are already in split {data.split!r} or "
                f"in another extra database; remove {name!r} from extra."
            )
        known |= patients
        check = frozenset(patient for patient in patients if _is_check_patient(patient))
        found[manifest.name] = ExtraPatients(manifest.version, patients - check, check)
    return found


def of_extra(windows: WindowSet, data: DataConfig) -> np.ndarray:
    """Return which windows are from a database in `data.extra`, as booleans of shape (n_windows,)."""
    return np.isin(windows.database, [load_manifest(name).name for name in data.extra])


def training_weights(windows: WindowSet, data: DataConfig) -> np.ndarray:
    """Return the weights of training windows.

    The nonshockable windows of `data.extra` together get `data.extra_weight` times the weight of all nonshockable
    windows.

    Parameters
    ----------
    windows : WindowSet
        The training windows.
    data : DataConfig
        The settings with which the windows were loaded.

    Returns
    -------
    numpy.ndarray
        Shape (n_windows,). The weight is 1 for shockable windows, and 1 on average for nonshockable windows.
    """
    weights = np.ones(len(windows))
    nonshockable = ~shockable(windows)
    extra = nonshockable & of_extra(windows, data)
    own = nonshockable & ~extra
    if extra.any() and own.any():
        weights[extra] = data.extra_weight * nonshockable.sum() / extra.sum()
        weights[own] = (1 - data.extra_weight) * nonshockable.sum() / own.sum()
    return weights


def training_recordings(data: DataConfig, folder: Path | None = None) -> Iterator[Recording]:
    """Yield the labelled recordings of the training patients, including the training patients of `data.extra`.

    For the errors, see `labelled_recordings` and `extra_patients`.

    Parameters
    ----------
    data : DataConfig
        Databases, split and fold. The synthetic patients of `supplement` are not yielded.
    folder : pathlib.Path, optional
        Folder that holds the databases.
    """
    train = _fold_of(data).train.union(*(patients.train for patients in extra_patients(data).values()))
    for name in (*data.databases, *data.extra):
        records = [record for record, patient in patients_by_record(name).items() if patient in train]
        yield from labelled_recordings(name, folder, records, labels=data.labels)


def guard_s(data: DataConfig) -> dict[str, float]:
    """Return the smallest allowed distance of a window from a change of rhythm in seconds, by database name."""
    manifests = [load_manifest(name) for name in (*data.databases, *data.extra) if name != SYNTHETIC]
    return {SYNTHETIC: SYNTHETIC_GUARD_S, **{manifest.name: manifest.guard_s for manifest in manifests}}


def load_test(data: DataConfig, folder: Path | None = None) -> WindowSet:
    """Load the test subset of a run: the windows of all AHA classes of the test patients.

    Parameters
    ----------
    data : DataConfig
        The settings of the data. `extra`, `supplement` and `max_windows` do not affect the test subset.
    folder : pathlib.Path, optional
        Folder that holds the databases; see `ecg_shock.data.manifests.data_dir`.

    Raises
    ------
    ValueError
        If the split has no such fold; if a patient is in the split but in no database, or in a database but not in the
        split; or if a record has no labels, or differs from its manifest.
    FileNotFoundError
        If a database is missing.
    """
    fold, windows = _load_known(data, folder, "first")
    return windows.select(_has_patient_of(fold.test, windows))


def load_validation(data: DataConfig, folder: Path | None = None) -> WindowSet:
    """Load the validation subset of a run: the windows of the validation patients, without intermediate AHA classes.

    The parameters and errors are the same as for `load_test`.
    """
    fold, windows = _load_known(data, folder, "first")
    return windows.select(_has_patient_of(fold.validation, windows) & _is_not_intermediate(windows))


def load_windows(data: DataConfig, folder: Path | None = None, *, leads: str = "first") -> WindowSet:
    """Load all windows of the databases, of every class.

    Parameters
    ----------
    data : DataConfig
        Databases, window length, filter and labels; split and fold are ignored.
    folder : pathlib.Path, optional
        Folder that holds the databases. Their files must be there and match their manifests, even if their windows are
        in the cache.
    leads : {"first", "all"}
        Which leads of each recording to load.

    Raises
    ------
    ValueError
        If a database is unknown, or if a record has no labels or differs from its manifest.
    FileNotFoundError
        If a database is missing.
    """
    return concatenate(_load_database(name, data, folder, leads) for name in data.databases)


def shockable(windows: WindowSet) -> np.ndarray:
    """Return which windows are shockable, as booleans of shape (n_windows,)."""
    return np.isin(windows.aha_class, SHOCKABLE)


def patients_in(databases: Iterable[str]) -> frozenset[str]:
    """Return the names of all patients in the manifests of these databases; the name "synthetic" is ignored."""
    manifests = [load_manifest(name) for name in databases if name != SYNTHETIC]
    return frozenset(manifest.patient_of(record) for manifest in manifests for record in manifest.records)


def _load_known(data: DataConfig, folder: Path | None, leads: str) -> tuple[Fold, WindowSet]:
    """Return the fold and all windows of the databases; raise ValueError if the split does not fit the databases."""
    fold = _fold_of(data)
    listed = fold.train | fold.validation | fold.test
    absent = listed - patients_in(data.databases)
    # A split may list patients of public databases that a run does not use.
    public = {patient.partition("/")[0] for patient in absent}.intersection(packaged_names())
    misspelt = {p for p in absent - patients_in(public) if not p.startswith(f"{SYNTHETIC}/")}
    if misspelt:
        raise ValueError(
            f"split {data.split!r} lists the patients {_shown(misspelt)}, but no database has them; correct the "
            "split, or add the database of these patients"
        )
    windows = load_windows(data, folder, leads=leads)
    unknown = set(windows.patient.tolist()) - listed
    if unknown:
        own = " ".join(data.databases)
        raise ValueError(
            f"split {data.split!r} does not list the patients {_shown(unknown)}; write a split with "
            f"`ecg-shock split {own}`, and give it as train --split, or as data.split in a study."
        )
    return fold, windows


def _fold_of(data: DataConfig) -> Fold:
    folds = load_split(data.split)
    if data.fold >= len(folds):
        raise ValueError(f"fold={data.fold!r}, but {data.split!r} has the folds 0 to {len(folds) - 1}.")
    return folds[data.fold]


def _is_check_patient(patient: str) -> bool:
    """Return whether a patient of an extra database is a check patient. A hash of the name decides."""
    return int(hashlib.sha256(patient.encode()).hexdigest(), 16) % CHECK_ONE_IN == 0


def _has_patient_of(patients: frozenset[str], windows: WindowSet) -> np.ndarray:
    return np.isin(windows.patient, sorted(patients))


def _is_not_intermediate(windows: WindowSet) -> np.ndarray:
    return ~np.isin(windows.aha_class, INTERMEDIATE)


def _load_database(name: str, data: DataConfig, folder: Path | None, leads: str) -> WindowSet:
    manifest = None if name == SYNTHETIC else load_manifest(name)
    if manifest:
        _require_labels(manifest)
        require_verified(name, folder)  # windows in the cache were cut from the files in the manifest
    corrections = load_corrections(data.labels)
    corrections_digest = corrections.sha256 if corrections else None
    key = {
        "sources": _sources_digest(),
        "manifest": asdict(manifest) if manifest else [SYNTHETIC_PATIENTS, SYNTHETIC_SEED, SYNTHETIC_GUARD_S],
        "window_s": data.window_s,
        "leads": leads,
        "preprocessing": asdict(data.preprocessing),
        "labels": {**asdict(data.labels), "corrections": None, "corrections_sha256": corrections_digest},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    stem = manifest.name if manifest else SYNTHETIC
    path = cache_dir() / "windows" / f"{stem}-{data.window_s:g}s-{leads}-{digest}.npz"
    cached = _read_cache(path)
    if cached is not None:
        return cached
    cut = partial(
        cut_windows,
        window_s=data.window_s,
        guard_s=manifest.guard_s if manifest else SYNTHETIC_GUARD_S,
        leads=leads,
        preprocessing=data.preprocessing,
        policy=data.labels,
    )
    windows = concatenate(map(cut, labelled_recordings(name, folder, labels=data.labels)))
    _write_cache(path, windows)
    return windows


@lru_cache(maxsize=1)
def _sources_digest() -> str:
    package = Path(__file__).parents[1]
    return hashlib.sha256(b"".join((package / name).read_bytes() for name in SOURCES)).hexdigest()


def load_corrections(labels: LabelPolicy) -> Corrections | None:
    """Read the corrections of a label policy; return None if it has none. Errors are those of `read_corrections`."""
    return read_corrections(labels.corrections, labels.corrections_sha256) if labels.corrections else None


def patients_by_record(name: str) -> dict[str, str]:
    """Return the patient of each record of a database, by name of the record."""
    if name == SYNTHETIC:
        return dict(_synthetic_patients())
    manifest = load_manifest(name)
    return {record: manifest.patient_of(record) for record in manifest.records}


@lru_cache(maxsize=1)
def _synthetic_patients() -> tuple[tuple[str, str], ...]:
    recordings = synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED)
    return tuple((recording.name, recording.patient) for recording in recordings)


def name_of(database: str) -> str:
    """Return the name of a database that is given by its name or by the path of its manifest."""
    return SYNTHETIC if database == SYNTHETIC else load_manifest(database).name


def labelled_recordings(
    name: str,
    folder: Path | None = None,
    records: Collection[str] | None = None,
    *,
    labels: LabelPolicy | None = None,
) -> Iterator[Recording]:
    """Yield the labelled recordings of a database, after checking its files against the manifest.

    Parameters
    ----------
    name : str
        Name of the database, or the path of its manifest.
    folder : pathlib.Path, optional
        Folder that holds the databases.
    records : collection of str, optional
        Names of the records; all if not given.
    labels : LabelPolicy, optional
        The label policy whose corrections are applied; none if not given.

    Raises
    ------
    ValueError
        If the database has records without labels, or files that differ from its manifest; or if a correction does not
        match the labels.
    FileNotFoundError
        If the database is missing.
    """
    corrections = load_corrections(labels) if labels else None
    for recording in _recordings(name, folder, records):
        yield corrections.apply(recording) if corrections else recording


def _recordings(name: str, folder: Path | None, records: Collection[str] | None) -> Iterator[Recording]:
    if name == SYNTHETIC:
        for recording in synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED):
            if records is None or recording.name in records:
                yield recording
        return
    manifest = load_manifest(name)
    _require_labels(manifest)
    path = require_verified(name, folder)
    for record in manifest.records:
        if records is None or record in records:
            yield read_labelled(record, manifest, path)


def _require_labels(manifest: Manifest) -> None:
    """Raise ValueError if a record has no labels."""
    unlabelled = [
        record
        for record in manifest.records
        if record not in manifest.record_labels and f"{record}.{manifest.annotator}" not in manifest.files
    ]
    if unlabelled:
        raise ValueError(
            f"{manifest.name} has no labels for its records {_shown(unlabelled)}: its manifest has neither "
            f".{manifest.annotator} files nor [record_labels] for them. Add labels to the manifest, or use another "
            "database."
        )


def _shown(names: Collection[str]) -> str:
    """Return the first names, and the number of further names, for an error."""
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"{sorted(names)[:SHOWN_NAMES]!r}{more}"


def _read_cache(path: Path) -> WindowSet | None:
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ARRAY_FIELDS}
            excluded = tuple(Excluded(*entry) for entry in json.loads(str(stored["excluded"])))
            return WindowSet(**arrays, window_s=float(stored["window_s"]), excluded=excluded)
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s cannot be read (%s); the windows are computed again.", path, error)
        return None


def _write_cache(path: Path, windows: WindowSet) -> None:
    excluded = json.dumps([[e.database, e.record, e.reason, e.seconds] for e in windows.excluded])
    arrays = {name: getattr(windows, name) for name in ARRAY_FIELDS}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path) as file:
            np.savez(file, **arrays, window_s=windows.window_s, excluded=excluded)
    except OSError as error:
        logger.warning("%s cannot be written (%s); the windows will be computed again each time.", path, error)


def _thin_out(windows: WindowSet, max_windows: int) -> np.ndarray:
    """Return the indices of at most `max_windows` windows of each patient and class, evenly spread."""
    picked: list[int] = []
    names = np.char.add(np.char.add(windows.patient, "\t"), windows.aha_class)
    for name in np.unique(names):
        indices = np.flatnonzero(names == name)
        count = min(max_windows, len(indices))
        picked.extend(indices[np.linspace(0, len(indices) - 1, count).round().astype(int)])
    return np.array(sorted(picked), dtype=int)
