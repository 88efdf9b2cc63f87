"""`ecg-shock fetch` says what it did, and its exit status says whether all files are correct."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ecg_shock.commands.app import app
from ecg_shock.commands.fetch import MAX_PROBLEMS_SHOWN


class QuietHandler(SimpleHTTPRequestHandler):
    """Serve a folder without a log."""

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve a folder of twelve small files, described by tiny.toml beside it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    for number in range(12):
        (served / f"r{number}.hea").write_bytes(b"x" * (number + 1))
    files = []
    for path in sorted(served.iterdir()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(f'"{path.name}" = {{ bytes = {path.stat().st_size}, sha256 = "{digest}" }}')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(served))) as server:
        text = (
            'name = "tiny"\ntitle = "Tiny [1]"\nversion = "1"\nlicence = "CC0"\ncitation = "Nobody, 2020."\n'
            f'doi = "10.1/x"\nurl = "http://127.0.0.1:{server.server_port}"\n[files]\n'
        )
        (tmp_path / "tiny.toml").write_text(text + "\n".join(files), encoding="utf-8")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def run(*arguments: str | Path) -> Result:
    """Run the command as a shell would."""
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, ["fetch", *(str(argument) for argument in arguments)])


def test_fetch_prints_licence_and_citation(publisher: Path, tmp_path: Path) -> None:
    """The files arrive, and their terms are shown as they are written."""
    result = run(tmp_path / "tiny.toml", "--data", tmp_path / "data")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "data" / "tiny").iterdir()} == {p.name for p in publisher.iterdir()}
    for text in ("Tiny [1] 1: 12 files, 78 bytes", "Licence: CC0", "Nobody, 2020.", "https://doi.org/10.1/x"):
        assert text in result.output


def test_verify_prints_a_table_and_fetches_nothing(publisher: Path, tmp_path: Path) -> None:
    """A correct copy exits 0; a wrong one exits 1 with the problem, and stays as it is."""
    fetched = run(tmp_path / "tiny.toml", "--data", tmp_path / "data")
    assert fetched.exit_code == 0
    right = run(tmp_path / "tiny.toml", "--data", tmp_path / "data", "--verify")
    assert right.exit_code == 0, right.output
    row = next(line for line in right.output.splitlines() if "tiny" in line and "78" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["tiny", "12", "78", "correct"]

    changed = tmp_path / "data" / "tiny" / "r3.hea"
    changed.write_bytes(b"x")
    wrong = run(tmp_path / "tiny.toml", "--data", tmp_path / "data", "--verify")
    assert wrong.exit_code == 1
    assert "1 wrong size" in wrong.output
    assert "tiny/r3.hea: wrong size; expected 4 bytes, found 1 bytes" in wrong.output
    assert changed.read_bytes() == b"x"


def test_verify_of_an_empty_folder_stays_short(publisher: Path, tmp_path: Path) -> None:
    """When everything is missing the first problems and the number of the others are shown."""
    result = run(tmp_path / "tiny.toml", "--data", tmp_path / "nowhere", "--verify")
    assert result.exit_code == 1
    assert result.output.count("missing; expected") == MAX_PROBLEMS_SHOWN
    assert f"and {12 - MAX_PROBLEMS_SHOWN} more" in result.output
    assert not (tmp_path / "nowhere").exists()


def test_failed_download_is_an_error_without_traceback(publisher: Path, tmp_path: Path) -> None:
    """A file that the server lacks exits 1 and is named on the error stream."""
    (publisher / "r5.hea").unlink()
    result = run(tmp_path / "tiny.toml", "--data", tmp_path / "data")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: could not fetch r5.hea (6 bytes)")
    assert "Traceback" not in result.output


def test_unknown_database_fetches_nothing(publisher: Path, tmp_path: Path) -> None:
    """A misspelt name stops the command before the others are fetched."""
    result = run(tmp_path / "tiny.toml", "vfbd", "--data", tmp_path / "data")
    assert result.exit_code == 1
    assert "unknown database 'vfbd'; known are aami-ec13, challenge-2011, challenge-2017" in result.stderr
    assert not (tmp_path / "data").exists()
