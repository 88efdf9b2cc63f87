"""The protocol of validation: each model predicts its own test patients, and the folds are pooled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ecg_shock.data.datasets import (
    SYNTHETIC,
    SYNTHETIC_PATIENTS,
    SYNTHETIC_SEED,
    DataConfig,
    load_parts,
    load_test,
    load_windows,
)
from ecg_shock.data.manifests import data_dir, load_manifest
from ecg_shock.data.recordings import Recording, read_record
from ecg_shock.data.splits import load_split
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import LeftOut, WindowSet, amplitude_mv, rate_bpm
from ecg_shock.evaluation.metrics import Model
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.inference.advisor import Advisor
from ecg_shock.models.bundle import BUNDLE_NAME, LITERT_NAME, TOML_NAME, Bundle, data_config, load_bundle

DURATIONS_S = (2.0, 3.0, 4.0, 5.0, 8.0, 10.0)  # at which our own bundles are judged


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
    folds = [data_config(bundle).fold for bundle in bundles]
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
    return tuple(sorted(bundles, key=lambda bundle: data_config(bundle).fold))


def describe(bundle: Bundle) -> Model:
    """Say what a bundle is, for the report.

    Parameters
    ----------
    bundle : Bundle
        The model.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If its card does not say what it was trained on.
    """
    config = data_config(bundle)
    place = bundle.folder.resolve()
    return Model(
        name=str(bundle.card.get("name", "")),
        folder=f"{place.parent.name}/{place.name}" if place.name == BUNDLE_NAME else place.name,
        split=config.split,
        fold=config.fold,
        sha256=bundle.digests[LITERT_NAME],
        commit=str(bundle.card.get("commit", "")),
        parameters=bundle.spec.parameter_count(),
        threshold=bundle.threshold,
        selection=str(bundle.card.get("selection", "")),
    )


def predict_test_part(
    bundle: Bundle,
    folder: Path | None = None,
    durations_s: Sequence[float] = DURATIONS_S,
    *,
    on_duration: Callable[[], Any] | None = None,
) -> Predictions:
    """Let a bundle judge the windows of its own test patients, on the first lead.

    The windows come from the recording as a whole, filtered as by a device that has been listening; the rule for
    unusable strips plays no part, since windows with annotated noise or invalid samples are left out beforehand.

    Parameters
    ----------
    bundle : Bundle
        The model; its card names the split, the fold and the patients it has seen.
    folder : pathlib.Path, optional
        Where the databases lie.
    durations_s : sequence of float
        Window lengths in seconds; one set of weights serves all.
    on_duration : callable, optional
        Called without arguments after each of them.

    Returns
    -------
    Predictions
        Of every duration, intermediate rhythms included.

    Raises
    ------
    ValueError
        If a test patient was trained on or selected with.
    """
    config = data_config(bundle)
    tested = (load_test(_of_length(config, duration_s), folder) for duration_s in durations_s)
    return _predict(bundle, tested, config.fold, on_duration)


def predict_databases(
    bundle: Bundle,
    databases: Sequence[str],
    folder: Path | None = None,
    durations_s: Sequence[float] = DURATIONS_S,
    *,
    on_duration: Callable[[], Any] | None = None,
) -> Predictions:
    """Let a bundle judge every window of databases that it has not seen, on the first lead.

    Parameters
    ----------
    bundle : Bundle
        The model.
    databases : sequence of str
        Names or manifest paths.
    folder : pathlib.Path, optional
        Where the databases lie.
    durations_s : sequence of float
        Window lengths in seconds.
    on_duration : callable, optional
        Called without arguments after each of them.

    Returns
    -------
    Predictions
        Of every duration, all as fold 0.

    Raises
    ------
    ValueError
        If a patient was trained on or selected with.
    """
    config = _of_databases(data_config(bundle), databases)
    tested = (load_windows(_of_length(config, duration_s), folder) for duration_s in durations_s)
    return _predict(bundle, tested, 0, on_duration)


def predict_bundles(
    bundles: Sequence[Bundle],
    databases: Sequence[str] = (),
    folder: Path | None = None,
    *,
    on_duration: Callable[[], Any] | None = None,
) -> Predictions:
    """Let each bundle judge its own test patients, or a single one databases that it has not seen.

    Parameters
    ----------
    bundles : sequence of Bundle
        As `find_bundles` gives them.
    databases : sequence of str
        Names or manifest paths; none for the test patients.
    folder : pathlib.Path, optional
        Where the databases lie.
    on_duration : callable, optional
        Called without arguments after each duration of each bundle.

    Returns
    -------
    Predictions
        Of all durations in `DURATIONS_S`, the folds pooled.

    Raises
    ------
    ValueError
        If a patient was trained on or selected with, or several bundles are to judge databases.
    """
    if not databases:
        return Predictions.concatenate(
            [predict_test_part(bundle, folder, on_duration=on_duration) for bundle in bundles]
        )
    if len(bundles) > 1:
        raise ValueError(f"there are {len(bundles)} bundles; give the one to judge on {', '.join(databases)}.")
    return predict_databases(bundles[0], databases, folder, on_duration=on_duration)


def predict_baselines(
    bundles: Sequence[Bundle],
    databases: Sequence[str] = (),
    folder: Path | None = None,
    *,
    duration_s: float,
    on_bundle: Callable[[], Any] | None = None,
) -> dict[str, Predictions]:
    """Fit the classical detectors as the bundles were trained, and let them judge the same windows.

    Parameters
    ----------
    bundles : sequence of Bundle
        As `find_bundles` gives them. Detectors are fitted on the training windows of each by itself: those of its
        own fold, with its limit a patient and its supplement.
    databases, folder
        As for `predict_bundles`.
    duration_s : float
        Length of all windows in seconds.
    on_bundle : callable, optional
        Called without arguments after each of them.

    Returns
    -------
    dict of str to Predictions
        As `ecg_shock.evaluation.baselines.baseline_predictions` names them, the folds pooled.

    Raises
    ------
    ValueError
        If a patient was trained on and is to be judged.
    FileNotFoundError
        If recordings are not there.
    """
    from ecg_shock.evaluation.baselines import baseline_predictions

    of_folds = []
    for bundle in bundles:
        config = _of_length(data_config(bundle), duration_s)
        train = load_parts(config, folder).train
        tested = judged_windows(bundle, databases, folder, duration_s=duration_s)
        of_folds.append(baseline_predictions(train, tested, 0 if databases else config.fold))
        if on_bundle:
            on_bundle()
    return {name: Predictions.concatenate([found[name] for found in of_folds]) for name in of_folds[0]}


def judged_windows(
    bundle: Bundle, databases: Sequence[str] = (), folder: Path | None = None, *, duration_s: float
) -> WindowSet:
    """Load the windows that a bundle is judged on.

    Parameters
    ----------
    bundle : Bundle
        The model.
    databases, folder
        As for `predict_bundles`.
    duration_s : float
        Length of the windows in seconds.

    Returns
    -------
    WindowSet
        On the first lead, intermediate classes included.
    """
    config = _of_length(data_config(bundle), duration_s)
    return load_windows(_of_databases(config, databases), folder) if databases else load_test(config, folder)


def left_out(
    bundles: Sequence[Bundle], databases: Sequence[str] = (), folder: Path | None = None, *, duration_s: float
) -> tuple[LeftOut, ...]:
    """Say what of the tested recordings is in no window.

    Parameters
    ----------
    bundles, databases, folder
        As for `predict_bundles`.
    duration_s : float
        Length of the windows in seconds.

    Returns
    -------
    tuple of LeftOut
        Of every recording of a tested patient, also of those without any window.
    """
    found: list[LeftOut] = []
    for bundle in bundles:
        config = _of_length(data_config(bundle), duration_s)
        if databases:
            found += load_windows(_of_databases(config, databases), folder).left_out
            continue
        tested = load_split(config.split)[config.fold].test
        for name in config.databases:
            windows = load_windows(_of_databases(config, [name]), folder)
            found += [entry for entry in windows.left_out if _patient_of(name, entry.record) in tested]
    return tuple(found)


def recordings_of(windows: WindowSet | Predictions, folder: Path | None = None) -> Iterator[Recording]:
    """Read the recordings that windows were cut from, one after the other.

    Parameters
    ----------
    windows : WindowSet or Predictions
        Of databases that lie in files, or synthetic.
    folder : pathlib.Path, optional
        Where the databases lie; see `ecg_shock.data.manifests.data_dir`.

    Yields
    ------
    Recording
        Without labels, which the windows have.

    Raises
    ------
    OSError, ValueError
        As `ecg_shock.data.recordings.read_record`.
    """
    records = dict.fromkeys(zip(windows.database.tolist(), windows.record.tolist(), strict=True))
    for database, record in records:
        if database != SYNTHETIC:
            yield replace(read_record(data_dir(folder) / database / record), database=database)
    if any(database == SYNTHETIC for database, _ in records):
        for recording in synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED):
            if (recording.database, recording.name) in records:
                yield recording


def measure(windows: WindowSet) -> tuple[np.ndarray, np.ndarray]:
    """Measure what parts the classes of VT and VF, as the label policy does.

    Parameters
    ----------
    windows : WindowSet
        With their rhythms.

    Returns
    -------
    rate_bpm, amplitude_mv : numpy.ndarray
        Shape (n_windows,): the rate of windows of VT, the peak-to-peak amplitude of those of VF; NaN elsewhere.
    """
    rate, amplitude = np.full(len(windows), np.nan), np.full(len(windows), np.nan)
    for index in np.flatnonzero(windows.rhythm == "vt"):
        rate[index] = rate_bpm(windows.ecg[index])
    fibrillates = windows.rhythm == "vf"
    amplitude[fibrillates] = amplitude_mv(windows.ecg[fibrillates])
    return rate, amplitude


def _all_but_fold(bundle: Bundle) -> dict[str, Any]:
    """List what bundles of one model share, by the names of `bundle.toml`."""
    config = data_config(bundle)
    data = {f"data.{key}": value for key, value in config.model_dump(mode="json", exclude={"fold"}).items()}
    training = {f"training.{key}": value for key, value in bundle.card.get("training", {}).items()}
    return {
        "network": bundle.spec,
        "preprocessing": bundle.preprocessing,
        "threshold": bundle.threshold,
        **data,
        **training,
    }


def _of_databases(config: DataConfig, databases: Sequence[str]) -> DataConfig:
    return config.model_copy(update={"databases": tuple(databases)})


def _patient_of(database: str, record: str) -> str:
    return f"{SYNTHETIC}/{record}" if database == SYNTHETIC else load_manifest(database).patient_of(record)


def _of_length(config: DataConfig, window_s: float) -> DataConfig:
    return config.model_copy(update={"window_s": float(window_s)})


def _predict(
    bundle: Bundle, tested: Iterable[WindowSet], fold: int, on_duration: Callable[[], Any] | None
) -> Predictions:
    advisor = Advisor(bundle)
    seen = {patient for job in ("train", "validation") for patient in bundle.card["patients"][job]}
    predictions = []
    for windows in tested:
        leaked = seen & set(windows.patient.tolist())
        if leaked:
            raise ValueError(f"patients {sorted(leaked)!r} are tested, but {bundle.folder} has seen them.")
        probability = advisor.probabilities(windows.ecg)
        rate, amplitude = measure(windows)
        n = len(windows)
        predictions.append(
            Predictions(
                database=windows.database,
                record=windows.record,
                lead=windows.lead,
                patient=windows.patient,
                start_s=windows.start_s,
                duration_s=np.full(n, windows.window_s),
                rhythm=windows.rhythm,
                aha_class=windows.aha_class,
                probability=probability,
                shock=probability >= bundle.threshold,
                fold=np.full(n, fold),
                rate_bpm=rate,
                amplitude_mv=amplitude,
            )
        )
        if on_duration:
            on_duration()
    return Predictions.concatenate(predictions)
