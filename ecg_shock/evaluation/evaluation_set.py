"""What models are evaluated on: each predicts its own test patients, and the folds are pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecg_shock.data.datasets import (
    SYNTHETIC,
    SYNTHETIC_PATIENTS,
    SYNTHETIC_SEED,
    DataConfig,
    labelled_recordings,
    load_subsets,
    load_test,
    load_windows,
)
from ecg_shock.data.manifests import data_dir, load_manifest
from ecg_shock.data.recordings import Recording
from ecg_shock.data.splits import load_split
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import Excluded, WindowSet, amplitude_mv, concatenate, rate_bpm
from ecg_shock.evaluation.baselines import baseline_predictions
from ecg_shock.evaluation.metrics import Model
from ecg_shock.evaluation.predictions import Predictions, predictions_of
from ecg_shock.inference.advisor import Advisor
from ecg_shock.models.bundle import BUNDLE_NAME, LITERT_NAME, TOML_NAME, Bundle, load_bundle

SHOWN_PATIENTS = 10  # a database has up to 1,184
DURATIONS_S = (2.0, 3.0, 4.0, 5.0, 8.0, 10.0)  # at which our own bundles are evaluated


class Record(NamedTuple):
    """A record as its recording has it, and its database as it was named: its name, or the path of its manifest."""

    source: str
    database: str
    name: str
    patient: str


@dataclass(frozen=True)
class EvaluationSet:
    """Models, and the patients that they are evaluated on.

    Parameters
    ----------
    bundles : tuple of Bundle
        As `find_bundles` gives them; the folds are pooled. The card of each names the split, the fold and the patients
        it has seen.
    databases : tuple of str
        For a single bundle: names or manifest paths of databases that it has not seen, all of whose patients are tested
        instead of the test patients of its own fold.
    folder : pathlib.Path, optional
        Where the databases lie; see `ecg_shock.data.manifests.data_dir`.

    Raises
    ------
    ValueError
        If there is no bundle, there are several for databases, or a card does not say what its model has seen.

    Notes
    -----
    Windows and records are on the first lead. Whatever hands them out raises a ValueError if a tested patient was
    trained on or selected with, and a FileNotFoundError if a database is not there.
    """

    bundles: tuple[Bundle, ...]
    databases: tuple[str, ...] = ()
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.bundles:
            raise ValueError("there is no bundle to evaluate; give at least one.")
        if self.databases and len(self.bundles) > 1:
            raise ValueError(
                f"there are {len(self.bundles)} bundles; give the one to evaluate on {', '.join(self.databases)}."
            )
        for bundle in self.bundles:
            _ = bundle.card  # refuses one that does not say what its model has seen

    @cached_property
    def by_fold(self) -> dict[int, EvaluationSet]:
        """The same with one bundle each, by the fold of their predictions, which is 0 for databases."""
        return {
            0 if self.databases else bundle.card.data.fold: replace(self, bundles=(bundle,)) for bundle in self.bundles
        }

    @cached_property
    def advisors(self) -> dict[int, Advisor]:
        """The loaded model of each fold."""
        return {fold: Advisor(one.bundles[0]) for fold, one in self.by_fold.items()}

    def windows(self, window_s: float) -> WindowSet:
        """Load the windows that are tested, of every class, fold by fold; their length is in seconds.

        They come from the recording as a whole, filtered as by a device that has been listening. Windows with annotated
        noise or invalid samples are excluded.
        """
        found = []
        for bundle in self.bundles:
            config = self._config(bundle, window_s)
            windows = load_windows(config, self.folder) if self.databases else load_test(config, self.folder)
            refuse_seen(bundle, windows.patient.tolist())
            found.append(windows)
        return found[0] if len(found) == 1 else concatenate(found)

    def training(self, window_s: float) -> WindowSet:
        """Load the windows that the model of a single fold was trained on, with its limit a patient and its supplement.

        Those of `DataConfig.extra` are not among them: what is compared with the model learns from the patients of the
        split alone, and an evaluation needs no other databases. Several folds, which share no training patients, are a
        ValueError.
        """
        if len(self.bundles) > 1:
            raise ValueError(f"there are {len(self.bundles)} folds; ask one of by_fold for its training windows.")
        config = self.bundles[0].card.data.model_copy(update={"window_s": float(window_s), "extra": ()})
        return load_subsets(config, self.folder).train

    def predictions(
        self, durations_s: Sequence[float] = DURATIONS_S, *, on_duration: Callable[[], Any] | None = None
    ) -> Predictions:
        """Let each model predict the windows that it is tested on.

        The rule for unusable strips plays no part: windows that it would refuse for invalid samples are excluded.

        Parameters
        ----------
        durations_s : sequence of float
            Window lengths in seconds; one set of weights serves all.
        on_duration : callable, optional
            Called without arguments after each duration of each model.

        Returns
        -------
        Predictions
            Of all durations, intermediate rhythms included, fold by fold.
        """
        found = []
        for fold, one in self.by_fold.items():
            for duration_s in durations_s:
                windows = one.windows(duration_s)
                probability = self.advisors[fold].probabilities(windows.ecg)
                rate, amplitude = measure(windows)
                shock = probability >= one.bundles[0].threshold
                found.append(predictions_of(windows, fold, probability, shock, rate_bpm=rate, amplitude_mv=amplitude))
                if on_duration:
                    on_duration()
        return Predictions.concatenate(found)

    def baselines(self, window_s: float, *, on_fold: Callable[[], Any] | None = None) -> dict[str, Predictions]:
        """Fit the classical detectors on the training windows of each fold, and let them predict its tested windows.

        By name, see `ecg_shock.evaluation.baselines.baseline_predictions`, the folds pooled; `on_fold` is called after
        each fold.
        """
        of_folds = []
        for fold, one in self.by_fold.items():
            of_folds.append(baseline_predictions(one.training(window_s), one.windows(window_s), fold))
            if on_fold:
                on_fold()
        return {name: Predictions.concatenate([found[name] for found in of_folds]) for name in of_folds[0]}

    def excluded(self, window_s: float) -> tuple[Excluded, ...]:
        """Say what of the tested recordings is in no window, also of those without any window."""
        found: list[Excluded] = []
        for one in self.by_fold.values():
            tested = {(record.database, record.name) for record in one.records()}
            windows = load_windows(one._config(one.bundles[0], window_s), self.folder)
            found += [entry for entry in windows.excluded if (entry.database, entry.record) in tested]
        return tuple(found)

    def records(self, subset: str = "test") -> tuple[Record, ...]:
        """List the records of the tested patients, or of those that the models were selected with.

        Parameters
        ----------
        subset : {"test", "validation"}
            Validation patients are those of the model's own databases, also where other databases are tested: what is
            chosen is chosen on them.

        Returns
        -------
        tuple of Record
            Fold by fold, each once.
        """
        if subset not in ("test", "validation"):
            raise ValueError(f'subset is {subset!r}; allowed are "test" and "validation".')
        found: dict[Record, None] = {}
        for bundle in self.bundles:
            config = bundle.card.data
            names = config.databases if subset == "validation" else self.databases or config.databases
            records = [record for name in names for record in _records_of(name)]
            if subset == "validation":
                chosen = patients_of(bundle, "validation")
                records = [record for record in records if record.patient in chosen]
            elif not self.databases:
                chosen = load_split(config.split)[config.fold].test
                records = [record for record in records if record.patient in chosen]
            if subset == "test":
                refuse_seen(bundle, (record.patient for record in records))
            found |= dict.fromkeys(records)
        return tuple(found)

    def recordings(self, records: Iterable[Record]) -> Iterator[Recording]:
        """Read records, such as those of `records`, with their labels, each once and one at a time.

        They come database by database, in the order of the manifests. Errors are those of
        `ecg_shock.data.datasets.labelled_recordings`.
        """
        names: dict[str, set[str]] = {}
        for record in records:
            names.setdefault(record.source, set()).add(record.name)
        for source, wanted in names.items():
            yield from labelled_recordings(source, self.folder, wanted)

    def has_validation(self) -> bool:
        """Say whether the databases of the validation patients are there."""
        names = {name for bundle in self.bundles for name in bundle.card.data.databases} - {SYNTHETIC}
        try:
            return all((data_dir(self.folder) / load_manifest(name).name).is_dir() for name in names)
        except FileNotFoundError:  # a manifest of one's own that is no longer there
            return False

    def _config(self, bundle: Bundle, window_s: float) -> DataConfig:
        """Give the configuration of the tested windows."""
        config = bundle.card.data
        return config.model_copy(update={"window_s": float(window_s), "databases": self.databases or config.databases})


def find_bundles(folder: Path) -> tuple[Bundle, ...]:
    """Find the bundles to validate: one, or one of each fold.

    Parameters
    ----------
    folder : pathlib.Path
        A bundle, a run folder that holds ``bundle/``, or a folder of ``fold-0/bundle``, ``fold-1/bundle`` …

    Returns
    -------
    tuple of Bundle
        By fold.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If two bundles are of one fold, or differ in anything but the fold: together they would be no one model.
    """
    places = [folder, folder / BUNDLE_NAME, *sorted(folder.glob(f"fold-*/{BUNDLE_NAME}"))]
    bundles = [load_bundle(place) for place in places if (place / TOML_NAME).is_file()]
    if not bundles:
        raise FileNotFoundError(
            f"{folder} holds no bundle; give a bundle's folder, or the folder that `ecg-shock train --fold all` wrote."
        )
    folds = [bundle.card.data.fold for bundle in bundles]
    if len(set(folds)) < len(folds):
        raise ValueError(f"{folder} holds bundles of the folds {folds}; give a folder with one of each fold.")
    first, *others = bundles
    for other in others:
        mine, its = _all_but_fold(first), _all_but_fold(other)
        differences = [
            f"{key} is {mine.get(key)!r} and {its.get(key)!r}" for key in mine | its if mine.get(key) != its.get(key)
        ]
        if differences:
            raise ValueError(
                f"{first.folder} and {other.folder} cannot be pooled: {'; '.join(differences)}. Validate each by "
                "itself."
            )
    return tuple(sorted(bundles, key=lambda bundle: bundle.card.data.fold))


def describe(bundle: Bundle) -> Model:
    """Say what a bundle is, for the report."""
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
    """Return the patients that a bundle's card names as its "train", "validation" or "test" patients."""
    return frozenset(getattr(bundle.card.patients, subset))


