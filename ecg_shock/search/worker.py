"""The worker process of a search: `python -m ecg_shock.search.worker FOLDER PHASE --data DIR`, run by a supervisor.

The worker writes messages to standard output, one JSON object per line, each with a "kind" and the name of a "trial".
These are the kinds, with their further keys:

    begin       a training begins or is resumed: "pid" of the process
    epoch       an epoch has been saved: "epoch", "epochs", "balanced_accuracy"
    end         a training has ended: "balanced_accuracy", "error" (null, or why it failed)
    exhausted   no new network can be drawn: "drawn", the number of networks
    broken      a file cannot be read or written, or there is not enough memory: "error"

Keras Tuner draws the networks and stores the state of the search; `ecg_shock.training` trains them. The training loop
of the tuner is not used, because it needs tensorboard, copies its callbacks, and cannot resume within a trial.
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
# Keras Tuner gives up if 20 networks in a row have been drawn before. The worker repeats this so many times.
MAX_DRAWS = 200
MAX_ERROR_LENGTH = 300


class Stopped(BaseException):
    """Raised if the supervisor asked the worker to stop. Keras Tuner would count an Exception as a failed trial."""


class Recycled(BaseException):
    """Raised if the process has trained `trials_per_process` networks, so that a new process has to continue."""


class MachineError(BaseException):
    """Raised for errors of files or memory. Keras Tuner would count an Exception as a failed trial."""


class SupervisorConnection:
    """The connection to the supervisor over the standard streams."""

    def __init__(self) -> None:
        # Libraries may print to standard output, so it is redirected to the log (standard error).
        self._messages = os.dup(1)
        os.dup2(2, 1)
        self._stop_requested = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: str, trial: str, **more: Any) -> None:
        """Send a message of this kind; `more` are its further keys."""
        os.write(self._messages, json.dumps({"kind": kind, "trial": trial, **more}).encode() + b"\n")

    def stop_if_asked(self) -> None:
        """Raise Stopped if the supervisor asked the worker to stop."""
        if self._stop_requested.is_set():
            raise Stopped

    def _listen(self) -> None:
        # os.read, because sys.stdin would hold a lock when the interpreter exits.
        while os.read(0, 1):
            self._stop_requested.set()
        os._exit(1)  # the supervisor has died; all complete epochs are saved


class Trainer:
    """Train networks on the windows of a study, at most `trials_per_process` of them, each in its own folder.

    Parameters
    ----------
    study : Study
        The study of the run folder.
    data_dir : Path
        Folder of the recordings.
    supervisor : SupervisorConnection
        Receives the messages.
    """

    def __init__(self, study: Study, data_dir: Path, supervisor: SupervisorConnection) -> None:
        self._fold = TrainingFold.load(study.data, data_dir)
        self._supervisor = supervisor
        self._left = study.search.trials_per_process

    def recycle_if_due(self) -> None:
        """Raise Recycled if this process has trained `trials_per_process` networks."""
        if self._left <= 0:
            raise Recycled

    def run(self, name: str, folder: Path, spec: CnnSpec, config: TrainingConfig) -> Trial:
        """Train a network and return the result. If its folder already has a result, return that.

        If the training fails, the result says why.

        Parameters
        ----------
        name : str
            Name of the trial.
        folder : Path
            Folder of the trial; an interrupted training in it is resumed.
        spec : CnnSpec
            The network.
        config : TrainingConfig
            The training settings.

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
        # If this process crashes repeatedly, the supervisor writes a failed trial with this content.
        write_text(folder / "begun.json", begun.model_dump_json())
        self._supervisor.send("begin", folder.name, pid=os.getpid())

        def on_epoch(log: EpochLog) -> None:
            self._supervisor.send(
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
            raise  # the machine failed, not the network; the training can be resumed
        except Exception as error:
            write_text(folder / "error.txt", traceback.format_exc())
            outcome = {"error": f"{type(error).__name__}: {error}".replace("\n", " ")[:MAX_ERROR_LENGTH]}
        trial = begun.model_copy(update=outcome)
        write_trial(folder, trial)
        self._left -= 1
        self._supervisor.send("end", folder.name, balanced_accuracy=trial.balanced_accuracy, error=trial.error)
        return trial


class Oracle(keras_tuner.oracles.RandomSearchOracle):
    """Keras Tuner's random search, but with atomic writes, and without networks that cannot be built.

    Parameters
    ----------
    study : Study
        The study, which gives the search space, the seed and the number of trials.
    folder : Path
        Folder of the tuner's state and of the trials.
    """

    def __init__(self, study: Study, folder: Path) -> None:
        space = keras_tuner.HyperParameters()
        study.space.declare(space)
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=study.search.trials,
            seed=study.search.seed + 1,  # Keras Tuner replaces seed 0 by a random one
            hyperparameters=space,
            allow_new_entries=False,
            # The supervisor counts failures. With its own count, Keras Tuner would refuse the folder forever.
            max_consecutive_failed_trials=study.search.trials + 1,
        )
        self.verbose = 0
        self._study = study
        self._folder = folder

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Draw a new network that fits the window."""
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
        """Write the state of the oracle atomically."""
        write_text(self._folder / "oracle.json", json.dumps(self.get_state()))

    def _save_trial(self, trial: Any) -> None:
        trial_folder = self._folder / f"trial_{trial.trial_id}"
        trial_folder.mkdir(parents=True, exist_ok=True)
        write_text(trial_folder / "trial.json", json.dumps(trial.get_state()))

    def reload(self) -> None:
        """Read the state, and delete trials that are not in it, so that they are drawn again."""
        listed = json.loads((self._folder / "oracle.json").read_text(encoding="utf-8"))["start_order"]
        for file in self._folder.glob("trial_*/trial.json"):
            if file.parent.name.removeprefix("trial_") not in listed:
                file.unlink()
        super().reload()


class Tuner(keras_tuner.Tuner):
    """Keras Tuner's search, with `Trainer` for training.

    Parameters
    ----------
    study : Study
        The study of the run folder.
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
        """Save the state before the first trial, because Keras Tuner needs it to resume an interrupted search."""
        self.save()

    def pre_create_trial(self) -> None:
        """Raise Recycled if this process has trained `trials_per_process` networks and trials remain."""
        if self.remaining_trials:
            self._trainer.recycle_if_due()

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train the network that was drawn."""
        folder = Path(self.get_trial_dir(trial.trial_id))
        try:
            ended = self._trainer.run(
                f"{int(trial.trial_id):04d}",  # the width of Keras Tuner's own names depends on the number of trials
                folder,
                self._study.space.spec_from(trial.hyperparameters, input_samples=self._study.input_samples),
                self._study.trial_training,
            )
        except (OSError, MemoryError) as error:
            raise MachineError(error) from error
        if ended.error:
            raise keras_tuner.errors.FailedTrialError(ended.error)
        # Checkpoints are not needed any more: the consensus trains new networks.
        (folder / CHECKPOINT_NAME).unlink(missing_ok=True)
        return {OBJECTIVE: ended.balanced_accuracy}

    def reload(self) -> None:
        """Reload the oracle only. The tuner itself has no state, and its file can be empty after a crash."""
        self.oracle.reload()


def search(study: Study, folder: Path, trainer: Trainer, supervisor: SupervisorConnection) -> None:
    """Draw and train networks until the study has all its trials."""
    tuner = Tuner(study, folder, trainer)
    try:
        tuner.search()
        for trial in tuner.oracle.trials.values():
            # Keras Tuner has recorded the end of this trial, but its result was deleted.
            if read_trial(Path(tuner.get_trial_dir(trial.trial_id))) is None:
                trainer.recycle_if_due()
                with contextlib.suppress(keras_tuner.errors.FailedTrialError):
                    tuner.run_trial(trial)
    except MachineError as failure:
        raise failure.args[0] from None
    drawn = len(tuner.oracle.trials)
    if drawn < study.search.trials:
        supervisor.send("exhausted", "", drawn=drawn)


def retrain(study: Study, folder: Path, trainer: Trainer) -> None:
    """Retrain the candidates that have no result yet."""
    for job in retraining_jobs(study, study_candidates(study, folder)):
        job_folder = folder / "retrain" / job.name
        if read_trial(job_folder) is None:
            trainer.recycle_if_due()
            trainer.run(job.name, job_folder, job.spec, job.config)


def main() -> int:
    """Run one phase of a search, and return the exit code for the supervisor."""
    supervisor = SupervisorConnection()
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("phase", choices=["search", "retrain"])
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()

    try:
        study = read_study(arguments.folder / STUDY_FILE)
        trainer = Trainer(study, arguments.data, supervisor)
        if arguments.phase == "search":
            search(study, arguments.folder, trainer, supervisor)
        else:
            retrain(study, arguments.folder, trainer)
    except (Recycled, Stopped):
        return RECYCLE
    except (OSError, MemoryError) as error:
        supervisor.send("broken", "", error=str(error) or type(error).__name__)
        raise
    return DONE


if __name__ == "__main__":
    sys.exit(main())
