"""`ecg-shock validate --predictions` evaluates any algorithm as `ecg_shock.validate` does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import ecg_shock
from ecg_shock.commands.app import app
from ecg_shock.report.formats import rounded_down
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
            "MODEL, --databases, --folds, --corrections, --record, --quick and --data cannot be given with "
            "--predictions; remove them",
        ),
        (["--predictions", "FILE", "--corrections", "FILE"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--databases", "vfdb"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--folds", "1"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--record"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--quick"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FILE", "--data", "there"], "cannot be given with --predictions; remove them"),
        (["--predictions", "FOLDER"], "a folder; give a CSV file"),
        (["--threshold", "0.5"], "--threshold cannot be given for a model"),
        (["--windows", "FILE"], "--windows cannot be given for a model"),
        (["--against", "FILE"], "--against cannot be given for a model"),
        (["--predictions", "FILE", "--windows", "NOWHERE"], "No such file"),
        (["--predictions", "FILE", "--threshold", "0.5"], "has a column shock, so no threshold is allowed"),
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


def test_the_first_screen_says_why_there_is_no_verdict(tmp_path: Path) -> None:
    """38 of 50 windows, shifted five times by half a second: terminal and report say that they overlap."""
    path, out = tmp_path / "sliding.csv", tmp_path / "out"
    rows = [f"r,p,{10 * i + 0.5 * k},5,rapid_vt,{i < 38:d}" for i in range(50) for k in range(5)]
    path.write_text("\n".join(["record,patient,start_s,duration_s,aha_class,shock", *rows]), encoding="utf-8")
    done = run("--predictions", path, "--out", out)
    assert done.exit_code == 0, done.output
    why = "Rapid VT: 200 of its 250 windows begin before the previous one of the same record ends."
    assert why in " ".join(done.stdout.split())
    page = (out / "report.html").read_text(encoding="utf-8")
    assert why in page[: page.index("<table")]
    row = json.loads((out / "report.json").read_text(encoding="utf-8"))["performances"][0]["aha"][1]
    assert (row["verdict"], row["overlapping"]) == ("withheld", 200)


def test_the_first_screen_says_what_was_to_be_evaluated(path: Path, tmp_path: Path) -> None:
    """With a list, windows are counted by it; without one, terminal and report say that they cannot know."""
    listed, out = tmp_path / "list.csv", tmp_path / "out"
    lines = path.read_text(encoding="utf-8").splitlines()
    listed.write_text("\n".join(line.rsplit(",", 1)[0] for line in lines), encoding="utf-8")
    path.write_text("\n".join([*lines[:-100], "r0,p0,444,4,normal_sinus,,0"]), encoding="utf-8")
    for options, expected in (
        ([], "No list of windows was given (--windows), so this report cannot know whether windows are missing"),
        (["--windows", listed], "300 of 400 windows, 1 unknown, classes as in the reference (list.csv, SHA-256"),
    ):
        done = run("--predictions", path, *options, "--out", out)
        assert done.exit_code == 0, done.output
        assert expected in " ".join(done.stdout.split())
        page = (out / "report.html").read_text(encoding="utf-8")
        assert expected in page[: page.index("<table")]
    assert f"--windows {listed}" in page
    assert "Rapid VT: 50 of its 200 listed windows have no prediction." in page[: page.index("<table")]
    coverage = json.loads((out / "report.json").read_text(encoding="utf-8"))["coverage"]
    assert (coverage["listed"], coverage["evaluated"], coverage["unknown"]) == (400, 300, 1)
    assert coverage["missing"] == [
        {"duration_s": 4.0, "aha_class": aha_class, "windows": 50} for aha_class in ("normal_sinus", "rapid_vt")
    ]


def test_two_algorithms_are_compared(path: Path, tmp_path: Path) -> None:
    """The file may stand alone; another one on the same windows is compared by the paired tests, in every report."""
    other, out = tmp_path / "better.csv", tmp_path / "out"
    lines = path.read_text(encoding="utf-8").splitlines()
    better = [
        f"{line[:-1]}{int('rapid_vt' in line)}" if i % 7 else f"{line[:-1]}none" for i, line in enumerate(lines[1:])
    ]
    other.write_text("\n".join([lines[0], *better]), encoding="utf-8")
    done = run(path, "--against", other, "--out", out)
    assert done.exit_code == 0, done.output
    (comparison,) = ecg_shock.compare_predictions(
        ecg_shock.Predictions.read_csv(other), ecg_shock.Predictions.read_csv(path)
    )
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["comparisons"] == json.loads(json.dumps({"better.csv": [asdict(comparison)]}))
    right = [
        [line[-1] == str(int("rapid_vt" in line)) for line in file if "rapid_vt" in line] for file in (better, lines)
    ]
    se = comparison.differences[0]
    assert (se.only_first, se.only_second) == tuple(
        sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])
    )
    assert "This algorithm and better.csv, on the same windows" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    row = f"| 4 s    | Se      |     200 |  {rounded_down(se.first)} | {rounded_down(se.second)} |"
    assert row in (out / "report.md").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="baselines"' in page
    assert "No other algorithm was evaluated" not in page
    assert f"--against {other}" in page
    assert run("--predictions", path, "--out", tmp_path / "alone").exit_code == 0
    alone = json.loads((tmp_path / "alone" / "report.json").read_text(encoding="utf-8"))
    assert (alone["performances"], alone["comparisons"]) == (report["performances"], {})


def test_other_windows_are_not_compared(path: Path, tmp_path: Path) -> None:
    """The error says in which of the two files windows are missing."""
    other = tmp_path / "fewer.csv"
    other.write_text("\n".join(path.read_text(encoding="utf-8").splitlines()[:-3]), encoding="utf-8")
    done = run(path, "--against", other, "--out", tmp_path / "out")
    assert done.exit_code == 1
    expected = "fewer.csv (first) and other.csv (second) cannot be compared: the first predictions lack 3 windows"
    assert expected in done.stderr
    assert not (tmp_path / "out").exists()
