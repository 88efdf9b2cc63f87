"""`ecg-shock tune`: quick help, and errors that say what to do."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from ecg_shock.commands import tune
from ecg_shock.commands._trainings import Trainings
from ecg_shock.commands.app import app
from ecg_shock.data.datasets import Subsets
from ecg_shock.data.windows import WindowSet
from ecg_shock.files import locked
from ecg_shock.search.study import read_study
from ecg_shock.search.tasks import Task
from ecg_shock.search.trials import Trial


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def subset_of():
    """Make windows of coarse VF, by patient."""

    def _subset_of(counts: dict[str, int]) -> WindowSet:
        patient = np.repeat(list(counts), list(counts.values()))
        names = {name: np.full(len(patient), name) for name in ("record", "lead", "rhythm")}
        return WindowSet(
            ecg=np.zeros((len(patient), 625), dtype=np.float32),
            database=np.array([name.partition("/")[0] for name in patient.tolist()]),
            patient=patient,
            aha_class=np.full(len(patient), "coarse_vf"),
            start_s=np.arange(float(len(patient))),
            window_s=5.0,
            **names,
        )

    return _subset_of


def test_help_does_not_load_tensorflow():
    """`python -m ecg_shock.tune --help` explains itself, and neither it nor reading a study loads TensorFlow."""
    script = (
        "import runpy, sys\n"
        "import ecg_shock.search.study, ecg_shock.search.runner\n"
        "sys.argv = ['tune', '--help']\n"
        "try:\n"
        "    runpy.run_module('ecg_shock.tune', run_name='__main__')\n"
        "finally:\n"
        "    print([name for name in ('tensorflow', 'keras', 'keras_tuner', 'matplotlib') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--trials" in done.stdout
    assert "quickstart" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_unknown_study_lists_the_embedded_ones(tmp_path: Path):
    """A mistyped name is answered with the names there are, without a traceback, and leaves no folder behind."""
    done = CliRunner().invoke(app, ["tune", "pubic"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("paper, public, quickstart\n")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_errors_of_a_study_are_printed_whole(tmp_path: Path):
    """Text in brackets, such as TOML tables, is not taken for markup."""
    done = CliRunner().invoke(app, ["tune", "quickstart", "--trials", "100000000"])
    assert done.exit_code == 1
    assert "widen [space]" in done.stderr


def test_missing_recordings_are_named(tmp_path: Path):
    """Without the recordings of a study the command says which folder it looked for and what to do."""
    done = CliRunner().invoke(app, ["tune", "public", "--data", str(tmp_path / "nowhere")])
    assert done.exit_code == 1
    assert str(Path("nowhere", "vfdb")) in done.stderr
    assert "fetch vfdb" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_two_runs_in_one_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While another run works in the folder nothing in it is touched, and the error says what to do."""
    monkeypatch.setattr("ecg_shock.training.fold.load_subsets", lambda data, folder: None)
    folder = tmp_path / "a [b]"
    folder.mkdir()
    with locked(folder):
        done = CliRunner().invoke(app, ["tune", "quickstart", "--out", str(folder)])
    assert done.exit_code == 1
    assert (
        done.stderr
        == f"error: another run is using {folder}; wait until that run ends, or choose another folder with --out\n"
    )
    assert [file.name for file in folder.iterdir()] == [".lock"]


def test_ctrl_c_says_that_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C ends with one line and the exit code that shells expect."""

    def load_subsets(data: object, folder: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ecg_shock.training.fold.load_subsets", load_subsets)
    done = CliRunner().invoke(app, ["tune"])
    assert (done.exit_code, done.stderr) == (130, "stopped; run the same command to continue\n")


def test_synthetic_windows_are_not_counted_as_patients(
    subset_of, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Synthetic windows added to real ones are counted apart, and their patients are not named."""
    monkeypatch.setattr(tune, "console", Console(width=120))
    real = read_study("quickstart", {"data.databases": ["vfdb"], "data.supplement": ["coarse_vf"]})
    subsets = Subsets(
        subset_of({"vfdb/1": 3, "vfdb/2": 1, "synthetic/7": 5}), subset_of({"vfdb/[b]": 1}), subset_of({"vfdb/4": 1})
    )
    tune._show_plan(real, subsets, Path("runs") / "[red]")
    printed = capsys.readouterr().out
    assert printed.count("4 (2) + 5 synthetic") == 2  # of the one class, and of all
    assert "train: vfdb/1, vfdb/2, 1 synthetic\n" in printed
    assert "validation: vfdb/[b]\n" in printed
    assert "run folder: runs/[red]\n" in printed

    subsets = Subsets(subset_of({"synthetic/7": 5}), subset_of({"synthetic/8": 1}), subset_of({"synthetic/9": 1}))
    tune._show_plan(read_study("quickstart"), subsets, Path("runs"))
    printed = capsys.readouterr().out
    assert printed.count("5 (1)") == 2
    assert "train: synthetic/7\n" in printed


def test_table_shows_the_best(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """The table shows as many trials as asked for, best first, and counts the failed."""
    monkeypatch.setattr(tune, "console", Console(width=120))
    common = {"filters": (5,), "kernels": (10,), "learning_rate": 1e-3, "seed": 0, "parameters": 61, "macs": 1000}
    trials = tuple(Trial(name=f"{bac}", balanced_accuracy=bac, **common) for bac in (0.9, 0.94, 0.95))
    tune._show_trials((*trials, Trial(name="f", error="died, badly", **common)), " · synthetic", rows=2)
    shown = capsys.readouterr().out
    assert shown.index("95.00") < shown.index("94.00")
    assert "90.00" not in shown
    assert "4 trained, 2 shown, 1 failed" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_running_trainings_are_shown(terminal: bool, tmp_path: Path):
    """A terminal shows a table of what is running; elsewhere, each training that has ended is a line."""
    console = Console(width=100, record=True, force_terminal=terminal, file=io.StringIO())
    running, ended = (Task(name, tmp_path, 20, print, ()) for name in ("0007", "0008"))
    with Trainings(console, "search", 40, 7, 0.95) as trainings:
        for epoch, accuracy in ((0, None), (1, 0.9), (2, 0.8)):
            trainings.on_progress(running, epoch, accuracy)
        trainings.on_progress(ended, 20, 0.96)
        trainings.end("0008", 0.96)
        trainings.end("0009", float("nan"), "the loss is nan")
        if terminal:
            console.print(trainings._table())
    shown = console.export_text()
    assert "search 0009 failed: the loss is nan" in shown
    assert ("search 8/40: 0008 BAC 96.00 %, best 96.00 %, " in shown) is not terminal
    if terminal:
        assert "9/40 best 96.00 %, 1 failed, " in shown
        assert "0007 2/20 80.00 90.00" in " ".join(shown.split())


def test_damaged_result_is_named(tmp_path: Path):
    """A result that a power cut left empty is named, with what to do."""
    place = tmp_path / "run" / "search" / "trial_0"
    place.mkdir(parents=True)
    (place / "result.json").write_text("")
    done = CliRunner().invoke(app, ["tune", "--trials", "1", "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {place / 'result.json'} is damaged (invalid JSON")
    assert done.stderr.endswith("delete it, and run the same command again to repeat the trial\n")
