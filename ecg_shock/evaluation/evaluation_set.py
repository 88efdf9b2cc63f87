"""Predict the test patients: each model predicts the test patients of its own fold, and the folds are pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecg_shock.data.corrected import count_corrected
from ecg_shock.data.corrections import CorrectedSeconds, read_corrections
from ecg_shock.data.datasets import (
    SYNTHETIC,
    DataConfig,
    labelled_recordings,
    load_subsets,
    load_test,
    load_windows,
    name_of,
    patients_by_record,
)
from ecg_shock.data.manifests import data_dir, load_manifest
from ecg_shock.data.recordings import Recording
from ecg_shock.data.splits import load_split
from ecg_shock.data.windows import Excluded, LabelPolicy, WindowSet, amplitude_mv, concatenate, rate_bpm
from ecg_shock.evaluation.baselines import baseline_predictions
from ecg_shock.evaluation.metrics import Model
from ecg_shock.evaluation.predictions import Predictions, combine_predictions
from ecg_shock.inference.advisor import Advisor
from ecg_shock.models.bundle import BUNDLE_NAME, LITERT_NAME, TOML_NAME, Bundle, load_bundle
from ecg_shock.models.seen_files import check_unseen_files

SHOWN_PATIENTS = 10  # named in an error
DURATIONS_S = (2.0, 3.0, 4.0, 5.0, 8.0, 10.0)  # of the windows that our own models are evaluated on


class Record(NamedTuple):
    """A record with its database and patient.

    `source` is the database as the caller gave it: a name, or the path of a manifest.
    """

    source: str
    database: str
    name: str
    patient: str


@dataclass(frozen=True)
class EvaluationSet:
    """The models to evaluate, and their test patients.

    Parameters
    ----------
    bundles : tuple of Bundle
        One model, or one of each fold; see `find_bundles`.
    databases : tuple of str
        For a single bundle: names or manifest paths of databases that were not used to train or select the model. All
        patients of these databases are then tested, instead of the test patients of its fold.
    folder : pathlib.Path, optional
        Folder of the databases; see `ecg_shock.data.manifests.data_dir`.
    corrections : pathlib.Path, optional
        A file of corrections, which replaces that of the models' label policy; see `ecg_shock.data.corrections`.

    Raises
    ------
    ValueError
        If there is no bundle; if there are several bundles and `databases` are given; if a card does not name its
        patients; if all patients trained a model, and no `databases` are given; or if a model was trained or selected
        on a tested recording under another name.

    Notes
    -----
    Only the first lead of each recording is evaluated. Every method that returns windows, records or predictions raises
    a ValueError if a model was trained on or selected with a test patient, and a FileNotFoundError if a database is
    missing.
    """

    bundles: tuple[Bundle, ...]
    databases: tuple[str, ...] = ()
    folder: Path | None = None
    corrections: Path | None = None

    def __post_init__(self) -> None:
        if not self.bundles:
            raise ValueError("there is no bundle to evaluate; give one or more bundles.")
        if self.corrections:
            names = self.databases or self.bundles[0].card.data.databases
            read_corrections(self.corrections).check_records(
                {name_of(name): patients_by_record(name) for name in names}
            )
        if self.databases and len(self.bundles) > 1:
            raise ValueError(
                f"there are {len(self.bundles)} bundles; give only one to evaluate on {', '.join(self.databases)}."
            )
        for bundle in self.bundles:
            card = bundle.card  # raises if it is incomplete
            if not self.databases and not card.patients.test:
                raise ValueError(
                    f"{bundle.folder} was trained on all patients of {card.data.split}, so no patient is left to test "
                    "it. Give recordings of other patients with --databases, or a folder of models of single folds. "
                    "The accuracy to expect is in its CARD.md."
                )
            tested = (self.databases, None) if self.databases else (card.data.databases, card.patients.test)
            check_unseen_files(bundle, tested[0], self.folder, tested[1])

    @cached_property
    def by_fold(self) -> dict[int, EvaluationSet]:
        """For each fold, an evaluation set with that fold's bundle only; the only key is 0 if `databases` are given."""
        return {
            0 if self.databases else bundle.card.data.fold: replace(self, bundles=(bundle,)) for bundle in self.bundles
        }

    @cached_property
    def advisors(self) -> dict[int, Advisor]:
        """The model of each fold, ready to predict."""
        return {fold: Advisor(one.bundles[0]) for fold, one in self.by_fold.items()}

    @cached_property
    def labels(self) -> LabelPolicy:
        """The label policy of the models, with `corrections` if they are given."""
        labels = self.bundles[0].card.data.labels
        if not self.corrections:
            return labels
        digest = read_corrections(self.corrections).sha256
        return replace(labels, corrections=str(self.corrections), corrections_sha256=digest)

    def corrected(self) -> tuple[CorrectedSeconds, ...]:
        """Count the seconds of the test patients that `labels` corrects, by patient and label."""
        names = self.databases or self.bundles[0].card.data.databases
        return count_corrected(self.labels, names, {record.patient for record in self.records()})

    def windows(self, window_s: float, labels: LabelPolicy | None = None) -> WindowSet:
        """Load the test windows of all classes, fold by fold, each `window_s` seconds long.

        Each recording is filtered before it is cut into windows, as on a monitor that runs continuously. Windows with
        annotated noise or invalid samples are excluded. The classes are those of the label policy `labels`, or else of
        the models' own policy.
        """
        found = []
        for bundle in self.bundles:
            config = self._config(bundle, window_s)
            if labels:
                config = config.model_copy(update={"labels": labels})
            windows = load_windows(config, self.folder) if self.databases else load_test(config, self.folder)
            check_unseen(bundle, windows.patient.tolist())
            found.append(windows)
        return found[0] if len(found) == 1 else concatenate(found)

    def training(self, window_s: float) -> WindowSet:
        """Load the training windows of a single fold, each `window_s` seconds long.

        The limit of windows per patient and the synthetic windows are the same as in the model's training. Windows of
        the databases in `DataConfig.extra` are excluded.

        Raises
        ------
        ValueError
            If there are several folds.
        """
        if len(self.bundles) > 1:
            raise ValueError(f"there are {len(self.bundles)} folds; choose one, such as by_fold[0].")
        config = self.bundles[0].card.data.model_copy(update={"window_s": float(window_s), "extra": ()})
        return load_subsets(config, self.folder).train

    def predictions(
        self, durations_s: Sequence[float] = DURATIONS_S, *, on_duration: Callable[[], Any] | None = None
    ) -> Predictions:
        """Predict the test windows of each model.

        Unusable windows, such as flat or noisy ones, are predicted like all others.

        Parameters
        ----------
        durations_s : sequence of float
            Window lengths in seconds. The model has the same weights for all lengths.
        on_duration : callable, optional
            Called without arguments after each duration of each model.

        Returns
        -------
        Predictions
            The predictions of all durations and classes, fold by fold.
        """
        return self.predictions_by_labels(durations_s, on_duration=on_duration)[self.labels]

    def predictions_by_labels(
        self, durations_s: Sequence[float] = DURATIONS_S, *, on_duration: Callable[[], Any] | None = None
    ) -> dict[LabelPolicy, Predictions]:
        """Predict the test windows of each model, under its own label policy and under the default one.

        Each window is predicted once. Parameters are those of `predictions`.

        Returns
        -------
        dict of LabelPolicy to Predictions
            The predictions under the models' own policy, and under the default policy if that differs.
        """
        found: dict[LabelPolicy, list[Predictions]] = {self.labels: [], LabelPolicy(): []}
        for fold, one in self.by_fold.items():
            for duration_s in durations_s:
                sets = [one.windows(duration_s, labels) for labels in found]
                windows, places = _unite(sets)
                probability = self.advisors[fold].probabilities(windows.ecg)
                rate, amplitude = measure_rate_and_amplitude(windows)
                shock = probability >= one.bundles[0].threshold
                for predictions, labelled, at in zip(found.values(), sets, places, strict=True):
                    measured = {"rate_bpm": rate[at], "amplitude_mv": amplitude[at]}
                    predictions.append(combine_predictions(labelled, fold, probability[at], shock[at], **measured))
                if on_duration:
                    on_duration()
        return {labels: Predictions.concatenate(predictions) for labels, predictions in found.items()}

    def baselines(self, window_s: float, *, on_fold: Callable[[], Any] | None = None) -> dict[str, Predictions]:
        """Fit the classical detectors on the training windows of each fold, and predict the test windows of that fold.

        The result is the pooled predictions by name of the detector; see
        `ecg_shock.evaluation.baselines.baseline_predictions`. `on_fold` is called after each fold.
        """
        by_fold = []
        for fold, one in self.by_fold.items():
            by_fold.append(baseline_predictions(one.training(window_s), one.windows(window_s), fold))
            if on_fold:
                on_fold()
        return {name: Predictions.concatenate([found[name] for found in by_fold]) for name in by_fold[0]}

    def excluded(self, window_s: float) -> tuple[Excluded, ...]:
        """List the excluded segments of all test recordings, with the reasons."""
        found: list[Excluded] = []
        for one in self.by_fold.values():
            tested = {(record.database, record.name) for record in one.records()}
            windows = load_windows(one._config(one.bundles[0], window_s), self.folder)
            found += [entry for entry in windows.excluded if (entry.database, entry.record) in tested]
        return tuple(found)

    def records(self, subset: str = "test") -> tuple[Record, ...]:
        """List the records of the test or validation patients.

        Parameters
        ----------
        subset : {"test", "validation"}
            The validation patients are those that the models were selected with, even if `databases` are given.

        Returns
        -------
        tuple of Record
            The records, fold by fold, each only once.
        """
        if subset not in ("test", "validation"):
            raise ValueError(f'subset is {subset!r}; allowed are "test" and "validation".')
        found: dict[Record, None] = {}
        for bundle in self.bundles:
            config = bundle.card.data
            names = config.databases if subset == "validation" else self.databases or config.databases
            records = [record for name in names for record in _list_records(name)]
            if subset == "validation":
                chosen = patients_of(bundle, "validation")
                records = [record for record in records if record.patient in chosen]
            elif not self.databases:
                chosen = load_split(config.split)[config.fold].test
                records = [record for record in records if record.patient in chosen]
            if subset == "test":
                check_unseen(bundle, (record.patient for record in records))
            found |= dict.fromkeys(records)
        return tuple(found)

    def recordings(self, records: Iterable[Record]) -> Iterator[Recording]:
        """Read records with their labels, one at a time, by database and in the order of the manifests.

        Errors are those of `ecg_shock.data.datasets.labelled_recordings`.
        """
        names: dict[str, set[str]] = {}
        for record in records:
            names.setdefault(record.source, set()).add(record.name)
        for source, wanted in names.items():
            yield from labelled_recordings(source, self.folder, wanted, labels=self.labels)

    def has_validation(self) -> bool:
        """Return True if the databases of the validation patients are on this computer."""
        names = {name for bundle in self.bundles for name in bundle.card.data.databases} - {SYNTHETIC}
        try:
            return all((data_dir(self.folder) / load_manifest(name).name).is_dir() for name in names)
        except FileNotFoundError:  # a user's manifest that no longer exists
            return False

    def _config(self, bundle: Bundle, window_s: float) -> DataConfig:
        """Return the data configuration of the test windows of a bundle."""
        config = bundle.card.data
        databases = self.databases or config.databases
        return config.model_copy(update={"window_s": float(window_s), "databases": databases, "labels": self.labels})


