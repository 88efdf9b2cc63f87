"""Train on one fold: load its windows, train a network on them, and write the best epoch as a bundle."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError
from scipy.special import expit

from ecg_shock.data.augment import Augmentation, Augmenter, read_training_noise
from ecg_shock.data.corrected import count_corrected, pin_corrections
from ecg_shock.data.datasets import (
    SYNTHETIC,
    DataConfig,
    Subsets,
    extra_patients,
    load_subsets,
    of_extra,
    shockable,
    training_weights,
)
from ecg_shock.data.strips import ARTEFACT, SECOND_S, EverySecond, Strips, candidate_weights, load_strips
from ecg_shock.data.windows import WindowSet
from ecg_shock.files import explain
from ecg_shock.models.bundle import KERAS_NAME, TOML_NAME, Bundle, write_bundle
from ecg_shock.models.card import Card, ExtraDatabase, Patients, ValidationScore
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.models.seen_files import check_unseen_files, seen_digests
from ecg_shock.preprocessing import FS
from ecg_shock.training.calibration import calibrate, fit_calibration
from ecg_shock.training.examples import Examples, ExampleSource, Views, digest
from ecg_shock.training.steps import compile_inference
from ecg_shock.training.trainer import (
    ORIGIN_NAME,
    THRESHOLD,
    EpochLog,
    Groups,
    Start,
    TrainingConfig,
    TrainingResult,
    train,
)

if TYPE_CHECKING:
    import keras

MAX_FOLDS = 5  # number of folds that `load_fold` keeps in memory


@dataclass(frozen=True)
class TrainingFold:
    """One fold of a split, on which networks are trained.

    Parameters
    ----------
    data : DataConfig
        The settings with which the windows were loaded.
    subsets : Subsets
        The windows of the fold. From the test subset, only the names of the patients are used.
    folder : pathlib.Path, optional
        Folder that holds the databases.
    """

    data: DataConfig
    subsets: Subsets
    folder: Path | None = None

    @classmethod
    def load(cls, data: DataConfig, folder: Path | None = None) -> TrainingFold:
        """Load the windows of a fold from recordings in `folder`."""
        data = pin_corrections(data)
        return cls(data, load_subsets(data, folder), folder)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the training and validation windows, with their labels and patients."""
        used = (self.subsets.train, self.subsets.validation)
        return digest(*(array for subset in used for array in (subset.ecg, subset.aha_class, subset.patient)))

    @cached_property
    def strips(self) -> Strips:
        """The strips from which augmented training windows are drawn."""
        return load_strips(self.data, self.folder)

    @cached_property
    def seconds(self) -> Strips:
        """The windows that begin in every second of the preprocessed training leads."""
        return load_strips(self.data, self.folder, step_s=SECOND_S, preprocessed=True)

    @cached_property
    def noise(self) -> dict[str, np.ndarray]:
        """Recorded noise for augmentation."""
        return read_training_noise(self.folder)

    def train(
        self,
        spec: CnnSpec,
        config: TrainingConfig,
        folder: Path,
        *,
        start: Start | None = None,
        teachers: Sequence[keras.Model] = (),
        on_epoch: Callable[[EpochLog], None] | None = None,
    ) -> TrainingResult:
        """Train a network on the training subset, and choose the epoch on the validation subset.

        If all patients of the split are training patients, there is no validation subset, and the last epoch is kept.

        Parameters
        ----------
        spec : CnnSpec
            The network.
        config : TrainingConfig
            The settings of the training.
        folder : pathlib.Path
            The folder of the training. A training that was interrupted continues there.
        start : Start, optional
            Weights to start from, see `start_from`. By default, the weights are random.
        teachers : sequence of keras.Model
            If given, the network learns the mean probability of these networks instead of the labels. This is
            distillation [1]_. The teachers must have been trained on the training patients of this fold.
        on_epoch : callable, optional
            Called with the log of each new epoch.

        Returns
        -------
        TrainingResult
            The history of the training, and the network of the chosen epoch.

        Raises
        ------
        ValueError
            If the folder has a training with other settings or data.
        DivergedError
            If the loss becomes infinite or NaN.

        References
        ----------
        .. [1] Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531, 2015
        """
        training: Examples | ExampleSource
        if config.augmentation is not None:
            noise = self.noise if config.augmentation.needs_recorded_noise else {}
            training = _AugmentedExamples(_make_augmenter(self.data, config, self.strips, noise), _Teachers(teachers))
        else:
            if config.every_second is not None:
                training = self._examples_of_every_second(config.every_second, config.groups)
            else:
                training = examples(self.subsets.train, config.groups, training_weights(self.subsets.train, self.data))
            training = _Teachers(teachers).teach(training)
        validation = examples(self.subsets.validation) if len(self.subsets.validation) else None
        return train(spec, training, validation, config, folder, start=start, on_epoch=on_epoch)

    def _examples_of_every_second(self, settings: EverySecond, groups: Groups) -> Examples:
        strips, data = self.seconds, self.data
        weights = candidate_weights(strips, settings.patient_windows, tuple(extra_patients(data)), data.extra_weight)
        for of_class in (
            strips.shockable,
            ~strips.shockable,
        ):  # 1 on average, so that the classes count as without them
            weights[of_class] /= weights[of_class].mean()
        return Examples(
            ecg=Views(strips.signal, strips.start, round(data.window_s * FS)),
            shockable=strips.shockable,
            rhythm=strips.aha_class,
            groups=group_codes(strips.aha_class, strips.patient, groups),
            weights=weights,
            per_epoch=settings.windows,
        )

    def presentations(self, config: TrainingConfig) -> int:
        """Return the number of windows in all batches of all epochs. A window counts each time it is drawn."""
        drawn = config.augmentation or config.every_second
        windows = drawn.windows if drawn else len(self.subsets.train)
        return config.epochs * math.ceil(windows / config.batch_size) * config.batch_size

    def start_from(self, bundle: Bundle, frozen_blocks: int) -> Start:
        """Return the weights of a bundle, from which a training can start, after checking its patients.

        Parameters
        ----------
        bundle : Bundle
            The earlier model.
        frozen_blocks : int
            Number of blocks, counted from the first, whose weights are not trained.

        Raises
        ------
        ValueError
            If the bundle was trained or selected on a test patient of this fold, even under another name; if it has
            fewer blocks than `frozen_blocks`; or if its preprocessing is different.
        """
        tested = patients(self.subsets.test)
        if seen := sorted(bundle.card.patients.seen(tested)):
            raise ValueError(
                f"{bundle.folder} was trained or selected on {len(seen)} of the {len(tested)} test patients of fold "
                f"{self.data.fold}, such as {seen[0]!r}; a model that starts from it cannot be tested on these "
                "patients. Choose another fold or split, or another bundle."
            )
        check_unseen_files(bundle, self.data.databases, self.folder, tested)
        if not 0 <= frozen_blocks <= len(bundle.spec.filters):
            raise ValueError(
                f"frozen_blocks (--freeze) is {frozen_blocks!r}; allowed are 0 to {len(bundle.spec.filters)}, the "
                f"number of blocks of {bundle.folder}"
            )
        if self.data.preprocessing != bundle.preprocessing:
            raise ValueError(
                f"the preprocessing is {self.data.preprocessing!r}, but {bundle.folder} was trained with "
                f"{bundle.preprocessing!r}; use the preprocessing of the bundle"
            )
        return Start(bundle.load_keras().get_weights(), frozen_blocks)

    def write_bundle(
        self,
        folder: Path,
        name: str,
        result: TrainingResult,
        *,
        selection: str,
        calibration: float | None = None,
        expected: dict[str, str] | None = None,
        teachers: int = 0,
        earlier: Bundle | None = None,
        frozen_blocks: int = 0,
    ) -> Bundle:
        """Write the chosen epoch of a training run on this fold as a bundle with a card.

        If the training's settings ask for it, the probabilities are calibrated on the validation patients.

        Parameters
        ----------
        folder : pathlib.Path
            The bundle's folder.
        name : str
            Name of the model on its card.
        result : TrainingResult
            The result of the training run.
        selection : str
            How the network and its settings were chosen, and on which patients.
        calibration : float, optional
            For a model without validation patients: the factor of the logits that was fitted for other models.
        expected : dict of str to str, optional
            For a model without validation patients: the expected results, see `ecg_shock.models.card.Card`.
        teachers : int
            Number of networks that `train` got as teachers.
        earlier : Bundle, optional
            The model from whose weights the training started. Its patients are added to the new card.
        frozen_blocks : int
            Number of blocks, counted from the first, whose weights were not trained.

        Raises
        ------
        ValueError
            If the settings ask for a calibration, but there are neither validation patients nor `calibration`.
        """
        model = result.load_model()
        fitted, score = self._calibrate(model, result)
        calibration = calibration or fitted
        if calibration is not None:
            calibrate(model, calibration)
        elif result.config.calibrated:
            raise ValueError(
                f"{self.data.split} has no validation patients to calibrate on; give the calibration of other models, "
                "or train with calibrated=False"
            )
        synthetic = SYNTHETIC in self.data.databases
        origin = json.loads((result.folder / ORIGIN_NAME).read_text(encoding="utf-8"))
        extra = extra_patients(self.data)
        own = self.subsets.train.select(~of_extra(self.subsets.train, self.data))
        # Patients of an extra database whose names begin with the name of another database are listed by name.
        elsewhere = {name for known in extra.values() for name in known.train | known.check}
        elsewhere = {name for name in elsewhere if name.partition("/")[0] not in extra}
        known = Patients(
            train=tuple(sorted({*patients(own), *elsewhere})),
            validation=tuple(patients(self.subsets.validation)),
            test=tuple(patients(self.subsets.test)),
            extra={name: ExtraDatabase.of(of_database) for name, of_database in extra.items()},
            files=self.subsets.seen_files,
        )
        protocol = "weights fitted on the train patients, the epoch chosen on the validation patients"
        if score is None:
            protocol = "weights fitted on all patients, the last epoch kept; no patient is left to test this model"
        if teachers:
            protocol += f"; the network learned the mean probability of {teachers} networks of the same train patients"
        if earlier is not None:
            known = _with_earlier(known, earlier, self.folder)
            protocol += (
                f"; the weights started from those of {earlier.name} ({KERAS_NAME} has SHA-256 "
                f"{earlier.digests[KERAS_NAME][:16]}), which has seen the patients called earlier, "
                f"{len(earlier.card.patients.seen(known.validation))} of the validation patients among them"
            )
            if frozen_blocks:
                protocol += f"; the first {frozen_blocks} blocks kept their weights"
        card = Card(
            name=name + (" (synthetic data: says nothing about patients)" if synthetic else ""),
            synthetic=synthetic,
            protocol=protocol,
            selection=selection,
            commit=origin["commit"] or "not a checkout",
            data=self.data,
            training=result.config.model_dump(mode="json", exclude_none=True),
            validation=score,
            patients=known,
            synthetic_windows=int((self.subsets.train.database == SYNTHETIC).sum()),
            synthetic_nonshockable=_count_synthetic_nonshockable(result),
            corrected_s=self._count_corrected(),
            calibration=calibration,
            versions=origin["versions"],
            expected=expected,
        )
        return write_bundle(
            folder,
            model,
            spec=result.spec,
            preprocessing=self.data.preprocessing,
            threshold=THRESHOLD,
            card=card.to_toml(folder / TOML_NAME),
        )

    def _count_corrected(self) -> dict[str, float]:
        """Count the corrected seconds of the training and validation patients, by patient and label, for the card."""
        seen = {*patients(self.subsets.train), *patients(self.subsets.validation)}
        found = count_corrected(self.data.labels, (*self.data.databases, *self.data.extra), seen)
        return {f"{row.patient}: {row.old} to {row.new}": round(row.seconds, 3) for row in found}

    def _calibrate(self, model: keras.Model, result: TrainingResult) -> tuple[float | None, ValidationScore | None]:
        """Return the factor of the calibration, and the result of the model, both from the validation patients.

        The factor is None if the settings ask for no calibration. Both are None without validation patients.
        """
        validation = self.subsets.validation
        if not len(validation):
            return None, None
        logits = compile_inference(model)(validation.ecg)[0]
        truth = shockable(validation)
        calibration = None
        if result.config.calibrated:
            calibration = fit_calibration(logits, truth, validation.patient, validation.aha_class)
        sensitivity, specificity = proportions(logits >= 0, truth)
        score = ValidationScore(
            epoch=result.best.epoch,
            balanced_accuracy=(sensitivity + specificity) / 2,
            sensitivity=sensitivity,
            specificity=specificity,
            windows=len(validation),
            patients=len(patients(validation)),
        )
        return calibration, score


