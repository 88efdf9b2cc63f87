"""`ecg-shock validate --predictions` evaluates any algorithm as `ecg_shock.validate` does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import ecg_shock
from ecg_shock.commands.app import app
from ecg_shock.report.tables import to_dict, to_markdown

HEADER = "record,patient,start_s,duration_s,aha_class,rate_bpm,shock"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write decisions on 40 patients: a tenth of VT is missed, and a twentieth of sinus rhythm shocked."""
    lines = [HEADER]
    for i in range(400):
        vt = i % 2 == 0
        shock = vt != (i % 20 in (0, 1) and (vt or i % 40 == 1))
        lines.append(
            f"r{i // 10},p{i // 10},{i % 10 * 4},4,{'rapid_vt,' + str(150 + i) if vt else 'normal_sinus,'},{shock:d}"
        )
    path = tmp_path / "other.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(*options: str | Path) -> Result:
    """Run the command on a terminal of 80 columns."""
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["validate", *map(str, options)])


def test_report_is_what_the_function_finds(path: Path, tmp_path: Path) -> None:
    """The JSON and Markdown that are written are those of `ecg_shock.validate`, and the terminal shows the verdicts."""
    out = tmp_path / "out"
    done = run("--predictions", path, "--out", out)
    assert done.exit_code == 0, done.output
    expected = ecg_shock.validate(path)
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == json.loads(json.dumps(to_dict(expected)))
    assert (out / "report.md").read_text(encoding="utf-8") == to_markdown(expected)
    assert sorted(file.name for file in out.iterdir()) == ["report.html", "report.json", "report.md"]
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    assert "180/200" in done.stdout
    assert "190/200" in done.stdout
    assert "≥ 200 bpm" in done.stdout
    assert "Evaluated: other.csv, SHA-256" in done.stdout


def test_threshold_reaches_the_predictions(path: Path, tmp_path: Path) -> None:
    """With probabilities alone the threshold is needed, and it decides."""
    text = path.read_text(encoding="utf-8").replace("shock", "probability").replace(",1\n", ",0.6\n")
    path.write_text(text, encoding="utf-8")
    needed = run("--predictions", path, "--out", tmp_path)
    assert needed.exit_code == 1
    assert "--threshold 0.5" in needed.stderr
    for threshold, tp in (("0.5", 180), ("0.7", 0)):
        done = run("--predictions", path, "--threshold", threshold, "--out", tmp_path)
        assert done.exit_code == 0, done.output
        report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert report["performances"][0]["tp"] == tp


def test_every_faulty_line_is_printed(path: Path, tmp_path: Path) -> None:
    """All faulty lines are named on standard error, nothing is written, and there is no traceback."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].replace("rapid_vt", "[red]vt[/red]")
    lines[8] += ",1"
    path.write_text("\n".join(lines), encoding="utf-8")
    done = run("--predictions", path, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout == ""
    title, first, second = done.stderr.splitlines()
    assert title == f"error: {path}, 2 lines are not allowed:"
    assert first.startswith("  line 4: aha_class is '[red]vt[/red]'; allowed: coarse_vf, rapid_vt")
    assert second == "  line 9: there are 8 values, but the header names 7 columns; give one value for each column"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["MODEL", "--predictions", "FILE"],
            "MODEL, --databases, --record, --quick and --data cannot be given with --predictions; remove them",
        ),
        (["--predictions", "FILE", "--databases", "vfdb"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--record"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--quick"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--data", "there"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FOLDER"], "a folder; give a CSV file"),
        (["--threshold", "0.5"], "--threshold cannot be given for a model"),
        (["--predictions", "FILE", "--threshold", "0.5"], "has a column shock, so no threshold is allowed"),
        (["--predictions", "FILE", "--threshold", "50"], "threshold is 50.0; allowed is a probability"),
        (["--predictions", "NOWHERE"], "No such file"),
    ],
)
def test_options_that_do_not_fit(path: Path, tmp_path: Path, options: list[str], message: str) -> None:
    """Each is one line that says what to remove."""
    places = {"MODEL": tmp_path, "FILE": path, "FOLDER": tmp_path, "NOWHERE": tmp_path / "nowhere.csv"}
    done = run(*(places.get(option, option) for option in options))
    assert done.exit_code == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