def find_bundles(folder: Path) -> tuple[Bundle, ...]:
    """Load the bundles to evaluate: one, or one of each fold.

    Parameters
    ----------
    folder : pathlib.Path
        A bundle, a run folder with ``bundle/``, or a folder with ``fold-0/bundle``, ``fold-1/bundle`` …

    Returns
    -------
    tuple of Bundle
        Sorted by fold.

    Raises
    ------
    FileNotFoundError
        If there is no bundle.
    ValueError
        If two bundles have the same fold, or if they differ in what decides which windows are tested: databases, split,
        labels and preprocessing. Networks and training may differ, because each fold may choose its own.
    """
    places = [folder, folder / BUNDLE_NAME, *sorted(folder.glob(f"fold-*/{BUNDLE_NAME}"))]
    bundles = [load_bundle(place) for place in places if (place / TOML_NAME).is_file()]
    if not bundles:
        raise FileNotFoundError(
            f"{folder} holds no bundle; give a bundle's folder, or the folder of an `ecg-shock train --fold all` run."
        )
    folds = [bundle.card.data.fold for bundle in bundles]
    if len(set(folds)) < len(folds):
        raise ValueError(f"{folder} holds bundles of the folds {folds}; give a folder with one bundle for each fold.")
    first, *others = bundles
    for other in others:
        ours, theirs = _tested_settings(first), _tested_settings(other)
        differences = [
            f"{key} is {ours.get(key)!r} and {theirs.get(key)!r}"
            for key in ours | theirs
            if ours.get(key) != theirs.get(key)
        ]
        if differences:
            raise ValueError(
                f"{first.folder} and {other.folder} cannot be pooled: {'; '.join(differences)}. Validate each "
                "separately."
            )
    return tuple(sorted(bundles, key=lambda bundle: bundle.card.data.fold))


