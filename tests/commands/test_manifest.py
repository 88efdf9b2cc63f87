"""`ecg-shock manifest` and `ecg-shock split` write files for people to complete, and never replace them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ecg_shock.commands.app import app
from ecg_shock.data.splits import load_split

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def run(*arguments: str | Path) -> tuple[int, str]:
    """Run a command, and return its exit status and what it printed, in one line."""
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, " ".join(done.output.split())


def test_manifest_says_what_is_left_to_do(own_manifest: Path, tmp_path: Path) -> None:
    """Records without a label, and labels without a record, are counted; a file that exists is not replaced."""
    (tmp_path / "labels.csv").write_text("r1,(N\nr2,my rhythm\nelsewhere,(N\n")
    out = tmp_path / "new.toml"
    arguments = ("manifest", tmp_path / "data" / "mine", "--labels", tmp_path / "labels.csv", "--out", out)
    status, printed = run(*arguments)
    assert status == 0, printed
    for part in ("12 records, 2 labelled in", "10 without a label", "also has 1 labels of records that are not in"):
        assert part in printed
    assert "(N 1 normal_sinus my rhythm 1 ?" in printed
    assert "in [record_labels], write the code of each record" in printed
    text = out.read_text()
    assert tomllib.loads(text)["record_labels"]["r2"] == "my rhythm"
    status, printed = run(*arguments)
    assert (status, out.read_text()) == (1, text)
    assert "exists, and may have been completed by hand; remove it, or give another --out" in printed
    status, printed = run("manifest", tmp_path / "data" / "mine", "--out", tmp_path / "new.json")
    assert status == 1
    assert "give a file that ends in .toml" in printed


def test_split_lists_every_patient_and_warns(own_manifest: Path, tmp_path: Path) -> None:
    """Patients of all records are dealt, also of other names; groups that cannot validate are named."""
    out = tmp_path / "split.toml"
    status, printed = run("split", own_manifest, "--folds", 3, "--out", out)
    assert status == 0, printed
    folds = load_split(str(out))
    everyone = {"else/where", *(f"mine/r{number}" for number in range(12) if number not in (2, 5))}
    assert {patient for fold in folds for patient in fold.test} == everyone
    assert max(len(fold.test) for fold in folds) - min(len(fold.test) for fold in folds) <= 1
    # Only r3 has VT, so that two of three groups have no shockable windows.
    assert printed.count("has no patient with shockable windows, so a model cannot be chosen or tested on it") == 2
    status, printed = run("split", own_manifest, "--out", out)
    assert status == 1
    assert "results can be compared only on the same split; remove the file" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folds", "12"], "there are 11 patients for 12 groups; ask for fewer folds, at least 3"),
        (["--folds", "2"], "greater than or equal to 3"),
        (["--out", "split.json"], "give a file that ends in .toml"),
    ],
)
def test_split_that_cannot_be_made(
    own_manifest: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    """The error says what is allowed, and nothing is written."""
    monkeypatch.chdir(own_manifest.parent)
    status, printed = run("split", own_manifest, *arguments)
    assert status != 0
    assert message in printed
    assert not list(own_manifest.parent.glob("split.*"))
