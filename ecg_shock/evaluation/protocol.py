"""The protocol of validation: each model predicts its own test patients, and the folds are pooled."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ecg_shock.data.parts import DataConfig, load_parts, load_windows
from ecg_shock.data.windows import WindowSet
from ecg_shock.deploy.advisor import Advisor
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.models.bundle import TOML_NAME, Bundle, load_bundle

DURATIONS_S = (2.0, 3.0, 4.0, 5.0, 8.0, 10.0)
BUNDLE_NAME = "bundle"  # of a fold's folder, beside its checkpoint


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
        If two bundles are of one fold, or of different splits.
    """
    places = [folder, folder / BUNDLE_NAME, *sorted(folder.glob(f"fold-*/{BUNDLE_NAME}"))]
    bundles = [load_bundle(place) for place in places if (place / TOML_NAME).is_file()]
    if not bundles:
        raise FileNotFoundError(
            f"{folder} holds no bundle; give a bundle's folder, or the folder that `ecg-shock train --fold all` wrote."
        )
    configs = [data_config(bundle) for bundle in bundles]
    folds = [config.fold for config in configs]
    if len(set(folds)) < len(folds) or len({(c.split, c.databases) for c in configs}) > 1:
        raise ValueError(
            f"{folder} holds bundles that cannot be pooled: folds {folds} of {sorted({c.split for c in configs})}, "
            f"with the databases {sorted({c.databases for c in configs})}. Validate each by itself."
        )
    return tuple(sorted(bundles, key=lambda bundle: data_config(bundle).fold))


def data_config(bundle: Bundle) -> DataConfig:
    """Return the data that a bundle was trained, selected and is to be tested on.

    Raises
    ------
    ValueError
        If its card does not say so.
    """
    for table in ("data", "training", "patients"):
        if table not in bundle.card:
            raise ValueError(
                f"{bundle.folder / TOML_NAME} has no [card.{table}]; it does not say what the model has seen. "
                "Give a bundle that `tune` or `train` wrote."
            )
    return DataConfig.model_validate(bundle.card["data"])


def predict_test_part(
    bundle: Bundle, folder: Path | None = None, durations_s: Sequence[float] = DURATIONS_S
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
    tested = (load_parts(_of_length(config, duration_s), folder).test for duration_s in durations_s)
    return _predict(bundle, tested, config.fold)


def predict_databases(
    bundle: Bundle, databases: Sequence[str], folder: Path | None = None, durations_s: Sequence[float] = DURATIONS_S
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

    Returns
    -------
    Predictions
        Of every duration, all as fold 0.

    Raises
    ------
    ValueError
        If a patient was trained on or selected with.
    """
    config = data_config(bundle).model_copy(update={"databases": tuple(databases)})
    tested = (load_windows(_of_length(config, duration_s), folder) for duration_s in durations_s)
    return _predict(bundle, tested, fold=0)


def _of_length(config: DataConfig, window_s: float) -> DataConfig:
    return config.model_copy(update={"window_s": float(window_s)})


def _predict(bundle: Bundle, tested: Iterable[WindowSet], fold: int) -> Predictions:
    advisor = Advisor(bundle)
    seen = {patient for job in ("train", "validation") for patient in bundle.card["patients"][job]}
    predictions = []
    for windows in tested:
        leaked = seen & set(windows.patient.tolist())
        if leaked:
            raise ValueError(f"patients {sorted(leaked)!r} are tested, but {bundle.folder} has seen them.")
        probability = advisor.probabilities(windows.ecg)
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
            )
        )
    return Predictions.concatenate(predictions)