@dataclass(frozen=True)
class FoldSource:
    """What a process or machine needs to load the windows of a fold.

    Parameters
    ----------
    data : DataConfig
        The settings of the windows.
    folder : pathlib.Path or None
        Folder that holds the databases; None for the default folder of the machine.
    sha256 : str or None
        The expected value of `TrainingFold.digest`; None if it is not checked.
    """

    data: DataConfig
    folder: Path | None
    sha256: str | None


@lru_cache(maxsize=MAX_FOLDS)
def load_fold(source: FoldSource) -> TrainingFold:
    """Load the windows of a fold, and keep them in memory for the next call.

    Raises
    ------
    ValueError
        If the windows do not have the digest `source.sha256`.
    """
    fold = TrainingFold.load(source.data, source.folder)
    if source.sha256 not in (None, fold.digest):
        raise ValueError(
            f"the windows of {socket.gethostname()} have the digest {fold.digest[:12]}…, not {str(source.sha256)[:12]}"
            "…; use the same recordings, manifests and version of this package on all machines"
        )
    return fold


def augmented_windows(bundle: Bundle, folder: Path | None = None) -> WindowSet:
    """Draw the augmented training windows of a bundle's first epoch again.

    Parameters
    ----------
    bundle : Bundle
        A model that was trained with augmentation.
    folder : pathlib.Path, optional
        Folder that holds the databases.

    Returns
    -------
    WindowSet
        The windows. All values of `start_s` are NaN. The rhythm and AHA class of a synthetic nonshockable window are
        ``"artefact"``.

    Raises
    ------
    ValueError
        If the model was trained without augmentation.
    """
    config, data = training_of(bundle), bundle.card.data
    if config.augmentation is None:
        raise ValueError(f"{bundle.folder} was trained without augmentation; give a bundle that was trained with it.")
    noise = read_training_noise(folder) if config.augmentation.needs_recorded_noise else {}
    drawn = _make_augmenter(data, config, load_strips(data, folder), noise).draw(1)
    names = np.char.partition(drawn.patient, "/")
    none = np.full(len(drawn.ecg), "")
    return WindowSet(
        ecg=drawn.ecg,
        database=names[:, 0],
        record=names[:, 2],
        lead=none,
        patient=drawn.patient,
        rhythm=drawn.rhythm,
        aha_class=drawn.rhythm,
        start_s=np.full(len(drawn.ecg), np.nan),
        window_s=data.window_s,
    )


