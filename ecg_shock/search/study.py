"""A study: the settings of a search, read from a TOML file.

Examples
--------
>>> study = read_study("quickstart")
>>> study.data.databases
('synthetic',)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from ecg_shock.data.datasets import SYNTHETIC, DataConfig
from ecg_shock.data.manifests import resource_dir
from ecg_shock.files import explain, flatten, path_beside, path_for, read_toml, with_values, write_text
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.preprocessing import FS
from ecg_shock.search.consensus import ConsensusConfig
from ecg_shock.search.space import SearchSpace
from ecg_shock.search.stopping import StoppingConfig
from ecg_shock.training.trainer import TrainingConfig

STUDY_FILE = "study.toml"


class SearchConfig(BaseModel):
    """Settings of the trials.

    Parameters
    ----------
    trials : int
        Number of networks to draw and train.
    seed : int
        Seed of the random draw.
    strategy : {"random", "hyperband", "bayesian"}
        How the networks are chosen; the documentation page on searches describes this.
    epochs, patience : int or None
        Epochs and patience of a trial. By default those of [training], which always apply to retraining.
    trials_per_process : int
        Number of trials after which a new process is started, because each trial leaks memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: PositiveInt
    seed: NonNegativeInt = 0
    strategy: Literal["random", "hyperband", "bayesian"] = "random"
    epochs: PositiveInt | None = None
    patience: PositiveInt | None = None
    trials_per_process: PositiveInt = 25


class Study(BaseModel):
    """All settings of a search.

    Parameters
    ----------
    name : str
        Name of the study and of its run folder, `runs/NAME`.
    data : DataConfig
        Databases, split, fold and window length.
    space : SearchSpace
        Networks that can be drawn.
    search : SearchConfig
        Settings of the trials.
    stopping : StoppingConfig or None
        When the median rule stops a trial; None if it stops none.
    training : TrainingConfig
        Settings of each training run.
    consensus : ConsensusConfig
        How the trials are combined into one network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    data: DataConfig
    space: SearchSpace = SearchSpace()
    search: SearchConfig
    stopping: StoppingConfig | None = None
    training: TrainingConfig = TrainingConfig.model_validate({})
    consensus: ConsensusConfig = ConsensusConfig()

    @model_validator(mode="after")
    def _space_is_large_enough_and_fits_the_window(self) -> Study:
        if self.search.trials > self.space.size():
            raise ValueError(
                f"search.trials = {self.search.trials}, but the space holds only {self.space.size()} networks; "
                "set fewer trials, or widen [space]"
            )
        depth = self.space.blocks[0]
        try:  # the shallowest network with the shortest kernels needs the fewest samples
            self.spec((self.space.filters[0],) * depth, (self.space.kernels[0],) * depth)
        except ValueError as error:
            raise ValueError(
                f"no network of [space] can be built for windows of data.window_s = {self.data.window_s:g} s "
                f"({self.input_samples} samples); in the smallest network, {error}"
            ) from error
        return self

    @model_validator(mode="after")
    def _trials_can_be_cut_short(self) -> Study:
        if self.search.strategy == "hyperband" and self.stopping is not None:
            raise ValueError(
                "search.strategy = 'hyperband' ends trials early itself; remove [stopping], or choose another strategy"
            )
        if self.search.strategy == "hyperband" and self.training.schedule != "constant":
            raise ValueError(
                f"search.strategy = 'hyperband' continues trainings, which training.schedule = "
                f"{self.training.schedule!r} does not allow; use schedule = 'constant', or another strategy"
            )
        if self.stopping is not None and self.stopping.warm_up >= self.trial_training.epochs:
            raise ValueError(
                f"stopping.warm_up = {self.stopping.warm_up} is not below the {self.trial_training.epochs} epochs of a "
                "trial, so that no trial would be stopped; use a shorter warm_up, or remove [stopping]"
            )
        return self

    @property
    def synthetic(self) -> bool:
        """Whether the recordings are synthetic, so that the results say nothing about patients.

        This is False if there are recordings of patients, even if `data.supplement` adds synthetic windows.
        """
        return SYNTHETIC in self.data.databases

    @property
    def input_samples(self) -> int:
        """Number of samples in a window."""
        return round(self.data.window_s * FS)

    @property
    def trial_training(self) -> TrainingConfig:
        """Settings for the training of a trial."""
        return with_values(self.training, epochs=self.search.epochs, patience=self.search.patience)

    def spec(self, filters: tuple[int, ...], kernels: tuple[int, ...]) -> CnnSpec:
        """Return the network with these blocks, for the study's windows."""
        return self.space.spec(filters, kernels, input_samples=self.input_samples)


