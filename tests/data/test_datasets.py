"""The subsets of a run share no patient, hold the right windows, and come from the cache only if nothing changed."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from pydantic import ValidationError

from ecg_shock.data import datasets, fetch
from ecg_shock.data.datasets import (
    DataConfig,
    Subsets,
    extra_patients,
    guard_s,
    load_subsets,
    load_test,
    load_windows,
    shockable,
    training_recordings,
    training_weights,
)
from ecg_shock.data.splits import count_patients, load_split, propose_groups
from ecg_shock.data.windows import ARRAY_FIELDS, LabelPolicy, WindowSet
from ecg_shock.preprocessing import Preprocessing

SYNTHETIC = DataConfig(databases=("synthetic",), split="synthetic-v1")
NEEDED = ("coarse_vf", "rapid_vt", "normal_sinus", "other_nonshockable")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache, for few synthetic patients."""
    monkeypatch.setenv("ECG_SHOCK_CACHE", str(tmp_path))
    monkeypatch.setattr(datasets, "SYNTHETIC_PATIENTS", 4)
    return tmp_path / "windows"


@pytest.fixture(scope="module")
def public(recordings_dir: Path) -> tuple[Subsets, ...]:
    """Return the subsets of every fold of the public split."""
    return tuple(load_subsets(DataConfig(fold=fold), recordings_dir) for fold in range(5))


def assert_equal(a: WindowSet, b: WindowSet) -> None:
    """Check that two window sets are equal."""
    for name in ARRAY_FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype.kind == getattr(b, name).dtype.kind
    assert (a.window_s, a.excluded) == (b.window_s, b.excluded)


@pytest.mark.recordings
def test_public_folds_hold_every_class_they_need(public: tuple[Subsets, ...]) -> None:
    """Every fold tests and validates on coarse VF, rapid VT, sinus and other; asystole on as many as have it."""
    for subset in [p for fold in public for p in (fold.train, fold.validation, fold.test)]:
        assert set(NEEDED) <= set(subset.aha_class)
    patients = {p for fold in public for p in fold.test.patient[fold.test.aha_class == "asystole"]}
    assert sum("asystole" in fold.test.aha_class for fold in public) == min(5, len(patients))


@pytest.mark.recordings
def test_public_subsets_keep_to_their_patients(public: tuple[Subsets, ...]) -> None:
    """Each subset has patients of its own group only; 202 goes with 201; every window is tested exactly once."""
    tested: Counter = Counter()
    for fold, split in zip(public, load_split("public-v1"), strict=True):
        assert set(fold.train.patient) <= split.train
        assert set(fold.validation.patient) <= split.validation
        assert set(fold.test.patient) <= split.test
        tested.update(zip(fold.test.record.tolist(), fold.test.start_s.tolist(), strict=True))
        both = [{"201", "202"} & set(subset.record[subset.database == "mitdb"]) for subset in (fold.train, fold.test)]
        assert all(records in (set(), {"201", "202"}) for records in both)
    assert set(tested.values()) == {1}


@pytest.mark.recordings
def test_public_subsets_hold_what_they_may(public: tuple[Subsets, ...]) -> None:
    """Test subsets have intermediate classes and first leads only; training at most 60 windows a patient and class."""
    for fold in public:
        for subset in (fold.train, fold.validation):
            assert not {"fine_vf", "other_vt"} & set(subset.aha_class)
        for subset in (fold.validation, fold.test):
            leads = {(d, r, lead) for d, r, lead in zip(subset.database, subset.record, subset.lead, strict=True)}
            assert len(leads) == len({(d, r) for d, r, _ in leads})
        assert max(Counter(zip(fold.train.patient, fold.train.aha_class, strict=True)).values()) == 60
        assert len({lead for r, lead in zip(fold.train.record, fold.train.lead, strict=True) if r == "100"}) in (0, 2)
    assert any({"fine_vf", "other_vt"} <= set(fold.test.aha_class) for fold in public)


@pytest.mark.recordings
def test_public_split_is_the_one_proposed(recordings_dir: Path) -> None:
    """The split file is the result of `propose_groups` for the 5-s windows of clear classes with seed 0."""
    windows = load_windows(DataConfig(), recordings_dir)
    everyone = {patient for fold in load_split("public-v1") for patient in fold.test}
    assert propose_groups(count_patients(windows, everyone), 5, seed=0) == [
        sorted(fold.test) for fold in load_split("public-v1")
    ]


