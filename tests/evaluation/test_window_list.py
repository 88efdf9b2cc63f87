"""The windows to run an algorithm on, and its predictions matched with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ecg_shock
from ecg_shock.data.datasets import DataConfig, load_subsets, load_windows
from ecg_shock.data.splits import load_split
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.window_list import list_windows, read_window_list

SYNTHETIC = DataConfig(databases=("synthetic",))


@pytest.fixture
def listed() -> pd.DataFrame:
    """List the synthetic windows, with a perfect algorithm's advice."""
    table = list_windows(SYNTHETIC)
    table["shock"] = table["aha_class"].isin(["coarse_vf", "rapid_vt"]).astype(int)
    return table


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a table as CSV."""

    def write(table: pd.DataFrame, name: str = "mine.csv") -> Path:
        table.to_csv(tmp_path / name, index=False)
        return tmp_path / name

    return write


def test_list_is_what_networks_are_tested_on(listed: pd.DataFrame) -> None:
    """Every window of every fold is listed once, with its label, on the 8-ms grid, and its samples are its seconds."""
    tested = [load_subsets(SYNTHETIC.model_copy(update={"fold": k})).test for k in range(5)]
    expected = {
        (str(w.record[i]), float(w.start_s[i]), str(w.aha_class[i]), k)
        for k, w in enumerate(tested)
        for i in range(len(w))
    }
    found = set(zip(listed["record"], listed["start_s"], listed["aha_class"], listed["fold"], strict=True))
    assert found == expected
    assert len(listed) == len(expected) == len(load_windows(SYNTHETIC))
    assert set(listed["role"]) == {"test"}
    assert np.abs(listed["start_s"] * 125 - (listed["start_s"] * 125).round()).max() < 1e-9
    assert np.abs(listed["start_sample"] - listed["start_s"] * 250).max() < 1e-9
    assert set(zip(listed["samples"], listed["fs"], listed["duration_s"], strict=True)) == {(1250, 250.0, 5.0)}


def test_role_is_that_of_the_fold() -> None:
    """The roles are those of the split, and `fold` still is the fold that tests the patient."""
    table, folds = list_windows(SYNTHETIC, fold=3), load_split("synthetic-v1")
    for role in ("train", "validation", "test"):
        assert set(table.loc[table["role"] == role, "patient"]) == getattr(folds[3], role)
    assert set(table.loc[table["role"] == "test", "fold"]) == {3}
    assert set(table.loc[table["role"] == "validation", "fold"]) == {4}
    with pytest.raises(ValueError, match="fold=5, but 'synthetic-v1' has the folds 0 to 4"):
        list_windows(SYNTHETIC, fold=5)


def test_patients_of_no_split(own_manifest: Path) -> None:
    """Patients that no fold trains on are all test patients; beside those of a split they are refused."""
    own = DataConfig(databases=(str(own_manifest),))
    table = list_windows(own)
    assert set(zip(table["fold"], table["role"], strict=True)) == {(0, "test")}
    mixed = DataConfig(databases=(str(own_manifest), "synthetic"), split="synthetic-v1")
    for data, fold in ((own, 1), (mixed, None)):
        with pytest.raises(ValueError, match="does not list the patients"):
            list_windows(data, fold=fold)


@pytest.mark.recordings
def test_samples_are_those_of_the_strip(recordings_dir: Path) -> None:
    """At 360 Hz, where the grid is none of whole samples, `start_sample` is where `Recording.strip` begins."""
    table = list_windows(DataConfig(databases=("mitdb",)), recordings_dir)
    recording = ecg_shock.read_record(recordings_dir / "mitdb" / "207")
    rows = table[table["record"] == "207"]
    assert len(rows) > 100
    assert set(rows["fs"]) == {360.0}
    for row in rows.itertuples():
        strip = recording.strip(row.start_s, row.duration_s, row.lead)
        column = recording.leads.index(row.lead)
        given = recording.signal[row.start_sample : row.start_sample + row.samples, column]
        np.testing.assert_array_equal(strip.signal[:, 0], given)


def test_predictions_of_every_window(listed: pd.DataFrame, write: Callable[..., Path]) -> None:
    """The list with a column more is a file of predictions; labels and measurements come from the list."""
    path = write(listed)
    found = ecg_shock.validate(path, windows=write(listed.drop(columns="shock"), "list.csv"))
    assert found.coverage is not None
    assert (found.coverage.listed, found.coverage.evaluated, found.coverage.unknown) == (len(listed), len(listed), 0)
    assert found.coverage.missing == ()
    assert found.performances == ecg_shock.validate(path).performances
    assert {label.measured for label in found.performances[0].by_label} == {"rate_bpm", "amplitude_mv"}
    assert ecg_shock.validate(path).coverage is None


def test_only_the_correct_rows_have_no_verdict(listed: pd.DataFrame, write: Callable[..., Path]) -> None:
    """Where wrong windows are not given, the class has no verdict, and the missing ones are counted."""
    sinus = listed["aha_class"] == "normal_sinus"
    wrong = sinus & (np.arange(len(listed)) % 9 == 0)
    path, reference = write(listed[~wrong]), write(listed, "list.csv")
    assert verdicts(ecg_shock.validate(path))["normal_sinus"] == "meets"
    found = ecg_shock.validate(path, windows=reference)
    assert verdicts(found)["normal_sinus"] == "withheld"
    assert verdicts(found)["coarse_vf"] == verdicts(ecg_shock.validate(path))["coarse_vf"] != "withheld"
    assert found.coverage is not None
    assert [(row.aha_class, row.windows) for row in found.coverage.missing] == [("normal_sinus", wrong.sum())]
    without = ecg_shock.validate(write(listed[~sinus]), windows=reference)
    assert verdicts(without)["normal_sinus"] == "withheld"


def verdicts(validation: ecg_shock.Validation) -> dict[str, str]:
    """Return the verdict on each class."""
    return {row.aha_class: row.verdict for row in validation.performances[0].aha}


def test_other_classes_are_named(listed: pd.DataFrame, write: Callable[..., Path]) -> None:
    """Classes that were rewritten to fit, other patients, and windows that come twice are errors."""
    reference = write(listed, "list.csv")
    first = listed.index[listed["aha_class"] == "coarse_vf"][0]
    place = f"record '{listed['record'][first]}', lead 'II', {listed['start_s'][first]:g} s, 5 s: "
    rewritten = listed.assign(aha_class=listed["aha_class"].mask(listed.index == first, "fine_vf"))
    with pytest.raises(ValueError, match=f"{place}aha_class is 'fine_vf', but 'coarse_vf' in the list"):
        ecg_shock.validate(write(rewritten), windows=reference)
    renamed = listed.assign(patient="synthetic/p_" + listed["patient"])
    with pytest.raises(ValueError, match=rf"not as in list.csv, .*: {len(listed)} windows\n(.*\n)+  and"):
        ecg_shock.validate(write(renamed), windows=reference)
    nearly = listed.iloc[[first]].assign(start_s=listed["start_s"][first] + 1e-6)
    with pytest.raises(ValueError, match=f"{place}the window is given twice"):
        ecg_shock.validate(write(pd.concat([listed, nearly])), windows=reference)


def test_windows_that_are_not_listed_are_counted(listed: pd.DataFrame, write: Callable[..., Path]) -> None:
    """Shifted copies are unknown and change no figure; starts that were rounded to the sample are known."""
    reference = write(listed, "list.csv")
    shifted = [listed.assign(start_s=listed["start_s"] + 0.5 * k) for k in range(5)]
    found = ecg_shock.validate(write(pd.concat(shifted)), windows=reference)
    assert found.coverage is not None
    assert (found.coverage.evaluated, found.coverage.unknown) == (len(listed), 4 * len(listed))
    rounded = listed.assign(start_s=(listed["start_s"] + 0.002).round(4))
    exact = ecg_shock.validate(write(rounded), windows=reference)
    assert exact.performances == found.performances == ecg_shock.validate(write(listed)).performances
    with pytest.raises(ValueError, match=r"none of the \d+ windows is in list.csv.*The first is database 'other'"):
        ecg_shock.validate(write(listed.assign(database="other")), windows=reference)


def test_other_roles_are_not_evaluated(listed: pd.DataFrame, write: Callable[..., Path]) -> None:
    """A list with roles stands for its test windows; predictions of training windows are refused."""
    roles = list_windows(SYNTHETIC, fold=0)
    reference = write(roles, "list.csv")
    assert set(read_window_list(reference)["patient"]) == load_split("synthetic-v1")[0].test
    advised = roles.assign(shock=listed["shock"])
    with pytest.raises(
        ValueError, match=r"has 681 windows of other roles, such as 'validation' in line 60; only those of the"
    ):
        ecg_shock.validate(write(advised))
    found = ecg_shock.validate(write(advised[advised["role"] == "test"]), windows=reference)
    assert found.coverage is not None
    assert found.coverage.listed == found.coverage.evaluated == (roles["role"] == "test").sum()
    with pytest.raises(ValueError, match="line 2 and 852 more: role is 'both'; allowed: train, validation, test"):
        read_window_list(write(roles.assign(role="both"), "list.csv"))
    with pytest.raises(ValueError, match="has no windows of the role test"):
        read_window_list(write(roles[roles["role"] == "train"], "list.csv"))


def test_a_list_is_for_predictions(listed: pd.DataFrame, write: Callable[..., Path], tmp_path: Path) -> None:
    """Predictions that were made in Python are matched too; a model has its own windows."""
    path, reference = write(listed), write(listed, "list.csv")
    predictions = Predictions.read_csv(path)
    assert (
        ecg_shock.validate(predictions, windows=reference).coverage
        == ecg_shock.validate(path, windows=reference).coverage
    )
    with pytest.raises(ValueError, match="windows cannot be given for the folder of a model"):
        ecg_shock.validate(tmp_path, windows=reference)
