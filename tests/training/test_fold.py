"""Windows are grouped for the sampler, and the best epoch becomes a bundle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ecg_shock.data.datasets import DataConfig, ExtraPatients, Subsets, labelled_recordings
from ecg_shock.data.same_files import signal_digests
from ecg_shock.data.splits import load_split
from ecg_shock.data.windows import WindowSet, concatenate, cut_windows
from ecg_shock.evaluation.evaluation_set import EvaluationSet, check_unseen
from ecg_shock.export.export import export
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.models import CnnSpec
from ecg_shock.models.bundle import load_bundle
from ecg_shock.models.card import ExtraDatabase
from ecg_shock.rhythms import INTERMEDIATE, SHOCKABLE
from ecg_shock.training.fold import FoldSource, TrainingFold, examples, load_fold, training_of
from ecg_shock.training.trainer import Start, TrainingConfig, read_result

# Two databases have the same rhythm, and a patient has two rhythms.
ROWS = [
    ("vfdb", "vfdb:1", "coarse_vf"),
    ("vfdb", "vfdb:1", "normal_sinus"),
    ("cudb", "cudb:1", "coarse_vf"),
    ("vfdb", "vfdb:2", "coarse_vf"),
    ("vfdb", "vfdb:1", "coarse_vf"),
    ("mitdb", "mitdb:9", "normal_sinus"),
    ("cudb", "cudb:1", "asystole"),
    ("cudb", "cudb:2", "rapid_vt"),
]


@pytest.fixture
def windows(rng):
    """Return a window for each row."""
    database, patient, aha_class = (np.array(column) for column in zip(*ROWS, strict=True))
    empty = np.full(len(ROWS), "")
    return WindowSet(
        ecg=rng.normal(size=(len(ROWS), 250)).astype(np.float32),
        database=database,
        record=empty,
        lead=empty,
        patient=patient,
        rhythm=empty,
        aha_class=aha_class,
        start_s=np.zeros(len(ROWS)),
        window_s=2.0,
    )


@pytest.mark.parametrize(("groups", "columns"), [("rhythm", [2]), ("rhythm-patient", [2, 1])])
def test_groups_are_rhythms_or_rhythms_of_patients(windows, groups, columns):
    """Two windows are in one group if and only if they have the same rhythm (and patient)."""
    made = examples(windows, groups)
    for i, one in enumerate(ROWS):
        for j, other in enumerate(ROWS):
            assert (made.groups[i] == made.groups[j]) == all(one[c] == other[c] for c in columns)
    np.testing.assert_array_equal(made.ecg, windows.ecg)
    np.testing.assert_array_equal(made.shockable, [r[2] in ("coarse_vf", "rapid_vt") for r in ROWS])
    np.testing.assert_array_equal(made.rhythm, [r[2] for r in ROWS])  # whatever the groups are


def test_choices_of_groups_differ(windows):
    """The default is that of the configuration, and each choice gives other groups."""
    default = examples(windows).groups
    np.testing.assert_array_equal(default, examples(windows, TrainingConfig().groups).groups)
    counts = [np.unique(examples(windows, g).groups).size for g in ("rhythm", "rhythm-patient")]
    assert counts == [4, 7]


def test_groups_are_the_same_in_any_order(windows):
    """Group codes do not depend on the order of the windows, so that a run can be resumed."""
    made = examples(windows, "rhythm-patient")
    order = np.array([5, 2, 7, 0, 1, 6, 3, 4])
    again = examples(windows.select(order), "rhythm-patient")
    np.testing.assert_array_equal(again.groups, made.groups[order])


def test_every_second_is_that_of_the_training_patients_and_counts_by_patient(monkeypatch, tmp_path):
    """Windows, labels and weights are those of the definition, for the fold's training patients alone."""
    data = DataConfig(databases=("synthetic",), fold=1)
    fold = TrainingFold.load(data)
    made = {}
    monkeypatch.setattr(
        "ecg_shock.training.fold.train", lambda spec, training, *others, **more: made.update(t=training)
    )
    settings = TrainingConfig(every_second={"windows": 500, "patient_windows": 3}, groups="rhythm-patient")
    fold.train(CnnSpec(filters=(2,), kernels=(5,)), settings, tmp_path)
    training = made["t"]
    assert training.per_epoch == 500
    assert fold.presentations(settings.model_copy(update={"epochs": 2})) == 1024

    known = load_split("synthetic-v1")[1]
    expected = []
    for recording in labelled_recordings("synthetic"):
        windows = cut_windows(recording, 5.0, guard_s=0.5, leads="all", step_s=1.0)
        if recording.patient in known.train:
            expected.append(windows.select(~np.isin(windows.aha_class, INTERMEDIATE)))
    expected = concatenate(expected)
    np.testing.assert_array_equal(training.ecg[:], expected.ecg)
    np.testing.assert_array_equal(training.rhythm, expected.aha_class)
    np.testing.assert_array_equal(training.shockable, np.isin(expected.aha_class, SHOCKABLE))

    # A patient counts within a class as its windows that do not overlap, up to the limit; each class has the mean 1.
    pairs = list(zip(expected.patient.tolist(), expected.aha_class.tolist(), strict=True))
    total = {pair: min(pairs.count(pair) / 5, 3) for pair in set(pairs)}
    for of_class in (True, False):
        mask = training.shockable == of_class
        assert training.weights[mask].mean() == pytest.approx(1.0)
        of_pairs = {pair for pair in total if (pair[1] in SHOCKABLE) == of_class}
        for pair in of_pairs:
            members = np.array([one == pair for one in pairs])
            proportion = training.weights[members].sum() / training.weights[mask].sum()
            assert proportion == pytest.approx(total[pair] / sum(total[other] for other in of_pairs))
            assert np.unique(training.groups[members]).size == 1
    assert np.unique(training.groups).size == len(total)