def _make_augmenter(
    data: DataConfig, config: TrainingConfig, strips: Strips, noise: dict[str, np.ndarray]
) -> Augmenter:
    return Augmenter(
        strips,
        config.augmentation or Augmentation(),
        noise,
        policy=data.labels,
        preprocessing=data.preprocessing,
        extra=tuple(extra_patients(data)),
        extra_weight=data.extra_weight,
        seed=config.seed,
    )


class _AugmentedExamples:
    """Augmented windows as a source of examples."""

    def __init__(self, augmenter: Augmenter, teachers: _Teachers) -> None:
        self._augmenter = augmenter
        self._teachers = teachers

    def describe(self) -> dict[str, Any]:
        strips = self._augmenter.strips
        sha256 = digest(strips.signal, strips.start, strips.span, strips.aha_class, strips.patient)
        teachers = self._teachers.digests
        return {"candidates": len(strips), "sha256": sha256, **({"teachers": teachers} if teachers else {})}

    def draw(self, epoch: int) -> Examples:
        windows = self._augmenter.draw(epoch)
        return self._teachers.teach(Examples(ecg=windows.ecg, shockable=windows.shockable, rhythm=windows.rhythm))


class _Teachers:
    """Networks whose mean probability replaces the labels. Without networks, the labels are kept."""

    def __init__(self, models: Sequence[keras.Model]) -> None:
        self.digests = [digest(*model.get_weights()) for model in models]
        self._infer = [compile_inference(model) for model in models]

    def teach(self, windows: Examples) -> Examples:
        if not self._infer:
            return windows
        return replace(windows, targets=np.mean([expit(infer(windows.ecg)[0]) for infer in self._infer], axis=0))