def study_names() -> tuple[str, ...]:
    """Return the names of the studies that come with the package."""
    return tuple(sorted(file.stem for file in resource_dir("tuning").glob("*.toml")))


def read_study(name_or_path: str | Path, changes: Mapping[str, Any] | None = None) -> Study:
    """Read and validate a study. Paths in it are relative to its folder.

    Parameters
    ----------
    name_or_path : str or Path
        A TOML file, or the name of a study that comes with the package.
    changes : mapping of str, optional
        Values that replace those of the file, by dotted key, such as {"search.trials": 20}.

    Returns
    -------
    Study

    Raises
    ------
    FileNotFoundError
        If there is no such file or study.
    ValueError
        If the file is not TOML, or a key or value is not allowed.
    """
    file = Path(name_or_path)
    if not file.is_file():
        if str(name_or_path) not in study_names():
            raise FileNotFoundError(
                f"there is no study {str(name_or_path)!r}: give a TOML file, or one of the package's studies "
                f"{', '.join(study_names())}"
            )
        file = resource_dir("tuning") / f"{name_or_path}.toml"
    content = read_toml(file)
    for key, value in (changes or {}).items():
        section, _, field = key.partition(".")
        table = content.setdefault(section, {})
        if isinstance(table, dict):  # the validation reports anything else
            table[field] = value
    try:
        study = Study.model_validate(content)
        return study.model_copy(update={"data": study.data.with_paths(lambda name: path_beside(name, file))})
    except ValidationError as error:
        errors = "\n".join(f"  {line}" for line in explain(error, Study))
        raise ValueError(f"{file} cannot be used:\n{errors}") from error


def save_study(study: Study, folder: Path) -> None:
    """Write a study, including its default values, to its run folder.

    If the folder already has a study, it must be the same, except that `search.trials` may be higher and
    `search.trials_per_process` may differ.

    Raises
    ------
    ValueError
        If the folder has a run of another study, or if the study in the folder is damaged.
    """
    file = folder / STUDY_FILE
    content = _content_of(study, file)
    if file.is_file():
        try:
            begun = flatten(_content_of(read_study(file), file))  # with the default values of newer settings
        except ValueError as error:
            raise ValueError(
                f"this run's study is damaged: {error}\n"
                f"Restore {file} from a copy, or choose another folder with --out."
            ) from error
        requested = flatten(content)
        differences = [
            f"  {key}: {begun.get(key, 'not set')!r} in the folder, {requested.get(key, 'not set')!r} now"
            for key in sorted(begun.keys() | requested.keys())
            if begun.get(key) != requested.get(key)
            # These two do not change what the run compares.
            and key != "search.trials_per_process"
            and not (key == "search.trials" and requested[key] > begun[key])
        ]
        if differences:
            raise ValueError(
                f"{folder} holds a run of another study:\n" + "\n".join(differences) + "\n"
                "Undo the change to continue that run (search.trials may be raised), "
                "or choose another folder with --out."
            )
    write_text(file, tomli_w.dumps(content))


def _content_of(study: Study, file: Path) -> dict[str, Any]:
    """Return the content of a study's file, with paths relative to it."""
    data = study.data.with_paths(lambda name: path_for(name, file))
    return study.model_copy(update={"data": data}).model_dump(mode="json", exclude_none=True)  # TOML has no null