def describe_all(bundles: Sequence[Bundle]) -> tuple[Model, ...]:
    """Describe the bundles of all folds, and in what each differs from the first."""
    first = _all_settings(bundles[0])
    found = []
    for bundle in bundles:
        settings = _all_settings(bundle)
        differences = [name for name in first | settings if first.get(name) != settings.get(name)]
        found.append(replace(describe(bundle), differences=", ".join(differences)))
    return tuple(found)


def describe(bundle: Bundle) -> Model:
    """Return name, fold, digest, threshold and other facts of a bundle, for the report."""
    config = bundle.card.data
    place = bundle.folder.resolve()
    return Model(
        name=bundle.card.name,
        folder=f"{place.parent.name}/{place.name}" if place.name == BUNDLE_NAME else place.name,
        split=config.split,
        fold=config.fold,
        sha256=bundle.digests[LITERT_NAME],
        commit=bundle.card.commit,
        parameters=bundle.spec.parameter_count(),
        threshold=bundle.threshold,
        selection=bundle.card.selection,
    )


def patients_of(bundle: Bundle, subset: str) -> frozenset[str]:
    """Return the patients of a subset ("train", "validation" or "test") from the card of a bundle."""
    return frozenset(getattr(bundle.card.patients, subset))


def check_unseen(bundle: Bundle, patients: Iterable[str]) -> None:
    """Raise a ValueError if any of these test patients was used to train or select the model."""
    seen = sorted(bundle.card.patients.seen(patients))
    if seen:
        more = f" and {len(seen) - SHOWN_PATIENTS} more" if len(seen) > SHOWN_PATIENTS else ""
        raise ValueError(
            f"{bundle.folder} was trained on or selected with the patients {seen[:SHOWN_PATIENTS]!r}{more}; "
            "evaluate it on other patients."
        )