def proportions(shock: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the sensitivity and specificity of shock advice; `shock` and `truth` are bool, shape (n_windows,)."""
    return float(shock[truth].mean()), float((~shock[~truth]).mean())


def _count_synthetic_nonshockable(result: TrainingResult) -> dict[str, int]:
    """Count the windows of artefact that the training drew up to its best epoch."""
    augmentation = result.config.augmentation
    if augmentation is None:
        return {}
    drawn = sum(log.drawn.get(ARTEFACT, 0.0) for log in result.history[: result.best.epoch])
    count = round(drawn * augmentation.windows)
    return {ARTEFACT: count} if count else {}


def _with_earlier(known: Patients, earlier: Bundle, folder: Path | None) -> Patients:
    """Add the patients, extra databases and signal files that an earlier model has seen."""
    before = earlier.card.patients
    return replace(
        known,
        earlier=tuple(sorted({*before.train, *before.validation, *before.earlier})),
        files=tuple(sorted({*known.files, *seen_digests(earlier, folder)})),
        extra=before.extra | known.extra,
    )


def training_of(bundle: Bundle) -> TrainingConfig:
    """Return the training settings of a bundle.

    Raises
    ------
    ValueError
        If the card has no settings, or if this version does not support one of them.
    """
    try:
        return TrainingConfig.model_validate(bundle.card.training)
    except ValidationError as error:
        raise ValueError(
            f"{bundle.folder} cannot be trained again: {'; '.join(explain(error, TrainingConfig))}"
        ) from error


def selection_of(base: Bundle | None, tested: Collection[str]) -> str:
    """Say, in a line for the card, how network and settings were chosen, and whether test patients affected the choice.

    `base` is the bundle whose network and settings the new model uses, if any. `tested` are the test patients of the
    new model.
    """
    if base is None:
        return "network and training were given, not searched"
    shared = len(base.card.patients.seen(tested))
    if not shared:
        return f"network and training are those of {base.name}, chosen without the test patients"
    return (
        f"network and training are those of {base.name}, which was trained or selected on {shared} of this fold's "
        f"{len(tested)} test patients: the result is optimistic because of that choice"
    )


def examples(windows: WindowSet, groups: Groups = "rhythm", weights: np.ndarray | None = None) -> Examples:
    """Return windows as `Examples` for training. `TrainingConfig` describes `groups`; `weights` are 1 by default."""
    return Examples(
        ecg=windows.ecg,
        shockable=shockable(windows),
        rhythm=windows.aha_class,
        groups=group_codes(windows.aha_class, windows.patient, groups),
        weights=np.ones(len(windows)) if weights is None else weights,
    )


def group_codes(aha_class: np.ndarray, patient: np.ndarray, groups: Groups) -> np.ndarray:
    """Return the number of each window's group, shape (n_windows,); `TrainingConfig` describes `groups`."""
    names = aha_class if groups == "rhythm" else np.char.add(np.char.add(aha_class, "\t"), patient)
    return np.unique(names, return_inverse=True)[1]


def patients(windows: WindowSet) -> list[str]:
    """Return the sorted names of the patients. Synthetic patients are omitted, unless all patients are synthetic."""
    real = windows.database != SYNTHETIC
    return sorted(set(windows.patient[real if real.any() else ~real].tolist()))
