"""The working process of a search: `python -m ecg_shock.search.worker FOLDER PHASE --data DIR`, run by a supervisor.

It says on standard output what it does, one JSON object a line, each with a "kind" and the "trial" it is about:

    begin       a training begins, or goes on: "pid" is the process
    epoch       an epoch has ended and is safe on disk: "epoch", "epochs", "balanced_accuracy"
    end         a training has ended: "balanced_accuracy", "error" (null, or why it failed)
    exhausted   no new network can be drawn: "drawn" is how many there are
    broken      a file cannot be read or written, or memory is short, which is no fault of the trial: "error" says what

Keras Tuner draws the networks and keeps the books; the training is ours (`ecg_shock.training`). That spares the search
the tuner's own training loop, which needs tensorboard, copies its callbacks and cannot resume within a trial.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import keras_tuner

from ecg_shock.files import write_text
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.search.runner import retraining_jobs, study_candidates
from ecg_shock.search.study import STUDY_FILE, Study, read_study
from ecg_shock.search.supervisor import DONE, RECYCLE
from ecg_shock.search.trials import Trial, read_trial, write_trial
from ecg_shock.training.fold import TrainingFold
from ecg_shock.training.trainer import CHECKPOINT_NAME, EpochLog, TrainingConfig

OBJECTIVE = "val_balanced_accuracy"
# Keras Tuner stops at 20 draws in a row that it has had already; we insist this many times over.
MAX_DRAWS = 200
MAX_ERROR_LENGTH = 300


class Stopped(BaseException):
    """The supervisor has asked for an end; no Exception, so that nothing takes it for a failed trial."""


class Recycled(BaseException):
    """The process has trained its share of networks."""


class Broken(BaseException):
    """The machine has failed, not the network; carries the error past Keras Tuner, which makes failed trials of all."""


class Supervisor:
    """The other end of the standard streams."""

    def __init__(self) -> None:
        # What libraries print goes to the log; the messages alone go to the supervisor.
        self._messages = os.dup(1)
        os.dup2(2, 1)
        self._asked = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def say(self, kind: str, trial: str, **more: Any) -> None:
        """Send one message."""
        os.write(self._messages, json.dumps({"kind": kind, "trial": trial, **more}).encode() + b"\n")

    def stop_if_asked(self) -> None:
        """Raise Stopped if the supervisor wants an end."""
        if self._asked.is_set():
            raise Stopped

    def _listen(self) -> None:
        # Not sys.stdin: its lock would be held at the interpreter's end.
        while os.read(0, 1):
            self._asked.set()
        os._exit(1)  # the supervisor is gone; every epoch so far is on disk


class Trainer:
    """Trains networks on a study's windows, each in its own folder, until its share is done.

    Parameters
    ----------
    study : Study
        What the run folder was made for.
    data_dir : Path
        Folder of the recordings.
    supervisor : Supervisor
        Hears of it.
    """

    def __init__(self, study: Study, data_dir: Path, supervisor: Supervisor) -> None:
        self._fold = TrainingFold.load(study.data, data_dir)
        self._supervisor = supervisor
        self._left = study.search.trials_per_process

    def recycle_if_worn(self) -> None:
        """Raise Recycled if this process has trained its share."""
        if self._left <= 0:
            raise Recycled

    def run(self, name: str, folder: Path, spec: CnnSpec, config: TrainingConfig) -> Trial:
        """Train one network, or return at once what its folder holds; a failure is a result, too.

        Parameters
        ----------
        name : str
            Name of the trial.
        folder : Path
            Its own folder; a training that was interrupted there goes on.
        spec : CnnSpec
            The network.
        config : TrainingConfig
            How it is trained.

        Returns
        -------
        Trial
        """
        ended = read_trial(folder)
        if ended is not None:
            return ended
        self._supervisor.stop_if_asked()
        folder.mkdir(parents=True, exist_ok=True)
        begun = Trial(
            name=name,
            filters=tuple(spec.filters),
            kernels=tuple(spec.kernels),
            learning_rate=config.learning_rate,
            seed=config.seed,
            parameters=spec.parameter_count(),
            macs=spec.macs(),
        )
        # Should this process die again and again in here, the supervisor makes a failed trial out of this.
        write_text(folder / "begun.json", begun.model_dump_json())
        self._supervisor.say("begin", folder.name, pid=os.getpid())

        def on_epoch(log: EpochLog) -> None:
            self._supervisor.say(
                "epoch",
                folder.name,
                epoch=log.epoch,
                epochs=config.epochs,
                balanced_accuracy=log.balanced_accuracy,
            )
            self._supervisor.stop_if_asked()

        try:
            result = self._fold.train(spec, config, folder, on_epoch=on_epoch)
            outcome: dict[str, Any] = {
                "balanced_accuracy": result.best.balanced_accuracy,
                "sensitivity": result.best.sensitivity,
                "specificity": result.best.specificity,
                "loss": result.best.validation_loss,
                "best_epoch": result.best.epoch,
                "seconds": round(sum(log.seconds for log in result.history), 2),
            }
        except (OSError, MemoryError):
            raise  # the machine failed, not the network: once there is room, the training goes on
        except Exception as error:
            write_text(folder / "error.txt", traceback.format_exc())
            outcome = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:MAX_ERROR_LENGTH]}
        trial = begun.model_copy(update=outcome)
        write_trial(folder, trial)
        self._left -= 1
        self._supervisor.say("end", folder.name, balanced_accuracy=trial.balanced_accuracy, error=trial.error)
        return trial


class Oracle(keras_tuner.oracles.RandomSearchOracle):
    """Keras Tuner's random search, made to survive a kill at any moment and to draw only networks that can be built.

    Parameters
    ----------
    study : Study
        Space, seed and number of trials.
    folder : Path
        Folder of the tuner's books and of the trials.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        space = keras_tuner.HyperParameters()
        study.space.declare(space)
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=study.search.trials,
            seed=study.search.seed + 1,  # Keras Tuner takes 0 for "any seed"
            hyperparameters=space,
            allow_new_entries=False,
            # The supervisor counts failures; Keras Tuner's count would go on to refuse the folder for good.
            max_consecutive_failed_trials=study.search.trials + 1,
        )
        self.verbose = 0
        self._study = study
        self._folder = folder

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Draw a network that is new and possible."""
        for _ in range(MAX_DRAWS):
            drawn = super().populate_space(trial_id)
            if drawn["values"] is None:
                continue
            try:
                self._study.space.spec_from(drawn["values"], input_samples=self._study.input_samples)
            except ValueError:
                continue
            return drawn
        return {"status": keras_tuner.engine.trial.TrialStatus.STOPPED, "values": None}

    def save(self) -> None:
        """Write the oracle's state, whole or not at all."""
        write_text(self._folder / "oracle.json", json.dumps(self.get_state()))

    def _save_trial(self, trial: Any) -> None:
        place = self._folder / f"trial_{trial.trial_id}"
        place.mkdir(parents=True, exist_ok=True)
        write_text(place / "trial.json", json.dumps(trial.get_state()))

    def reload(self) -> None:
        """Read the state back; forget a trial that was on disk before the oracle noted it: it is drawn again."""
        noted = json.loads((self._folder / "oracle.json").read_text(encoding="utf-8"))["start_order"]
        for file in self._folder.glob("trial_*/trial.json"):
            if file.parent.name.removeprefix("trial_") not in noted:
                file.unlink()
        super().reload()