def measure_rate_and_amplitude(windows: WindowSet) -> tuple[np.ndarray, np.ndarray]:
    """Measure the rate of VT in beats per minute and the peak-to-peak amplitude of VF in mV.

    Each result has the shape (n_windows,), with NaN for other rhythms. The measurements are those by which windows are
    labelled as rapid VT and coarse VF.
    """
    rate, amplitude = np.full(len(windows), np.nan), np.full(len(windows), np.nan)
    for index in np.flatnonzero(windows.rhythm == "vt"):
        rate[index] = rate_bpm(windows.ecg[index])
    is_vf = windows.rhythm == "vf"
    amplitude[is_vf] = amplitude_mv(windows.ecg[is_vf])
    return rate, amplitude


def _unite(sets: Sequence[WindowSet]) -> tuple[WindowSet, list[np.ndarray]]:
    """Return each window of several sets once, and the places of the windows of each set among them."""
    place: dict[tuple[str, str, str, float], int] = {}
    new, places = [], []
    for windows in sets:
        columns = (windows.database, windows.record, windows.lead, windows.start_s)
        keys = list(zip(*(column.tolist() for column in columns), strict=True))
        new.append(windows.select(np.array([key not in place for key in keys], dtype=bool)))
        places.append(np.array([place.setdefault(key, len(place)) for key in keys], dtype=int))
    return concatenate(new), places


def _list_records(source: str) -> tuple[Record, ...]:
    name = name_of(source)
    return tuple(Record(source, name, record, patient) for record, patient in patients_by_record(source).items())


def _tested_settings(bundle: Bundle) -> dict[str, Any]:
    """Return the settings that decide which windows are tested, by their names in `bundle.toml`."""
    names = {"databases", "split", "window_s", "labels"}
    data = bundle.card.data.model_dump(mode="json", include=names)
    return {"preprocessing": bundle.preprocessing, **{f"data.{key}": value for key, value in data.items()}}


def _all_settings(bundle: Bundle) -> dict[str, Any]:
    """Return all settings except the fold, by their names in `bundle.toml`."""
    data = bundle.card.data.model_dump(mode="json", exclude={"fold"})
    return {
        "network": bundle.spec,
        "threshold": bundle.threshold,
        **{f"data.{key}": value for key, value in data.items()},
        **{f"training.{key}": value for key, value in bundle.card.training.items()},
    }