def test_other_windows_are_refused(monkeypatch):
    """Windows with another digest than that of the machine which started the training are an error."""
    data = DataConfig(databases=("synthetic",))
    fold = TrainingFold.load(data)
    monkeypatch.setattr(TrainingFold, "load", lambda data, folder: fold)
    load_fold.cache_clear()
    assert load_fold(FoldSource(data, None, fold.digest)) is fold
    with pytest.raises(ValueError, match=f"have the digest {fold.digest[:12]}…, not 012…; use the same recordings"):
        load_fold(FoldSource(data, None, "012"))
    load_fold.cache_clear()


def test_a_start_is_shown_by_the_digest_of_its_weights():
    """Two starts have the same representation only if their weights are equal."""
    weights = [np.zeros((100, 100)), np.ones(3)]
    other = [weights[0].copy(), weights[1]]
    assert repr(Start(weights, 1)) == repr(Start(other, 1))
    other[0][50, 50] = 1e-9
    assert len({repr(Start(weights, 1)), repr(Start(other, 1)), repr(Start(weights, 2))}) == 3


def test_best_epoch_becomes_a_bundle_with_a_card(windows, tmp_path):
    """The bundle has the network, and its card the settings, the result and the patients."""
    data = DataConfig(databases=("vfdb",), window_s=2.0)
    fold = TrainingFold(data, Subsets(*(windows.select(np.array(rows)) for rows in ([0, 1, 3, 4], [2, 6], [5]))))
    config = TrainingConfig(epochs=2, batch_size=4, sampler="ras", groups="rhythm-patient", patience=1)
    spec = CnnSpec(filters=(2,), kernels=(5,), input_samples=250)
    trained = fold.train(spec, config, tmp_path / "run")
    bundle = fold.write_bundle(tmp_path / "bundle", "small", read_result(tmp_path / "run"), selection="by hand")
    ecg = windows.ecg[..., np.newaxis]
    np.testing.assert_array_equal(bundle.load_keras()(ecg), trained.load_model()(ecg))
    assert (bundle.spec, bundle.card.data, training_of(bundle)) == (spec, data, config)
    assert (bundle.name, bundle.card.selection) == ("small", "by hand")
    assert bundle.card.patients.validation == ("cudb:1",)
    assert bundle.card.patients.test == ("mitdb:9",)
    best = trained.history[bundle.card.validation.epoch - 1]
    assert best == trained.best
    assert bundle.card.validation.balanced_accuracy == best.balanced_accuracy
    assert (bundle.card.validation.windows, bundle.card.validation.patients) == (2, 1)