@pytest.mark.recordings
def test_reading_again_equals_the_first_time(
    public: tuple[Subsets, ...], recordings_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows from the cache equal those that were written, and no recording is cut again."""
    monkeypatch.setattr(datasets, "cut_windows", None)
    again = load_subsets(DataConfig(fold=2), recordings_dir)
    assert_equal(load_test(DataConfig(fold=2), recordings_dir), public[2].test)
    for name in ("train", "validation", "test"):
        assert_equal(getattr(again, name), getattr(public[2], name))


def test_synthetic_subsets() -> None:
    """The synthetic default has all clear classes in all subsets."""
    for fold in (0, 4):
        loaded = load_subsets(SYNTHETIC.model_copy(update={"fold": fold}))
        for subset in (loaded.train, loaded.validation, loaded.test):
            assert {*NEEDED, "asystole"} <= set(subset.aha_class)
            assert (shockable(subset) == np.isin(subset.aha_class, ["coarse_vf", "rapid_vt"])).all()


def test_thinning_out_is_even_and_can_be_left() -> None:
    """The cap keeps the first and the last window of a patient's class, and None keeps all."""
    everything = load_subsets(SYNTHETIC.model_copy(update={"max_windows": None})).train
    few = load_subsets(SYNTHETIC.model_copy(update={"max_windows": 3})).train
    for patient in np.unique(everything.patient)[:10]:
        for aha_class in np.unique(everything.aha_class):
            all_of = everything.select((everything.patient == patient) & (everything.aha_class == aha_class))
            kept = few.select((few.patient == patient) & (few.aha_class == aha_class))
            assert len(kept) == min(3, len(all_of))
            if len(all_of):
                assert (kept.start_s[0], kept.start_s[-1]) == (all_of.start_s[0], all_of.start_s[-1])


@pytest.mark.recordings
def test_supplement_goes_to_training_alone(public: tuple[Subsets, ...], recordings_dir: Path) -> None:
    """Synthetic asystole is added to the training subset, and no other subset changes."""
    loaded = load_subsets(DataConfig(supplement=("asystole",)), recordings_dir)
    added = loaded.train.select(loaded.train.database == "synthetic")
    assert set(added.aha_class) == {"asystole"}
    assert_equal(loaded.train.select(loaded.train.database != "synthetic"), public[0].train)
    assert_equal(loaded.validation, public[0].validation)
    assert_equal(loaded.test, public[0].test)


def in_check(patient: str) -> bool:
    """Say whether a patient of an extra database checks other hospitals."""
    return int.from_bytes(hashlib.sha256(patient.encode()).digest(), "big") % 5 == 0


def test_recordings_of_ones_own_train_and_check(own_manifest: Path) -> None:
    """The path of a manifest works for a database of one's own split, and for an extra one, which is never tested."""
    plain = load_subsets(SYNTHETIC)
    data = SYNTHETIC.model_copy(update={"extra": (str(own_manifest),)})
    loaded = load_subsets(data)
    own = loaded.train.select(loaded.train.database == "mine")
    everyone = {"else/where", *(f"mine/r{number}" for number in range(12) if number not in (2, 5))}
    check = {patient for patient in everyone if in_check(patient)}
    assert check
    assert check != everyone
    assert set(own.patient) == everyone - check
    assert {"rapid_vt", "normal_sinus"} == set(own.aha_class)
    assert set(loaded.other_hospitals.patient) == check - {"mine/r3"}
    assert set(loaded.other_hospitals.aha_class) == {"normal_sinus"}
    assert_equal(loaded.train.select(loaded.train.database != "mine"), plain.train)
    assert_equal(loaded.validation, plain.validation)
    assert_equal(loaded.test, plain.test)
    assert plain.other_hospitals is None
    (known,) = extra_patients(data).values()
    assert (known.version, known.train, known.check) == ("7", everyone - check, check)

    yielded = [(recording.database, recording.patient) for recording in training_recordings(data)]
    assert {patient for database, patient in yielded if database == "mine"} == everyone - check
    assert {patient for database, patient in yielded if database != "mine"} == load_split("synthetic-v1")[0].train
    assert guard_s(data) == {"synthetic": 0.5, "mine": 0.0}

    split = own_manifest.with_name("split.toml")
    names = sorted(everyone)
    split.write_text(f"folds = {[names[:3], names[3:6], names[6:]]}".replace("'", '"'))
    as_database = load_subsets(DataConfig(databases=(str(own_manifest),), split=str(split)))
    assert set(as_database.test.patient) == set(names[:3])


def test_extra_windows_have_their_share_of_the_weight(own_manifest: Path) -> None:
    """Extra windows get 30 % of the nonshockable weight, however many they are; the weight of a class does not rise."""
    data = SYNTHETIC.model_copy(update={"extra": (str(own_manifest),), "extra_weight": 0.3})
    train = load_subsets(data).train
    weights = training_weights(train, data)
    calm = ~shockable(train)
    assert weights[calm & (train.database == "mine")].sum() == pytest.approx(0.3 * calm.sum())
    assert weights[calm].sum() == pytest.approx(calm.sum())
    assert set(weights[~calm]) == {1.0}
    assert set(training_weights(load_subsets(SYNTHETIC).train, SYNTHETIC)) == {1.0}


def test_patients_of_the_split_cannot_be_extra(own_manifest: Path) -> None:
    """A patient of the split cannot train as an extra one, not even under the name of another database."""
    for name, patient in (("vfdb", "vfdb/418"), ("nstdb", "mitdb/118")):
        with pytest.raises(
            ValueError, match=rf"extra has '{name}', but its patients .*'{patient}'.* are already in split 'public-v1'"
        ):
            extra_patients(DataConfig(extra=(name,)))
    again = own_manifest.with_name("again.toml")
    again.write_text(own_manifest.read_text().replace('name = "mine"', 'name = "again"'))
    with pytest.raises(ValueError, match=r"its patients \['else/where'\]"):
        extra_patients(SYNTHETIC.model_copy(update={"extra": (str(own_manifest), str(again))}))


def test_one_file_of_two_patients_is_refused(own_manifest: Path, copied_database: Callable[..., Path]) -> None:
    """A copy of a tested patient's file cannot train under another name, unless the manifest says whose it is."""
    split = own_manifest.with_name("split.toml")
    names = sorted({"else/where", *(f"mine/r{number}" for number in range(12) if number not in (2, 5))})
    split.write_text(tomli_w.dumps({"folds": [names[:3], names[3:6], names[6:]]}))
    copy = copied_database("theirs", (4, 7))
    data = DataConfig(databases=(str(own_manifest),), split=str(split), extra=(str(copy),))
    with pytest.raises(ValueError, match=r"x4\.dat is the same file as a file of patient mine/r4, .*x4 = \"mine/r4\""):
        load_subsets(data)
    copy.write_text(copy.read_text().replace("[patients]", '[patients]\nx4 = "mine/r4"\nx7 = "mine/r7"'))
    with pytest.raises(ValueError, match="are already in split"):
        load_subsets(data)


@pytest.mark.recordings
def test_extra_databases_change_no_tested_patient(public: tuple[Subsets, ...], recordings_dir: Path) -> None:
    """Four fifths of the patients of ludb train, with all leads; the others check, with the first lead."""
    loaded = load_subsets(DataConfig(extra=("ludb", "aami-ec13")), recordings_dir)
    of_ludb = loaded.train.select(loaded.train.database == "ludb")
    check = {f"ludb/{number}" for number in range(1, 201) if in_check(f"ludb/{number}")}
    assert set(of_ludb.patient) == {f"ludb/{number}" for number in range(1, 201)} - check
    assert len(set(of_ludb.lead)) == 12
    assert set(loaded.other_hospitals.patient) == check
    assert set(loaded.other_hospitals.lead) == {"i"}
    assert 30 <= len(check) <= 50
    added = np.isin(loaded.train.database, ["ludb", "aami-ec13"])
    assert_equal(loaded.train.select(~added), public[0].train)
    assert_equal(loaded.validation, public[0].validation)
    assert_equal(loaded.test, public[0].test)


def test_cache_key_covers_what_makes_the_windows(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another policy, filter, length or generator makes new windows; another split, fold or maximum does not."""
    load_windows(SYNTHETIC)
    for same in ({}, {"split": "public-v1"}, {"fold": 3}, {"max_windows": 5}):
        load_windows(SYNTHETIC.model_copy(update=same))
        assert len(list(empty_cache.iterdir())) == 1
    changes = (
        {"window_s": 4.0},
        {"preprocessing": Preprocessing(high_hz=35.0)},
        {"preprocessing": Preprocessing(mains_hz=50.0)},
        {"labels": LabelPolicy(rapid_vt_bpm=180.0)},
        {"labels": LabelPolicy(asystole_mv=0.15)},
    )
    for count, change in enumerate(changes, start=2):
        load_windows(SYNTHETIC.model_copy(update=change))
        assert len(list(empty_cache.iterdir())) == count
    load_windows(SYNTHETIC, leads="all")
    monkeypatch.setattr(datasets, "SYNTHETIC_SEED", 1)
    load_windows(SYNTHETIC)
    assert len(list(empty_cache.iterdir())) == len(changes) + 3
    monkeypatch.setattr(datasets, "SOURCES", (*datasets.SOURCES, "quiet.py"))
    datasets._sources_digest.cache_clear()
    load_windows(SYNTHETIC)
    datasets._sources_digest.cache_clear()
    assert len(list(empty_cache.iterdir())) == len(changes) + 4


def test_cache_key_covers_the_manifest(own_manifest: Path, empty_cache: Path) -> None:
    """A manifest that reads a code as another rhythm makes new windows."""
    for text in (own_manifest.read_text(), own_manifest.read_text().replace('"(VT" = "vt"', '"(VT" = "svt"')):
        own_manifest.write_text(text)
        load_windows(DataConfig(databases=(str(own_manifest),)))
    assert len(list(empty_cache.glob("mine-5s-first-*.npz"))) == 2


def test_changed_recordings_are_seen_behind_the_cache(own_manifest: Path, empty_cache: Path) -> None:
    """A file of the same size but other content, and a missing folder, are errors even if the windows are cached."""
    data = DataConfig(databases=(str(own_manifest),))
    folder = own_manifest.parent / "data"
    first = load_windows(data)
    changed = folder / "mine" / "r4.dat"
    content = changed.read_bytes()
    changed.write_bytes(content[::-1])
    with pytest.raises(ValueError, match=r"differs from its manifest in 1 files; the first is r4\.dat: wrong digest"):
        load_windows(data)
    changed.write_bytes(content)
    assert_equal(load_windows(data), first)
    changed.unlink()
    with pytest.raises(ValueError, match=r"r4\.dat: missing"):
        load_windows(data)
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(FileNotFoundError, match=r"mine is missing; copy the recordings of .*mine\.toml there"):
        load_windows(data)


def test_unchanged_recordings_are_not_read_again(
    own_manifest: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once they were right, only files with another size or time are read."""
    read: list[str] = []
    check = fetch._check_file
    monkeypatch.setattr(fetch, "_check_file", lambda path, *rest: read.append(path.name) or check(path, *rest))
    monkeypatch.setattr(fetch, "UNSETTLED_S", 0.0)
    data = DataConfig(databases=(str(own_manifest),))
    load_windows(data)
    assert len(read) == 2 * 12
    (own_manifest.parent / "data" / "mine" / "r7.hea").touch()
    load_windows(data)
    assert read[24:] == ["r7.hea"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "other arrays"])
def test_damaged_cache_is_made_anew(empty_cache: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    """A cache file that cannot be read gives a warning with its name, the right windows, and a new file."""
    first = load_windows(SYNTHETIC)
    (file,) = empty_cache.iterdir()
    content = file.read_bytes()
    if damage == "other arrays":
        with file.open("wb") as stream:
            np.savez(stream, ecg=np.zeros(3))
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "garbage": b"no zip", "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        assert_equal(load_windows(SYNTHETIC), first)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(file) in caplog.text
    assert_equal(load_windows(SYNTHETIC), first)
    assert len(caplog.records) == 1
    assert list(empty_cache.iterdir()) == [file]


def test_missing_database_says_how_to_get_it(empty_cache: Path, tmp_path: Path) -> None:
    """Without the recordings the error names the folder, the command and the variable."""
    with pytest.raises(FileNotFoundError, match="ecg-shock fetch vfdb.*ECG_SHOCK_DATA") as refusal:
        load_subsets(DataConfig(), tmp_path)
    assert str(tmp_path / "vfdb") in str(refusal.value)


@pytest.mark.recordings
def test_folder_that_is_named_has_to_be_there(public: tuple[Subsets, ...], recordings_dir: Path) -> None:
    """Windows in the cache do not replace a database that is missing from the given folder."""
    with pytest.raises(FileNotFoundError, match="not-there"):
        load_subsets(DataConfig(), recordings_dir / "not-there")


def test_database_without_labels_is_told_apart_from_a_missing_one(empty_cache: Path, tmp_path: Path) -> None:
    """The noise records of nstdb have no annotations, so the error does not suggest to fetch it."""
    with pytest.raises(ValueError, match=r"no labels for its records \['bw', 'em', 'ma'\].*neither \.atr files"):
        load_windows(DataConfig(databases=("nstdb",)))


def test_split_follows_the_databases() -> None:
    """A missing split becomes the one that lists the patients, also in a dump; a given one is kept."""
    assert DataConfig().split == DataConfig(databases=("vfdb", "synthetic")).split == "public-v1"
    for databases in (("synthetic",), ["synthetic"]):
        config = DataConfig.model_validate({"databases": databases, "split": None})
        assert config == SYNTHETIC == DataConfig(databases=("synthetic",))
        assert config.model_dump()["split"] == "synthetic-v1"
    assert DataConfig(databases=("synthetic",), split="public-v1").split == "public-v1"
    assert DataConfig.model_validate_json(SYNTHETIC.model_dump_json()) == SYNTHETIC


def test_recordings_that_differ_from_the_manifest_are_not_cached(empty_cache: Path, tmp_path: Path) -> None:
    """The cache identifies windows by their manifest, so a changed annotation must not get into it."""
    manifest = tmp_path / "mine.toml"
    manifest.write_text(
        'name = "mine"\ntitle = ""\nversion = ""\nlicence = ""\ncitation = ""\n'
        f'[files]\n"a.atr" = {{ bytes = 3, sha256 = "{hashlib.sha256(b"abc").hexdigest()}" }}\n'
    )
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.atr").write_bytes(b"abd")
    with pytest.raises(ValueError, match="differs from its manifest in 1 files; the first is a.atr: wrong digest"):
        load_windows(SYNTHETIC.model_copy(update={"databases": (str(manifest),)}), tmp_path)
    assert not empty_cache.exists()


def test_cache_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If a file has the name of the cache folder, windows are loaded without a cache."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ECG_SHOCK_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(datasets, "SYNTHETIC_PATIENTS", 4)
    assert len(load_windows(SYNTHETIC))
    assert "cannot be written" in caplog.text


def test_wrong_split_is_refused(empty_cache: Path) -> None:
    """A fold that does not exist and patients that the split does not list are errors."""
    with pytest.raises(ValueError, match="fold=5, but 'synthetic-v1' has the folds 0 to 4"):
        load_subsets(SYNTHETIC.model_copy(update={"fold": 5}))
    with pytest.raises(ValueError, match=r"split 'public-v1' does not list .*'synthetic/p001'"):
        load_subsets(SYNTHETIC.model_copy(update={"split": "public-v1"}))


def test_split_that_names_an_unknown_patient_is_refused(own_manifest: Path) -> None:
    """A misspelt patient would silently not be tested; patients of public databases that a run leaves out may stand."""
    split = own_manifest.with_name("split.toml")
    names = sorted({"else/where", *(f"mine/r{number}" for number in range(12) if number not in (2, 5))})
    data = DataConfig(databases=(str(own_manifest),), split=str(split))
    for wrong in ("mine/r99", "mien/r1", "vfdb/999", "mine/r2"):
        split.write_text(tomli_w.dumps({"folds": [names[:3], names[3:6], [*names[6:], wrong]]}))
        with pytest.raises(ValueError, match=rf"lists the patients \['{wrong}'\], but no database has them"):
            load_subsets(data)
    split.write_text(tomli_w.dumps({"folds": [names[:3], names[3:6], [*names[6:], "vfdb/418"]]}))
    assert set(load_subsets(data).test.patient) == set(names[:3])


def test_subsets_that_share_a_patient_are_refused() -> None:
    """The last check before training: subsets that share a patient are refused."""
    loaded = load_subsets(SYNTHETIC)
    for wrong in ({"train": loaded.test}, {"validation": loaded.train}, {"validation": loaded.test}):
        with pytest.raises(ValueError, match=r"'synthetic/p\d+'.* are in (train|validation) and in (validation|test)"):
            Subsets(**({"train": loaded.train, "validation": loaded.validation, "test": loaded.test} | wrong))
    for other in (loaded.train, loaded.validation, loaded.test):
        with pytest.raises(ValueError, match=r"'synthetic/p\d+'.* are in other_hospitals and in another subset"):
            Subsets(loaded.train, loaded.validation, loaded.test, other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_s": 1.0},
        {"fold": -1},
        {"max_windows": 0},
        {"train_leads": "second"},
        {"windows": 3},
        {"databases": ()},
        {"databases": ("vfdb", "vfdb")},
        {"extra": ("ludb", "ludb")},
        {"extra": ("synthetic",)},
        {"extra_weight": 0.0},
        {"extra_weight": 1.0},
    ],
)
def test_configuration_out_of_range(wrong: dict) -> None:
    """An unknown key or a value that is not allowed is refused."""
    with pytest.raises(ValidationError):
        DataConfig(**wrong)