def refuse_seen(bundle: Bundle, patients: Iterable[str]) -> None:
    """Refuse to test patients that a model was trained on or selected with."""
    leaked = sorted(bundle.card.patients.seen(patients))
    if leaked:
        more = f" and {len(leaked) - SHOWN_PATIENTS} more" if len(leaked) > SHOWN_PATIENTS else ""
        raise ValueError(f"patients {leaked[:SHOWN_PATIENTS]!r}{more} are tested, but {bundle.folder} has seen them.")


def measure(windows: WindowSet) -> tuple[np.ndarray, np.ndarray]:
    """Measure what separates the classes of VT and VF, as the label policy does.

    Shape (n_windows,) twice: the rate of windows of VT in beats per minute, and the peak-to-peak amplitude of those of
    VF in mV; NaN elsewhere.
    """
    rate, amplitude = np.full(len(windows), np.nan), np.full(len(windows), np.nan)
    for index in np.flatnonzero(windows.rhythm == "vt"):
        rate[index] = rate_bpm(windows.ecg[index])
    fibrillates = windows.rhythm == "vf"
    amplitude[fibrillates] = amplitude_mv(windows.ecg[fibrillates])
    return rate, amplitude


def _records_of(source: str) -> tuple[Record, ...]:
    if source == SYNTHETIC:
        return _synthetic_records()
    manifest = load_manifest(source)
    return tuple(Record(source, manifest.name, record, manifest.patient_of(record)) for record in manifest.records)


@lru_cache(maxsize=1)
def _synthetic_records() -> tuple[Record, ...]:
    recordings = synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED)
    return tuple(Record(SYNTHETIC, SYNTHETIC, recording.name, recording.patient) for recording in recordings)


def _all_but_fold(bundle: Bundle) -> dict[str, Any]:
    """List what bundles of one model share, by the names of `bundle.toml`."""
    config = bundle.card.data
    data = {f"data.{key}": value for key, value in config.model_dump(mode="json", exclude={"fold"}).items()}
    training = {f"training.{key}": value for key, value in bundle.card.training.items()}
    return {
        "network": bundle.spec,
        "preprocessing": bundle.preprocessing,
        "threshold": bundle.threshold,
        **data,
        **training,
    }
