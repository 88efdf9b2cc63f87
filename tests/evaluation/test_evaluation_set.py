"""Only the folds of one model are pooled, and the report describes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from ecg_shock.data.datasets import DataConfig, load_test, load_windows
from ecg_shock.data.same_files import signal_digests
from ecg_shock.data.splits import load_split
from ecg_shock.data.windows import LabelPolicy, WindowSet
from ecg_shock.evaluation.evaluation_set import (
    EvaluationSet,
    describe,
    describe_all,
    find_bundles,
    measure_rate_and_amplitude,
)
from ecg_shock.evaluation.metrics import EXCLUDED, evaluate
from ecg_shock.evaluation.validation import evaluate_by_labels
from ecg_shock.inference.advisor import DEFAULT_BUNDLE, Advisor
from ecg_shock.models.bundle import FORMAT, KERAS_NAME, LITERT_NAME, Bundle, load_bundle
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.preprocessing import Preprocessing

SPEC = CnnSpec((4, 3), (5, 5))
TRAINING = {"epochs": 3, "seed": 0}


def write(
    folder: Path, fold: int, *, data: dict[str, Any] | None = None, card: dict[str, Any] | None = None, **changes: Any
) -> None:
    """Write the description of a bundle, without weights."""
    folder.mkdir(parents=True)
    config = DataConfig.model_validate({"fold": fold, **(data or {})})
    content = {
        "format": FORMAT,
        "threshold": 0.5,
        "network": asdict(SPEC),
        "preprocessing": Preprocessing().to_dict(),
        "sha256": {KERAS_NAME: "k" * 64, LITERT_NAME: "t" * 64},
        "card": {
            "name": f"fold {fold}",
            "commit": "c" * 40,
            "data": config.model_dump(mode="json", exclude_none=True),
            "training": TRAINING,
            "patients": {"train": [], "validation": [], "test": []},
            **(card or {}),
        },
        **changes,
    }
    (folder / "bundle.toml").write_text(tomli_w.dumps(content))


def test_folds_of_one_model_are_found_in_order(tmp_path: Path) -> None:
    """Folds may come in any folders; only the fold, name and commit differ."""
    for fold, place in ((2, "fold-a"), (0, "fold-b"), (1, "fold-c")):
        write(tmp_path / place / "bundle", fold, card={"commit": str(fold)})
    assert [bundle.card.data.fold for bundle in find_bundles(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": Preprocessing(high_hz=35.0).to_dict()}, r"preprocessing is .*30\.0.*35\.0"),
        ({"data": {"split": "synthetic-v1"}}, r"data\.split is 'public-v1' and 'synthetic-v1'"),
        ({"data": {"labels": {"rapid_vt_bpm": 160.0}}}, r"data\.labels is .*150\.0.*160\.0.*"),
    ],
)
def test_unlike_models_are_not_pooled(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Folds with other windows, filters or labels are refused, and the error names the setting."""
    write(tmp_path / "fold-0" / "bundle", 0)
    write(tmp_path / "fold-1" / "bundle", 1, **changes)
    with pytest.raises(ValueError, match=rf"cannot be pooled: {message}[^;]*\. Validate each separately") as refusal:
        find_bundles(tmp_path)
    assert str(tmp_path / "fold-1" / "bundle") in str(refusal.value)


def test_folds_may_choose_their_own_training(tmp_path: Path) -> None:
    """Models with other networks and training are pooled, and the description names each setting that differs."""
    write(tmp_path / "fold-0" / "bundle", 0)
    changes = {"network": asdict(CnnSpec((4, 2), (5, 5))), "card": {"training": {**TRAINING, "seed": 1}}}
    write(tmp_path / "fold-1" / "bundle", 1, **changes)
    models = describe_all(find_bundles(tmp_path))
    assert [model.differences for model in models] == ["", "network, training.seed"]


