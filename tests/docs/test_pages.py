"""Every command and example of README.md, CONTRIBUTING.md and docs/ runs as printed, each page in an empty folder.

What runs is a block that begins with ```console (lines after ``$`` are commands, the others are what they print) or
```python. Three dots (…) in a page stand for anything. A comment on the line above a block may say more:

- ``<!-- file: NAME -->``: the block is the content of a file that what follows reads.
- ``<!-- test: output varies -->``: the command has to succeed; what it prints is not compared.
- ``<!-- test: --quick -->``: the same, with these options added, so that it does not take long.
- ``<!-- test: covered by PATH -->``: that file, or the test after ``::`` in it, runs this or the same in small.
"""

from __future__ import annotations

import doctest
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ecg_shock.commands.app import app
from ecg_shock.data.manifests import Manifest, load_manifest
from ecg_shock.models.bundle import Bundle

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").glob("*.md"))]
WITHOUT_RECORDINGS = ("own-recordings", "deployment")  # pages that make all they read
BLOCK = re.compile(r"^(?:<!-- (.*?) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OURS = {("ecg-shock",): [], ("python", "-m", "ecg_shock.tune"): ["tune"]}


@pytest.fixture
def mirror(recordings_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let PhysioNet be this machine, and return a data folder that lacks cudb, the smallest database."""

    def load_from_mirror(name: str | Path) -> Manifest:
        manifest = load_manifest(name)
        return replace(manifest, url=f"http://127.0.0.1:{server.server_port}/{manifest.name}")

    folder = tmp_path / "data"
    for database in ("vfdb", "mitdb", "nstdb"):
        (folder / database).mkdir(parents=True)
        for file in (recordings_dir / database).iterdir():
            (folder / database / file.name).symlink_to(file)
    monkeypatch.setattr("ecg_shock.data.fetch.load_manifest", load_from_mirror)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    handler = partial(SimpleHTTPRequestHandler, directory=str(recordings_dir))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder
        server.shutdown()
        thread.join()


def check_console(text: str, note: str, folder: Path) -> None:
    """Run the commands of a block one after another, ours in this process, where the libraries are loaded already."""
    for part in re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        line, _, expected = part.partition("\n")
        command = line.partition("  # ")[0] + (f" {note}" if note.startswith("--") else "")
        words = shlex.split(command)
        ours = next((key for key in OURS if tuple(words[: len(key)]) == key), None)
        if ours:
            done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*OURS[ours], *words[len(ours) :]])
            status, printed = done.exit_code, done.output
        else:
            shell = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
            status, printed = shell.returncode, shell.stdout + shell.stderr
        assert (status == 0) != expected.startswith("error:"), f"{command}\n{printed}"
        assert note or matches(expected, printed), f"{command}\nprinted\n{printed}"


def matches(expected: str, printed: str) -> bool:
    """Say whether a command printed what the page says; spaces and ends of lines do not count."""
    pattern = re.escape(" ".join(expected.split())).replace("…", ".*?")
    return re.fullmatch(pattern, " ".join(printed.split())) is not None


def check_python(text: str, names: dict[str, Any], where: str) -> None:
    """Run an example; what it shows after >>> is compared."""
    if ">>>" not in text:
        exec(compile(text, where, "exec"), names)
        return
    example = doctest.DocTestParser().get_doctest(text.replace("…", "..."), names, where, where, 0)
    report: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=flags).run(example, out=report.append, clear_globs=False)
    names.update(example.globs)
    assert not report, "".join(report)


def check_covered(place: str) -> None:
    """Check that the file or the test which a page names is there."""
    file, _, test = place.partition("::")
    assert (CHECKOUT / file).exists()
    assert not test or f"def {test}(" in (CHECKOUT / file).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[] if page.stem in WITHOUT_RECORDINGS else pytest.mark.recordings)
        for page in PAGES
    ],
)
def test_page_runs_as_printed(
    page: Path,
    tmp_path: Path,
    synthetic_bundle: Callable[..., Bundle],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Commands succeed and print what the page says, and examples in Python run."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if page.stem in WITHOUT_RECORDINGS:
        monkeypatch.setenv("ECG_SHOCK_DATA", str(folder / "nothing"))
    else:
        recordings = request.getfixturevalue("mirror" if page.stem == "tutorial" else "recordings_dir")
        monkeypatch.setenv("ECG_SHOCK_DATA", str(recordings))
    if page.stem in ("tutorial", "deployment"):  # in place of what `tune` finds, which takes longer than all the rest
        shutil.copytree(synthetic_bundle().folder, folder / "runs" / "quickstart" / "bundle")
    names: dict[str, Any] = {}
    for comment, kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        what, _, note = comment.partition(": ")
        if what == "file":
            (folder / note).write_text(text, encoding="utf-8")
        elif note.startswith("covered by "):
            check_covered(note.removeprefix("covered by "))
        elif kind == "python":
            check_python(text, names, page.name)
        elif kind == "console":
            check_console(text, note, folder)
        assert kind not in ("sh", "shell", "bash"), f"{page.name}: write commands as console, so that they run"


def test_difference_is_seen(tmp_path: Path) -> None:
    """A command that fails, one that prints something else, and an example that is wrong are found."""
    for text in ("$ false\n", "$ echo 12\n13\n", "$ echo 12\n…3\n", "$ ecg-shock predict nothing.csv\nUNUSABLE\n"):
        with pytest.raises(AssertionError):
            check_console(text, "", tmp_path)
    with pytest.raises(AssertionError, match="Got"):
        check_python(">>> 1 + 1\n3\n", {}, "here")
    check_console("$ echo 12 \\\n    13 14  # three\n12\n…\n14\n", "", tmp_path)
    check_python(">>> x = 1.25\n>>> x\n1.2…\n", {}, "here")
