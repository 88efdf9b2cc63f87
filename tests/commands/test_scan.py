"""`ecg-shock scan` prints and writes what `ecg_shock.scan` finds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from typer.testing import CliRunner, Result

from ecg_shock import AlarmRule, Scan, scan
from ecg_shock.commands.app import app
from ecg_shock.data.synthetic import synthetic_recordings


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a synthetic recording with every rhythm as a WFDB record of two leads."""
    signal = next(synthetic_recordings(1)).signal.astype(float)
    folder = tmp_path_factory.mktemp("record")
    wfdb.wrsamp(
        "made", fs=250, units=["mV", "mV"], sig_name=["II", "V5"], p_signal=np.hstack([signal, -signal[::-1]]),
        fmt=["16"] * 2, adc_gain=[1000.0] * 2, baseline=[0, 0], write_dir=str(folder),
    )  # fmt: skip
    return folder / "made"


def run(*arguments: str | Path | float) -> Result:
    """Run the command."""
    return CliRunner(env={"COLUMNS": "100"}).invoke(app, ["scan", *map(str, arguments)])


def test_table_and_files(record: Path, tmp_path: Path) -> None:
    """Every episode is on the terminal, and the four files are there."""
    result = run(record, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    expected = scan(record)
    assert expected.episodes
    for episode in expected.episodes:
        assert f"{episode.end_s - episode.onset_s:.1f}" in result.output
    assert f"in {len(expected.start_s)} windows of 5 s" in result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "made.csv",
        "made.json",
        "made.png",
        "made.shk",
    ]


def test_options_reach_the_scan(record: Path, tmp_path: Path) -> None:
    """Lead, window, step and alarm."""
    options = ("--lead", "V5", "--window", 3, "--step", 0.4, "--alarm", "4/6", "--json", "--out", tmp_path / "out")
    found = json.loads(run(record, *options).stdout)
    expected: Scan = scan(record, lead="V5", window_s=3.0, step_s=0.4, alarm=AlarmRule(4, 6))
    assert (found["lead"], found["windows"]) == ("V5", len(expected.start_s))
    assert [e["alarm_s"] for e in found["episodes"]] == [e.alarm_s for e in expected.episodes]
    assert expected.episodes
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("seconds_of_vf", "says"),
    [
        (0, "no episode of shockable rhythm: no window could be classified"),
        (5, "no episode of shockable rhythm, but 1 window advises a shock, too few for an alarm"),
        (7, "no episode of shockable rhythm, but 3 windows advise a shock, too few for an alarm"),
    ],
)
def test_nothing_found_is_no_all_clear(tmp_path: Path, seconds_of_vf: int, says: str) -> None:
    """VF too short for an alarm, and unusable windows, are reported."""
    recording = next(synthetic_recordings(1))
    vf = next(episode for episode in recording.episodes if episode.code == "coarse_vf")
    signal = recording.strip(vf.start_s, seconds_of_vf).signal[:, 0] if seconds_of_vf else np.zeros(5000)
    np.save(tmp_path / "some.npy", signal)
    result = run(tmp_path / "some.npy", "--fs", 250, "--units", "mV", "--out", tmp_path)
    assert says in result.output.splitlines()


def test_nothing_found(tmp_path: Path) -> None:
    """A recording in which no window advises a shock says so, and a file without a rate asks for it."""
    path = tmp_path / "sinus.npy"
    np.save(path, list(synthetic_recordings(4))[3].signal[:2500, 0])
    result = run(path, "--fs", 250, "--units", "mV", "--out", tmp_path)
    assert "no episode of shockable rhythm" in result.output.splitlines()
    refused = run(path)
    assert refused.exit_code == 1
    assert "--fs" in refused.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--alarm", "5/3"), "alarm rule is 5 of 3"),
        (("--alarm", "three"), "give K/N"),
        (("--step", "0"), "step_s"),
        (("--window", "11"), "window_s"),
        (("--lead", "aVR"), "choose from"),
        (("--model", "nowhere"), "is not a bundle"),
    ],
)
def test_errors_are_one_line(record: Path, options: tuple[str, ...], says: str) -> None:
    """They say what is allowed."""
    result = run(record, *options)
    assert result.exit_code == 1
    assert says in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    """The table of windows is called after the record, as a CSV that was scanned is."""
    path = tmp_path / "bed3.csv"
    path.write_text("II\n" + "0.1\n0.3\n" * 1000, encoding="utf-8")
    before = path.read_bytes()
    options = (path, "--fs", 250, "--units", "mV")
    (tmp_path / "x").mkdir()
    refused = run(*options, "--out", tmp_path / "x" / "..")
    assert refused.exit_code == 1
    assert "give another folder with --out" in refused.output
    assert path.read_bytes() == before
    assert run(*options, "--json", "--out", tmp_path).exit_code == 0
    assert run(*options, "--out", tmp_path / "x").exit_code == 0


def test_results_of_another_recording_are_never_written_over(tmp_path: Path) -> None:
    """Of two patients' files of one name the second is refused; the same one again replaces its own results."""
    ecg = np.sin(np.arange(2500) / 8)
    for folder in ("p1", "p2"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "ecg.npy", ecg if folder == "p1" else -ecg)
    options = ("--fs", 250, "--units", "mV", "--out", tmp_path / "out")
    assert run(tmp_path / "p1" / "ecg.npy", *options).exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert json.loads(before["ecg.json"])["source"] == str((tmp_path / "p1" / "ecg.npy").resolve())
    refused = run(tmp_path / "p2" / "ecg.npy", *options)
    assert refused.exit_code == 1
    assert "give another folder with --out" in refused.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    again = run(tmp_path / "p1" / "ecg.npy", *options, "--step", 2)
    assert again.exit_code == 0
    assert json.loads((tmp_path / "out" / "ecg.json").read_text())["step_s"] == 2
    (tmp_path / "out" / "ecg.json").unlink()
    assert "of unknown origin" in run(tmp_path / "p1" / "ecg.npy", *options).output


def test_out_that_is_a_file_is_refused_at_once(record: Path, tmp_path: Path) -> None:
    """Errors come before the scan."""
    file = tmp_path / "file"
    file.write_text("mine")
    result = run(record, "--out", file)
    assert result.exit_code == 1
    assert "a file; give a folder" in result.output
    assert file.read_text() == "mine"


def test_no_tensorflow(record: Path) -> None:
    """Neither scan nor Stream loads it; and a stream loads nothing more when samples come."""
    code = (
        "import sys, numpy as np, ecg_shock\n"
        f"ecg_shock.scan({str(record)!r})\n"
        "stream, loaded = ecg_shock.Stream(250.0), set(sys.modules)\n"
        "stream.push(np.zeros(1500))\n"
        "assert not {name for name in set(sys.modules) - loaded if not name.startswith('numpy')}\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