def test_description_is_what_the_bundle_says(tmp_path: Path) -> None:
    """Digest, fold, size and selection are those of the bundle, and the path above its folder is not shown."""
    write(tmp_path / "fold-3" / "bundle", 3, card={"selection": "Chosen by hand."})
    model = describe(load_bundle(tmp_path / "fold-3" / "bundle"))
    assert (model.name, model.folder, model.split, model.fold) == ("fold 3", "fold-3/bundle", "public-v1", 3)
    assert (model.sha256, model.commit, model.threshold) == ("t" * 64, "c" * 40, 0.5)
    assert model.parameters == 5 * 4 + 4 + 4 * 5 * 3 + 3 + 3 + 1
    assert model.selection == "Chosen by hand."
    write(tmp_path / "mine", 0)
    model = describe(load_bundle(tmp_path / "mine"))
    assert (model.folder, model.selection) == ("mine", "")


def test_rates_of_vt_and_amplitudes_of_vf_are_measured() -> None:
    """A sine of 3 Hz and 0.3 mV is 180 bpm where it is called VT, 0.6 mV where VF, and not measured elsewhere."""
    n, seconds = 4, np.arange(625) / 125
    names = np.full(n, "a")
    windows = WindowSet(
        ecg=np.tile(0.3 * np.sin(2 * np.pi * 3 * seconds), (n, 1)).astype(np.float32),
        **dict.fromkeys(("database", "record", "lead", "patient"), names),
        rhythm=np.array(["vt", "vf", "asystole", "svt"]),
        aha_class=np.array(["rapid_vt", "coarse_vf", "asystole", "other_nonshockable"]),
        start_s=np.arange(n) * 5.0,
        window_s=5.0,
    )
    rate, amplitude = measure_rate_and_amplitude(windows)
    assert rate[0] == pytest.approx(180, abs=1)
    assert amplitude[1] == pytest.approx(0.6, abs=0.01)
    assert np.isnan(rate).tolist() == [False, True, True, True]
    assert np.isnan(amplitude).tolist() == [True, False, True, True]
    nothing = measure_rate_and_amplitude(windows.select(np.zeros(n, bool)))
    assert [len(values) for values in nothing] == [0, 0]


@pytest.mark.recordings
def test_measurements_say_what_the_labels_say(recordings_dir: Path) -> None:
    """Every real window of VT and VF has the class that its measured rate or amplitude gives it."""
    windows = load_windows(DataConfig(), recordings_dir)
    rate, amplitude = measure_rate_and_amplitude(windows)
    policy = LabelPolicy()
    for rhythm, beyond, classes in (
        ("vt", rate >= policy.rapid_vt_bpm, ("rapid_vt", "other_vt")),
        ("vf", amplitude > policy.coarse_vf_mv, ("coarse_vf", "fine_vf")),
    ):
        mine = windows.rhythm == rhythm
        assert mine.sum() > 100
        assert np.where(beyond[mine], *classes).tolist() == windows.aha_class[mine].tolist()


@pytest.mark.recordings
def test_other_limits_include_the_one_that_was_used(fold_bundle: Bundle, recordings_dir: Path) -> None:
    """For the test patients of a real model, the rows for 150 bpm and 0.2 mV are the AHA rows."""
    (performance,) = evaluate(EvaluationSet((fold_bundle,), folder=recordings_dir).predictions([5.0])).performances
    rows = {row.aha_class: row for row in performance.aha}
    same = [label.row for label in performance.by_label if label.limit in (150.0, 0.2)]
    assert same == [rows["rapid_vt"], rows["coarse_vf"]]
    assert len(performance.by_label) == 10


def test_several_bundles_predict_no_other_database(tmp_path: Path) -> None:
    """Databases need a single bundle, since each fold would predict all of their windows."""
    write(tmp_path / "a", 0)
    bundle = load_bundle(tmp_path / "a")
    with pytest.raises(ValueError, match="there are 2 bundles; give only one to evaluate on vfdb, cudb"):
        EvaluationSet((bundle, bundle), ("vfdb", "cudb"))
    with pytest.raises(ValueError, match="there is no bundle"):
        EvaluationSet(())


