"""The command writes a page; what its reader saves changes the windows, the training and the evaluation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner, Result

from ecg_shock.commands.app import app
from ecg_shock.data.datasets import DataConfig, labelled_recordings
from ecg_shock.data.recordings import Recording
from ecg_shock.data.splits import load_split
from ecg_shock.models.bundle import Bundle, load_bundle


def run(*arguments: object, fails: bool = False) -> Result:
    """Run the program in 80 columns; it must fail if `fails`."""
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(one) for one in arguments])
    assert (done.exit_code != 0) == fails, done.output
    return done


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    """Simulate the recordings once."""
    return list(labelled_recordings("synthetic"))


def correction(recording: Recording) -> dict[str, Any]:
    """Call 10 s of sinus rhythm coarse VF."""
    episode = next(one for one in recording.episodes if one.rhythm == "normal_sinus" and one.end_s - one.start_s > 12)
    return {
        "record": f"synthetic/{recording.name}", "start_s": episode.start_s + 1, "end_s": episode.start_s + 11,
        "old": "normal_sinus", "new": "coarse_vf", "reader": "A. Reader", "reason": "[bold]VF[/bold]",
    }  # fmt: skip


def test_page_is_written(recordings: list[Recording], tmp_path: Path) -> None:
    """The page has the windows that the terminal counts; what was answered is not asked again."""
    names = [f"synthetic/{recording.name}" for recording in recordings[:3]]
    out = tmp_path / "new" / "queue.html"
    done = run("adjudicate", *names, "--out", out, "--min-score", 0.2, "--per-patient", 3)
    assert max(map(len, done.output.splitlines()[:-1])) <= 80
    data = re.search(r'id="data">(.*?)</script>', out.read_text(encoding="utf-8"))
    assert data is not None
    strips = json.loads(data[1])
    assert f"written: {out}, {len(strips)} windows" in done.output
    assert strips
    assert {strip["record"] for strip in strips} <= set(names)
    assert "trained or selected" not in done.output

    answers = [
        {key: strip[key] for key in ("record", "old")}
        | {"start_s": strip["start"], "end_s": strip["end"], "new": "cannot_say", "reader": "A"}
        for strip in strips
    ]
    file = tmp_path / "corrections.toml"
    file.write_text(tomli_w.dumps({"format": 1, "unchanged": answers}), encoding="utf-8")
    run("adjudicate", *names, "--out", out, "--min-score", 0.2, "--per-patient", 3, "--answered", file)
    again = re.search(r'id="data">(.*?)</script>', out.read_text(encoding="utf-8"))
    assert again is not None
    read = {(strip["record"], strip["start"]) for strip in strips}
    assert not read & {(strip["record"], strip["start"]) for strip in json.loads(again[1])}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synthetic/nobody"], "synthetic has no record 'nobody'; it has"),
        (["nothing"], "unknown database 'nothing'; known are"),
        (["synthetic", "--out", "page.txt"], "--out is 'page.txt'; give a file that ends in .html"),
        (["synthetic", "--gap", "-1"], "gap_s is -1.0; give a number of seconds"),
        (["synthetic", "--models", "nowhere"], "nowhere holds no bundle"),
        (["synthetic", "--answered", "nowhere.toml"], "there is no file of corrections nowhere.toml"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what came and what is allowed, and no page is written."""
    monkeypatch.chdir(tmp_path)
    assert message in run("adjudicate", *arguments, fails=True).output
    assert list(tmp_path.iterdir()) == []


def test_validate_shows_results_with_and_without_corrections(
    recordings: list[Recording], synthetic_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    """The report has both results, the windows that moved, and the corrected seconds by patient and label."""
    bundle = synthetic_bundle(0)
    tested = load_split("synthetic-v1")[0].test
    one = next(recording for recording in recordings if recording.patient in tested)
    file = tmp_path / "corrections.toml"
    file.write_text(tomli_w.dumps({"format": 1, "corrections": [correction(one)]}), encoding="utf-8")
    done = run("validate", bundle.folder, "--quick", "--corrections", file, "--out", tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    document = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert document["default_labels"]["corrected"] == [
        {"patient": one.patient, "old": "normal_sinus", "new": "coarse_vf", "seconds": 10.0}
    ]
    moved = [row for row in document["default_labels"]["set_apart"] if row["duration_s"] == 5.0]
    assert {row["patient"] for row in moved} == {one.patient}
    assert {row["aha_class"] for row in moved} <= {"coarse_vf", "excluded"}
    by_class = [
        next(at for at in result["performances"] if at["duration_s"] == 5.0)["aha"][0]["rate"]["windows"]
        for result in (document, document["default_labels"])
    ]
    assert by_class[0] == by_class[1] + 2
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "Seconds corrected by a reader" in text
    assert "Seconds corrected by a reader" in page
    assert "A human reader corrected some labels." in " ".join(done.output.split())
    windows = run("windows", "synthetic", "--corrections", file).output
    assert re.search(rf"{one.patient} +normal sinus +coarse vf +10\.0", windows)

    file.write_text(tomli_w.dumps({"format": 1, "corrections": [{**correction(one), "old": "vt"}]}), encoding="utf-8")
    for command in (("validate", bundle.folder, "--quick", "--out", tmp_path / "other"), ("windows", "synthetic")):
        output = run(*command, "--corrections", file, fails=True).output
        assert "line 3: old is 'vt', but from" in output
    file.write_text(tomli_w.dumps({"format": 1, "corrections": [{**correction(one), "record": "vfdb/424"}]}))
    output = run("validate", bundle.folder, "--quick", "--corrections", file, fails=True).output
    assert "record is 'vfdb/424', which is not in synthetic" in output


@pytest.mark.slow
def test_card_names_the_corrections(recordings: list[Recording], tmp_path: Path) -> None:
    """It has the file, its digest and the corrected seconds; if the file changes, the model cannot be evaluated."""
    fold = load_split("synthetic-v1")[0]
    of_train, of_test = (
        next(recording for recording in recordings if recording.patient in subset) for subset in (fold.train, fold.test)
    )
    file = tmp_path / "corrections.toml"
    rows = [correction(of_train), correction(of_test)]
    file.write_text(tomli_w.dumps({"format": 1, "corrections": rows}), encoding="utf-8")
    run(
        "train", "--databases", "synthetic", "--filters", "2", "--kernels", "5", "--epochs", 1, "--out",
        tmp_path / "runs", "--corrections", file,
    )  # fmt: skip
    bundle = load_bundle(tmp_path / "runs" / "fold-0" / "bundle")
    assert bundle.card.corrected_s == {f"{of_train.patient}: normal_sinus to coarse_vf": 10.0}
    assert f"{of_train.patient}: normal_sinus to coarse_vf: 10.0" in (bundle.folder / "CARD.md").read_text()
    assert bundle.raw_card["data"]["labels"]["corrections"] == "../../../corrections.toml"
    assert bundle.card.data.labels.corrections_sha256
    run("validate", bundle.folder, "--quick", "--out", tmp_path / "out")
    document = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [row["patient"] for row in document["default_labels"]["corrected"]] == [of_test.patient]
    file.write_text(file.read_text() + "\n", encoding="utf-8")
    output = run("validate", bundle.folder, "--quick", "--out", tmp_path / "out", fails=True).output
    assert "the corrections have changed since the training" in output
    assert DataConfig(databases=("synthetic",)).labels.corrections is None
