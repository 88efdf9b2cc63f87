"""The command: quick help, and errors that a tired person can act on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ecg_shock.tune import tune

app = typer.Typer()
app.command()(tune)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ECG_SHOCK_CACHE", str(tmp_path / "cache"))


def test_help_does_not_load_tensorflow():
    """`python -m ecg_shock.tune --help` explains itself, and neither it nor reading a study loads TensorFlow."""
    script = (
        "import runpy, sys\n"
        "import ecg_shock.search.study, ecg_shock.search.run, ecg_shock.search.provenance\n"
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
    done = CliRunner().invoke(app, ["pubic"])
    assert done.exit_code == 1
    assert "paper, public, quickstart" in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_errors_of_a_study_are_printed_whole(tmp_path: Path):
    """What stands in brackets, as TOML tables do, is not taken for markup."""
    done = CliRunner().invoke(app, ["quickstart", "--trials", "100000000"])
    assert done.exit_code == 1
    assert "widen [space]" in " ".join(done.output.split())


def test_missing_recordings_are_named(tmp_path: Path):
    """Without the recordings of a study the command says which folder it looked for and what to do."""
    done = CliRunner().invoke(app, ["public", "--data", str(tmp_path / "nowhere")])
    assert done.exit_code == 1
    told = "".join(done.output.split())
    assert "nowhere/vfdb" in told
    assert "fetchvfdb" in told
    assert not (tmp_path / "runs").exists()