def test_records_are_those_of_the_fold(synthetic_bundle: Callable[..., Bundle]) -> None:
    """Test and validation patients are those of the split; two folds list and read each record once."""
    split = load_split("synthetic-v1")
    bundles = tuple(synthetic_bundle(fold) for fold in (0, 1))
    for fold, one in EvaluationSet(bundles).by_fold.items():
        for subset in ("validation", "test"):
            assert {record.patient for record in one.records(subset)} == getattr(split[fold], subset)
    both = EvaluationSet(bundles)
    records = (*both.records(), *both.records("validation"))
    assert {record.patient for record in records} == split[0].test | split[1].test | split[1].validation
    read = [recording.name for recording in both.recordings(records)]
    assert sorted(read) == sorted({record.name for record in records})
    with pytest.raises(ValueError, match='allowed are "test" and "validation"'):
        both.records("train")


def test_seen_patients_are_refused(synthetic_bundle: Callable[..., Bundle]) -> None:
    """Windows and records of patients that the model was trained on or selected with are refused."""
    for subset in ("train", "validation"):
        bundle = synthetic_bundle(0)
        patient = sorted(load_split("synthetic-v1")[0].test)[0]
        patients = {**bundle.raw_card["patients"], subset: [patient]}
        bundle = replace(bundle, raw_card={**bundle.raw_card, "patients": patients})
        for evaluation in (EvaluationSet((bundle,)), EvaluationSet((bundle,), ("synthetic",))):
            with pytest.raises(
                ValueError, match=f"selected with the patients .*{patient}.*evaluate it on other patients"
            ):
                evaluation.windows(5.0)
            with pytest.raises(
                ValueError, match=f"selected with the patients .*{patient}.*evaluate it on other patients"
            ):
                evaluation.records()
    with pytest.raises(ValueError, match=r"has no \[card.data\]"):
        EvaluationSet((replace(bundle, raw_card={}),))


def test_missing_database_is_said(fold_bundle: Bundle, tmp_path: Path) -> None:
    """A missing database is an error that names the folder and the command; `has_validation` is False."""
    evaluation = EvaluationSet((fold_bundle,), folder=tmp_path)
    assert not evaluation.has_validation()
    with pytest.raises(FileNotFoundError, match="ecg-shock fetch vfdb"):
        next(evaluation.recordings(evaluation.records()))


