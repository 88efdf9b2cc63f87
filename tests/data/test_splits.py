"""The fixed splits keep patients apart, and name every patient once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecg_shock.data import splits
from ecg_shock.data.manifests import load_manifest
from ecg_shock.data.splits import Fold, load_split
from ecg_shock.data.synthetic import synthetic_recordings


@pytest.fixture
def split_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a split ``"mine"`` that a test writes."""
    (tmp_path / "splits").mkdir()
    monkeypatch.setattr(splits, "resource_dir", lambda name: tmp_path)
    return tmp_path / "splits" / "mine.toml"


def test_public_split_covers_the_patients_of_the_manifests_once() -> None:
    """The test subsets of public-v1 are all patients of vfdb, cudb and mitdb, each once; 201 and 202 are one."""
    manifests = [load_manifest(name) for name in ("vfdb", "cudb", "mitdb")]
    patients = {manifest.patient_of(record) for manifest in manifests for record in manifest.records}
    tested = [patient for fold in load_split("public-v1") for patient in fold.test]
    assert sorted(tested) == sorted(patients)
    assert len(tested) == 22 + 35 + 47
    assert "mitdb/201" in tested
    assert "mitdb/202" not in tested


def test_synthetic_split_covers_its_patients_once() -> None:
    """The test subsets of synthetic-v1 are the 60 synthetic patients."""
    patients = [recording.patient for recording in synthetic_recordings(60, 0, seconds_per_rhythm=5.0)]
    assert sorted(p for fold in load_split("synthetic-v1") for p in fold.test) == sorted(patients)


@pytest.mark.parametrize("name", ["public-v1", "synthetic-v1"])
def test_every_patient_is_in_one_subset_of_every_fold(name: str) -> None:
    """In each fold the three subsets are disjoint and contain every patient; each group is validation once."""
    folds = load_split(name)
    everyone = frozenset.union(*(fold.test for fold in folds))
    assert len(folds) == 5
    for k, fold in enumerate(folds):
        assert fold.train | fold.validation | fold.test == everyone
        assert len(fold.train) + len(fold.validation) + len(fold.test) == len(everyone)
        assert fold.validation == folds[(k + 1) % 5].test


@pytest.mark.parametrize("a", ["train", "validation", "test"])
@pytest.mark.parametrize("b", ["train", "validation", "test"])
def test_a_patient_in_two_subsets_is_refused(a: str, b: str) -> None:
    """A fold with a patient in two subsets cannot be made."""
    if a == b:
        return
    subsets = {"train": {"x/1"}, "validation": {"x/2"}, "test": {"x/3"}}
    subsets[b] |= subsets[a]
    with pytest.raises(ValueError, match=r"\['x/\d'\] are in (train|validation) and in (validation|test)"):
        Fold(**{name: frozenset(patients) for name, patients in subsets.items()})


def test_unknown_split_lists_the_known_ones() -> None:
    """An unknown name is an error that lists the known ones; a path is not a name."""
    with pytest.raises(
        ValueError, match=r"unknown split 'public-v2'; known are public-v1, public-v1-all, synthetic-v1"
    ):
        load_split("public-v2")
    with pytest.raises(ValueError, match="unknown split"):
        load_split("../splits/public-v1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('folds = [["a/1"], ["a/2"], ["a/1"]]', r"\['a/1'\] are listed twice"),
        ('folds = [["a/1", "a/1"], ["a/2"], ["a/3"]]', r"\['a/1'\] are listed twice"),
        ('folds = [["a/1"], ["a/2"]]', "3 or more lists of patients"),
        ('folds = [["a/1"], ["a/2"], []]', "3 or more lists of patients"),
        ('folds = [["a/1"], ["a/2"], [3]]', "3 or more lists of patients"),
        ('folds = ["a/1", "a/2", "a/3"]', "3 or more lists of patients"),
        ("groups = []", "folds=None is not allowed"),
        ("folds = [[", "not valid TOML"),
    ],
)
def test_broken_split_file_is_refused(split_file: Path, text: str, message: str) -> None:
    """A patient listed twice, too few or empty groups, and damage are errors that name the file."""
    split_file.write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        load_split("mine")
    assert str(split_file) in str(refusal.value)


def test_sound_split_file_is_read(split_file: Path) -> None:
    """Three groups give three folds, the next group validating."""
    split_file.write_text('folds = [["a/1"], ["a/2", "a/3"], ["a/4"]]')
    folds = load_split("mine")
    assert [sorted(fold.validation) for fold in folds] == [["a/2", "a/3"], ["a/4"], ["a/1"]]
    assert [sorted(fold.train) for fold in folds] == [["a/4"], ["a/1"], ["a/2", "a/3"]]


def test_all_patients_train_in_a_split_of_one_group() -> None:
    """public-v1-all has the patients of public-v1, and all of them train."""
    (fold,) = load_split("public-v1-all")
    assert fold.train == frozenset.union(*(one.test for one in load_split("public-v1")))
    assert not fold.validation | fold.test


def test_split_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    """A path that ends in .toml works wherever a name does, and a missing file is named."""
    path = tmp_path / "own.toml"
    path.write_text('folds = [["a/1"], ["a/2", "a/3"], ["a/4"]]')
    assert [sorted(fold.test) for fold in load_split(str(path))] == [["a/1"], ["a/2", "a/3"], ["a/4"]]
    with pytest.raises(FileNotFoundError, match="other"):
        load_split(str(tmp_path / "other.toml"))