class Tuner(keras_tuner.Tuner):
    """Keras Tuner's search with our training in each trial's folder.

    Parameters
    ----------
    study : Study
        What the run folder was made for.
    folder : Path
        The run folder.
    trainer : Trainer
        Trains the networks.
    """

    def __init__(self, study: Study, folder: Path, trainer: Trainer) -> None:
        self._study = study
        self._trainer = trainer
        super().__init__(Oracle(study, folder / "search"), directory=folder, project_name="search")

    def on_search_begin(self) -> None:
        """Leave a mark before the first trial: without it Keras Tuner would not reload."""
        self.save()

    def pre_create_trial(self) -> None:
        """Hand over to a fresh process when this one is worn and there is more to do."""
        if self.remaining_trials:
            self._trainer.recycle_if_worn()

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train the network that was drawn."""
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            ended = self._trainer.run(
                f"{int(trial.trial_id):04d}",  # Keras Tuner's own width changes with the number of trials
                folder,
                self._study.space.spec_from(trial.hyperparameters, input_samples=self._study.input_samples),
                self._study.trial_training,
            )
        except (OSError, MemoryError) as error:
            raise Broken(error) from error
        if ended.error:
            raise keras_tuner.errors.FailedTrialError(ended.error)
        # The consensus trains afresh, and thousands of deep networks would fill a disk.
        (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
        return {OBJECTIVE: ended.balanced_accuracy}

    def reload(self) -> None:
        """Read the oracle back; the tuner itself has no state, and a kill can leave its file empty."""
        self.oracle.reload()


def search(study: Study, folder: Path, trainer: Trainer, supervisor: Supervisor) -> None:
    """Draw and train networks until the study has its trials."""
    tuner = Tuner(study, folder, trainer)
    try:
        tuner.search()
        for trial in tuner.oracle.trials.values():
            # Keras Tuner has it as ended, but its result was damaged and deleted.
            if read_trial(Path(tuner.get_trial_dir(trial.trial_id))) is None:
                trainer.recycle_if_worn()
                with contextlib.suppress(keras_tuner.errors.FailedTrialError):
                    tuner.run_trial(trial)
    except Broken as broken:
        raise broken.args[0] from None
    drawn = len(tuner.oracle.trials)
    if drawn < study.search.trials:
        supervisor.say("exhausted", "", drawn=drawn)


def retrain(study: Study, folder: Path, trainer: Trainer) -> None:
    """Train the candidates again that have not been."""
    for job in retraining_jobs(study, study_candidates(study, folder)):
        place = folder / "retrain" / job.name
        if read_trial(place) is None:
            trainer.recycle_if_worn()
            trainer.run(job.name, place, job.spec, job.config)


def main() -> int:
    """Work until done, worn or stopped, and return the exit code that says so."""
    supervisor = Supervisor()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("phase", choices=["search", "retrain"])
    parser.add_argument("--data", type=Path, required=True)
    asked = parser.parse_args()

    try:
        study = read_study(asked.folder / STUDY_FILE)
        trainer = Trainer(study, asked.data, supervisor)
        if asked.phase == "search":
            search(study, asked.folder, trainer, supervisor)
        else:
            retrain(study, asked.folder, trainer)
    except (Recycled, Stopped):
        return RECYCLE
    except (OSError, MemoryError) as error:
        supervisor.say("broken", "", error=str(error) or type(error).__name__)
        raise
    return DONE


if __name__ == "__main__":
    sys.exit(main())