def test_each_window_is_predicted_once_for_both_label_policies(
    synthetic_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each policy has the windows that it cuts, and a window of both has one advice, predicted once."""
    rules = LabelPolicy(slow_vf_bpm=400.0, slow_vf_periodicity=0.25, vt_amplitude_ratio=1.15)
    evaluation = EvaluationSet((synthetic_bundle(0, rules),))
    predicted: list[int] = []
    probabilities = Advisor.probabilities

    def counted(self: Advisor, ecg: np.ndarray) -> np.ndarray:
        predicted.append(len(ecg))
        return probabilities(self, ecg)

    monkeypatch.setattr(Advisor, "probabilities", counted)
    found = evaluation.predictions_by_labels((5.0,))
    assert list(found) == [rules, LabelPolicy()]
    advice: dict[tuple[str, float], dict[LabelPolicy, tuple[str, bool]]] = {}
    for labels, predictions in found.items():
        config = DataConfig(databases=("synthetic",), labels=labels)
        windows = load_test(config)
        assert predictions.aha_class.tolist() == windows.aha_class.tolist()
        expected = probabilities(evaluation.advisors[0], windows.ecg)
        np.testing.assert_allclose(predictions.probability, expected, rtol=1e-5)
        for record, start_s, aha_class, shock in zip(
            predictions.record, predictions.start_s, predictions.aha_class, predictions.shock, strict=True
        ):
            advice.setdefault((record, start_s), {})[labels] = str(aha_class), bool(shock)
    assert predicted == [len(advice)]

    validation = evaluate_by_labels(found)
    assert validation.performances == evaluate(found[rules]).performances
    assert validation.default_labels is not None
    assert validation.default_labels.performances == evaluate(found[LabelPolicy()]).performances
    counts: dict[tuple[str, str], list[bool]] = {}
    for by_labels in advice.values():
        default, shock = by_labels[LabelPolicy()]
        own = by_labels.get(rules, (EXCLUDED, shock))[0]
        if own != default:
            counts.setdefault((default, own), []).append(shock)
    assert {own for _, own in counts} == {"slow_vf", EXCLUDED}
    for (default, own), shocks in counts.items():
        rows = [
            row for row in validation.default_labels.set_apart if (row.default_class, row.aha_class) == (default, own)
        ]
        assert (sum(row.windows for row in rows), sum(row.shocks for row in rows)) == (len(shocks), sum(shocks))
        assert len({row.patient for row in rows}) == len(rows)
    assert sum(row.windows for row in validation.default_labels.set_apart) == sum(map(len, counts.values()))
    default_only = EvaluationSet((synthetic_bundle(0),)).predictions_by_labels((5.0,))
    assert list(default_only) == [LabelPolicy()]
    assert evaluate_by_labels(default_only).default_labels is None


def test_training_windows_are_of_one_fold(synthetic_bundle: Callable[..., Bundle]) -> None:
    """They are those that the fold's model was trained on; several folds are an error."""
    evaluation = EvaluationSet((synthetic_bundle(0), synthetic_bundle(1)))
    with pytest.raises(ValueError, match="there are 2 folds"):
        evaluation.training(5.0)
    windows = evaluation.by_fold[1].training(5.0)
    assert set(windows.patient.tolist()) <= load_split("synthetic-v1")[1].train


@pytest.mark.parametrize("known", [True, False])
def test_training_patients_under_another_name_are_refused(
    own_manifest: Path, tmp_path: Path, copied_database: Callable[..., Path], known: bool
) -> None:
    """A copy of a file that a model was trained on cannot test it, whether its card or its manifest has the sum."""
    patients = {"train": ["mine/r0", "mine/r1"], "validation": ["mine/r4"], "test": ["mine/r6"]}
    if known:
        sums = signal_digests([str(own_manifest)])
        own_manifest.unlink()
        patients["files"] = sorted(key for key, patient in sums.items() if patient in ("mine/r0", "mine/r1", "mine/r4"))
    write(tmp_path / "bundle", 0, data={"databases": [str(own_manifest)]}, card={"patients": patients})
    bundles = (load_bundle(tmp_path / "bundle"),)
    EvaluationSet(bundles, (str(copied_database("new", (6, 7))),))
    with pytest.raises(
        ValueError, match=r"was trained or selected on the recordings of 'theirs/x4', under another name"
    ):
        EvaluationSet(bundles, (str(copied_database("theirs", (4, 6))),))


@pytest.mark.recordings
@pytest.mark.parametrize("record", ["vfdb/421", "cudb/cu01"])
def test_copies_of_the_default_models_patients_are_refused(record: str, recordings_dir: Path, tmp_path: Path) -> None:
    """The model in the package is not tested on copies of its patients, also where a manifest has sums of samples."""
    database, name = record.split("/")
    assert load_bundle(DEFAULT_BUNDLE).card.patients.seen([record])
    (tmp_path / "mine").mkdir()
    files = {}
    for suffix in ("hea", "dat", "atr"):
        content = (recordings_dir / database / f"{name}.{suffix}").read_bytes()
        copy = tmp_path / "mine" / f"r1.{suffix}"
        copy.write_bytes(content.replace(name.encode(), b"r1") if suffix == "hea" else content)
        files[copy.name] = {
            "bytes": copy.stat().st_size,
            "sha256": hashlib.sha256(copy.read_bytes()).hexdigest(),
        }
    manifest = {"name": "mine", "title": "", "version": "", "licence": "", "citation": "", "files": files}
    (tmp_path / "mine.toml").write_text(tomli_w.dumps(manifest))
    with pytest.raises(ValueError, match=r"was trained or selected on the recordings of 'mine/r1', under another name"):
        EvaluationSet((load_bundle(DEFAULT_BUNDLE),), (str(tmp_path / "mine.toml"),), tmp_path)
