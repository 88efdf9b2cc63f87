"""`ecg-shock` has all commands, and prints errors on one line."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import ecg_shock.commands
from ecg_shock.commands.app import app


def fetch_that_raises(error: BaseException, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    """Run a command that raises an error."""

    def load_manifest(name: str) -> None:
        raise error

    monkeypatch.setattr("ecg_shock.data.manifests.load_manifest", load_manifest)
    return CliRunner().invoke(app, [*options, "fetch", "vfdb"])


def test_every_command_file_is_registered() -> None:
    """The help lists each file of commands/."""
    files = {path.stem for path in Path(ecg_shock.commands.__file__).parent.glob("[a-z]*.py")} - {"app"}
    names = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == files
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(f"│ {name} " in shown.output for name in names)
    assert max(map(len, shown.output.splitlines())) <= 80


def test_help_is_light() -> None:
    """The help loads no slow packages."""
    heavy = ("tensorflow", "keras", "scipy.signal", "matplotlib", "wfdb", "sklearn", "pandas")
    code = (
        "import sys, ecg_shock.commands.app as m\n"
        "try: m.app(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("kind", [ValueError, TypeError, OSError, FileNotFoundError])
def test_error_is_one_line(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that a user can fix is one line, with its square brackets, and exit code 1."""
    text = "no [bold]such[/bold] file [/x] " + "far away " * 30
    result = fetch_that_raises(kind(text), monkeypatch)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"error: {text}\n"


def test_verbose_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With -v the error comes through, so that Python prints where it was raised."""
    error = ValueError("bad")
    assert fetch_that_raises(error, monkeypatch, "-v").exception is error


def test_defect_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect shows its traceback."""
    error = KeyError("rhythm")
    assert fetch_that_raises(error, monkeypatch).exception is error


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with the exit code that shells expect."""
    result = fetch_that_raises(KeyboardInterrupt(), monkeypatch)
    assert (result.exit_code, result.stderr) == (130, "stopped\n")


def test_closed_pipe_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ecg-shock … | head` prints no error."""
    result = fetch_that_raises(BrokenPipeError(errno.EPIPE, "Broken pipe"), monkeypatch)
    assert result.stderr == ""


def test_wrong_value_of_a_configuration_is_one_line() -> None:
    """A pydantic error names the field, what came, and what is allowed, without a link to pydantic."""
    result = CliRunner().invoke(app, ["windows", "--window", "12"])
    assert result.exit_code == 1
    assert result.stderr == "error: window_s = 12.0: input should be less than or equal to 10\n"


def test_unknown_command_suggests_the_near_one() -> None:
    """A mistyped command gets a suggestion."""
    result = CliRunner().invoke(app, ["predct"])
    assert result.exit_code == 2
    assert "Did you mean 'predict'?" in result.stderr