def test_model_of_all_patients_has_no_accuracy_of_its_own(tmp_path):
    """The last epoch is kept, the calibration comes from elsewhere, and nobody is left to test the model."""
    everyone = sorted(frozenset.union(*(fold.test for fold in load_split("synthetic-v1"))))
    (tmp_path / "all.toml").write_text(f"folds = [{json.dumps(everyone)}]")
    data = DataConfig(databases=("synthetic",), split=str(tmp_path / "all.toml"))
    fold = TrainingFold.load(data)
    spec = CnnSpec(filters=(4,), kernels=(10,), pool=8)
    trained = fold.train(spec, TrainingConfig(epochs=3, calibrated=True), tmp_path / "run")
    assert trained.best is trained.history[-1]
    assert np.isnan(trained.best.balanced_accuracy)
    with pytest.raises(ValueError, match="no validation patients to calibrate on"):
        fold.write_bundle(tmp_path / "bundle", "all", trained, selection="")
    expected = {"5 s": "balanced accuracy 98 %"}
    bundle = fold.write_bundle(tmp_path / "bundle", "all", trained, selection="", calibration=0.5, expected=expected)
    assert (bundle.card.validation, bundle.card.expected) == (None, expected)
    assert "5 s: balanced accuracy 98 %" in (bundle.folder / "CARD.md").read_text(encoding="utf-8")
    logit = np.log(1 / np.array(bundle.load_keras()(fold.subsets.train.ecg[:9, :, np.newaxis])) - 1)
    before = np.log(1 / np.array(trained.load_model()(fold.subsets.train.ecg[:9, :, np.newaxis])) - 1)
    np.testing.assert_allclose(-logit, -0.5 * before, atol=1e-4)
    with pytest.raises(ValueError, match="no patient is left to test it.*CARD.md"):
        EvaluationSet((bundle,))
    assert export(bundle, "litert", tmp_path / "export").rescoring.part == "training"


def test_network_learns_from_its_teachers(windows, tmp_path):
    """With teachers that are sure of the opposite of the labels, the network learns the opposite."""
    data = DataConfig(databases=("vfdb",), window_s=2.0)
    everything = windows.select(np.arange(len(windows)))
    fold = TrainingFold(data, Subsets(everything, windows.select(np.array([], int)), windows.select(np.array([], int))))
    spec = CnnSpec(filters=(8,), kernels=(5,), dropout=0.0, input_samples=250)
    config = TrainingConfig(epochs=150, batch_size=8, learning_rate=0.02)
    taught = fold.train(spec, config, tmp_path / "labels").load_model()
    truth = np.isin(windows.aha_class, ("coarse_vf", "rapid_vt"))
    assert ((np.array(taught(windows.ecg[..., np.newaxis]))[:, 0] > 0.5) == truth).all()
    dense = taught.get_layer("shockable")
    dense.set_weights([-value for value in dense.get_weights()])
    other = fold.train(spec, config, tmp_path / "taught", teachers=(taught, taught)).load_model()
    assert ((np.array(other(windows.ecg[..., np.newaxis]))[:, 0] > 0.5) == ~truth).all()


def test_what_the_earlier_model_has_seen_stays_seen(windows, fold_bundle, tmp_path):
    """The card of a fine-tuned model has the patients and files of the earlier one, also of two trainings before."""
    earlier = fold_bundle
    data = DataConfig(databases=("vfdb",), window_s=2.0)
    fold = TrainingFold(data, Subsets(*(windows.select(np.array(rows)) for rows in ([0, 1, 3, 4], [2, 6], [5]))))
    spec = CnnSpec(filters=(2,), kernels=(5,), input_samples=250)
    result = fold.train(spec, TrainingConfig(epochs=1, batch_size=4), tmp_path / "run")
    for step in ("once", "twice"):
        bundle = fold.write_bundle(tmp_path / step, step, result, selection="", earlier=earlier)
        known = bundle.card.patients
        assert {"vfdb/421", "cudb/cu01"} <= known.seen(["vfdb/421", "cudb/cu01", "cudb/cu03"])
        assert "cudb/cu03" not in known.seen(["cudb/cu03"])
        digests = {patient: key for key, patient in signal_digests(["vfdb", "cudb"]).items()}
        assert {digests["vfdb/421"], digests["cudb/cu01"]} <= set(known.files)
        assert digests["cudb/cu03"] not in known.files
        assert f"started from those of {earlier.name}" in bundle.card.protocol
        earlier = bundle


