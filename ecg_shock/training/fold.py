"""Train on one fold: load its windows, train a network on them, and write the best epoch as a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

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
from ecg_shock.data.windows import WindowSet
from ecg_shock.files import explain
from ecg_shock.models.bundle import KERAS_NAME, TOML_NAME, Bundle, write_bundle
from ecg_shock.models.card import Card, ExtraDatabase, Patients, ValidationScore
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.models.seen_files import check_unseen_files, seen_digests
from ecg_shock.training.trainer import (
    ORIGIN_NAME,
    THRESHOLD,
    EpochLog,
    Examples,
    Groups,
    Start,
    TrainingConfig,
    TrainingResult,
    train,
)


@dataclass(frozen=True)
class TrainingFold:
    """One fold of a split, on which networks are trained.

    Parameters
    ----------
    data : DataConfig
        The settings with which the windows were loaded.
    subsets : Subsets
        The windows of the fold. From the test subset, only the names of the patients are used.
    """

    data: DataConfig
    subsets: Subsets

    @classmethod
    def load(cls, data: DataConfig, folder: Path | None = None) -> TrainingFold:
        """Load the windows of a fold from recordings in `folder`."""
        return cls(data, load_subsets(data, folder))

    def train(
        self,
        spec: CnnSpec,
        config: TrainingConfig,
        folder: Path,
        *,
        start: Start | None = None,
        on_epoch: Callable[[EpochLog], None] | None = None,
    ) -> TrainingResult:
        """Train a network on the training subset, and choose the epoch on the validation subset; see `train`."""
        training = examples(self.subsets.train, config.groups, training_weights(self.subsets.train, self.data))
        validation = examples(self.subsets.validation)
        return train(spec, training, validation, config, folder, start=start, on_epoch=on_epoch)

    def start_from(self, bundle: Bundle, frozen_blocks: int, folder: Path | None = None) -> Start:
        """Return the weights of a bundle to start from, after checking that it has not seen a test patient.

        Parameters
        ----------
        bundle : Bundle
            The earlier model.
        frozen_blocks : int
            How many of its first blocks keep their weights.
        folder : pathlib.Path, optional
            Folder that holds the databases.

        Raises
        ------
        ValueError
            If the bundle was trained on or selected with a test patient of this fold, under whatever name; if it has
            fewer blocks; or if its windows are filtered in another way.
        """
        tested = patients(self.subsets.test)
        if seen := sorted(bundle.card.patients.seen(tested)):
            raise ValueError(
                f"{bundle.folder} was trained on or selected with {len(seen)} of the {len(tested)} test patients of "
                f"fold {self.data.fold}, such as {seen[0]!r}; a model that starts from it cannot be tested on them. "
                "Choose another fold or split, or a bundle that has not seen them."
            )
        check_unseen_files(bundle, self.data.databases, folder, tested)
        if not 0 <= frozen_blocks <= len(bundle.spec.filters):
            raise ValueError(
                f"{frozen_blocks!r} blocks cannot be frozen; {bundle.folder} has {len(bundle.spec.filters)} blocks"
            )
        if self.data.preprocessing != bundle.preprocessing:
            raise ValueError(
                f"the windows are filtered by {self.data.preprocessing!r}, but those of {bundle.folder} by "
                f"{bundle.preprocessing!r}; use its filter"
            )
        return Start(bundle.load_keras().get_weights(), frozen_blocks)

    def write_bundle(
        self,
        folder: Path,
        name: str,
        result: TrainingResult,
        *,
        selection: str,
        earlier: Bundle | None = None,
        frozen_blocks: int = 0,
        data_folder: Path | None = None,
    ) -> Bundle:
        """Write the best epoch of a training run on this fold as a bundle with a card.

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
        earlier : Bundle, optional
            The model whose weights the training started from: what it has seen, this one has seen, too.
        frozen_blocks : int
            How many of its first blocks kept their weights.
        data_folder : pathlib.Path, optional
            Folder that holds the databases.
        """
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
        if earlier is not None:
            known = _with_earlier(known, earlier, data_folder)
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
            validation=ValidationScore(
                epoch=result.best.epoch,
                balanced_accuracy=result.best.balanced_accuracy,
                sensitivity=result.best.sensitivity,
                specificity=result.best.specificity,
                windows=len(self.subsets.validation),
                patients=len(known.validation),
            ),
            patients=known,
            synthetic_windows=int((self.subsets.train.database == SYNTHETIC).sum()),
            versions=origin["versions"],
        )
        return write_bundle(
            folder,
            result.load_model(),
            spec=result.spec,
            preprocessing=self.data.preprocessing,
            threshold=THRESHOLD,
            card=card.to_toml(folder / TOML_NAME),
        )


def _with_earlier(known: Patients, earlier: Bundle, folder: Path | None) -> Patients:
    """Add what an earlier model has seen."""
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
    """Return a line for the card: how network and settings were chosen, and whether test patients affected the choice.

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
    names = windows.aha_class
    if groups == "rhythm-patient":
        names = np.array(["\t".join(pair) for pair in zip(windows.aha_class, windows.patient, strict=True)])
    _, codes = np.unique(names, return_inverse=True)
    return Examples(
        ecg=windows.ecg,
        shockable=shockable(windows),
        rhythm=windows.aha_class,
        groups=codes,
        weights=np.ones(len(windows)) if weights is None else weights,
    )


def patients(windows: WindowSet) -> list[str]:
    """Return the sorted names of the patients, without synthetic ones unless all are synthetic."""
    real = windows.database != SYNTHETIC
    return sorted(set(windows.patient[real if real.any() else ~real].tolist()))