def test_extra_databases_have_their_share_of_the_objective(windows, tmp_path, monkeypatch):
    """Training weighs the windows so that the nonshockable ones of extra databases have the share that was set."""
    trained = []
    monkeypatch.setattr("ecg_shock.training.fold.train", lambda spec, training, *rest, **more: trained.append(training))
    repeated = windows.select(np.tile(np.arange(len(windows)), 3))
    database = np.where(np.arange(len(repeated)) % 4 == 1, "ludb", repeated.database)
    train = replace(repeated, database=database)
    data = DataConfig(databases=("vfdb",), extra=("ludb",), extra_weight=0.3, window_s=2.0)
    subsets = SimpleNamespace(train=train, validation=windows)
    TrainingFold(data, subsets).train(CnnSpec(filters=(2,), kernels=(5,)), TrainingConfig(), tmp_path)
    (examples_,) = trained
    extra = (database == "ludb") & ~examples_.shockable
    own = (database != "ludb") & ~examples_.shockable
    assert extra.any()
    assert own.any()
    sums = [examples_.weights[rows].sum() for rows in (extra, own)]
    assert sums[0] / sum(sums) == pytest.approx(0.3)
    assert sum(sums) == pytest.approx(extra.sum() + own.sum())
    assert (examples_.weights[examples_.shockable] == 1).all()


def test_card_counts_the_patients_of_extra_databases(windows, tmp_path, monkeypatch):
    """They are counted by database, not named, but for those who have the name of another database's patient."""
    extra = {
        "mine": ExtraPatients("7", frozenset({"mine/b", "mine/a", "else/x"}), frozenset({"mine/c", "else/y"})),
    }
    monkeypatch.setattr("ecg_shock.training.fold.extra_patients", lambda data: extra)
    monkeypatch.setattr("ecg_shock.training.fold.of_extra", lambda windows, data: windows.database == "mine")
    rows = [windows.select(np.array(rows)) for rows in ([0, 1, 3, 4], [2, 6], [5])]
    train = replace(rows[0], database=np.array(["mine", *rows[0].database[1:]]))
    fold = TrainingFold(DataConfig(databases=("vfdb",), window_s=2.0), Subsets(train, *rows[1:]))
    spec = CnnSpec(filters=(2,), kernels=(5,), input_samples=250)
    trained = fold.train(spec, TrainingConfig(epochs=1, batch_size=4), tmp_path / "run")
    bundle = fold.write_bundle(tmp_path / "bundle", "small", trained, selection="by hand")
    known = load_bundle(bundle.folder).card.patients
    digest = hashlib.sha256(b"else/x\nmine/a\nmine/b\n").hexdigest()
    assert known.extra == {"mine": ExtraDatabase("7", 3, 2, digest)}
    assert set(known.train) == {"else/x", "else/y", *train.patient[1:].tolist()}
    assert known.seen(["mine/a", "mine/c", "mine/z", "else/x", "else/y", "else/z", *known.test]) == {
        "mine/a", "mine/c", "mine/z", "else/x", "else/y",
    }  # fmt: skip
    card = (bundle.folder / "CARD.md").read_text(encoding="utf-8")
    assert f"- extra: mine (version 7, train 3, check 2, sha256 {digest})" in card
    with pytest.raises(ValueError, match=r"selected with the patients \['mine/a'\]; evaluate it on other"):
        check_unseen(bundle, ["mine/a", "other/b"])


def test_model_that_comes_with_the_package_can_be_trained_again():
    """Its card has no removed setting; a card that has one is an error that names it."""
    bundle = load_bundle(DEFAULT_BUNDLE)
    assert training_of(bundle).sampler == "ras"
    old = {**bundle.raw_card["training"], "score": "gradient", "stratified": False}
    assert training_of(replace(bundle, raw_card={**bundle.raw_card, "training": old})) == training_of(bundle)
    old["stratified"] = True
    with pytest.raises(ValueError, match="cannot be trained again: stratified = True is not supported any more"):
        training_of(replace(bundle, raw_card={**bundle.raw_card, "training": old}))
