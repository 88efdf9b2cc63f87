"""`ecg-shock train` and `ecg-shock validate`, on synthetic recordings and a tiny network."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ecg_shock.commands.app import app
from ecg_shock.data.datasets import DataConfig, load_subsets
from ecg_shock.data.manifests import resource_dir
from ecg_shock.evaluation.evaluation_set import EvaluationSet, find_bundles
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.models.bundle import load_bundle
from ecg_shock.search.engine import OnProgress
from ecg_shock.search.tasks import Task
from ecg_shock.training.fold import patients, training_of

RUN = ["--databases", "synthetic", "--filters", "4,4", "--kernels", "10,10", "--epochs", "2", "--balanced"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of five folds, trained for two epochs."""
    folder = tmp_path_factory.mktemp("run")
    for fold in ("0", "1"):
        done = CliRunner().invoke(app, ["train", *RUN, "--fold", fold, "--out", str(folder)])
        assert done.exit_code == 0, done.output
    return folder


def test_train_writes_a_bundle_that_names_its_patients(run_folder: Path) -> None:
    """The card names exactly the patients of the split's subsets, and marks the data as synthetic."""
    bundle = load_bundle(run_folder / "fold-1" / "bundle")
    subsets = load_subsets(DataConfig(databases=("synthetic",), split="synthetic-v1", fold=1))
    for subset in ("train", "validation", "test"):
        assert list(getattr(bundle.card.patients, subset)) == sorted(set(getattr(subsets, subset).patient))
    assert bundle.card.synthetic is True
    assert "synthetic" in (bundle.folder / "CARD.md").read_text(encoding="utf-8")
    assert (run_folder / "fold-1" / "history.png").stat().st_size > 1000
    history = json.loads((run_folder / "fold-1" / "history.json").read_text(encoding="utf-8"))
    assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2]


def test_extra_patients_train_and_check(own_manifest: Path, tmp_path: Path) -> None:
    """The card counts them, the fifth that does not train is reported beside, and none of them can be tested."""
    done = CliRunner().invoke(app, ["train", *RUN, "--extra", str(own_manifest), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert re.search(r"other hospitals, mine: Sp [\d.]+ %.*\(\d patients, \d+ windows\)", " ".join(done.output.split()))
    bundle = load_bundle(tmp_path / "fold-0" / "bundle")
    known = bundle.card.patients.extra["mine"]
    assert (known.version, known.train + known.check) == ("7", 11)
    assert "else/where" in bundle.card.patients.train
    assert bundle.card.data.extra == (str(own_manifest),)
    with pytest.raises(ValueError, match=r"selected with the patients \['else/where', 'mine/r0', .*\] and 1 more"):
        EvaluationSet((bundle,), (str(own_manifest),)).windows(5.0)


def test_split_and_window_of_ones_own_move_with_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths on the card are relative to the bundle, so that a folder with split and bundle can be moved."""
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(resource_dir("data_manifests") / "splits" / "synthetic-v1.toml", project / "mine.toml")
    monkeypatch.chdir(project)
    done = CliRunner().invoke(app, ["train", *RUN, "--split", "mine.toml", "--window", "4", "--out", "runs/mine"])
    assert done.exit_code == 0, done.output
    bundle = load_bundle("runs/mine/fold-0/bundle")
    assert bundle.spec.input_samples == 500
    assert (bundle.card.data.split, bundle.card.data.window_s) == ("mine.toml", 4)
    assert bundle.raw_card["data"]["split"] == "../../../../mine.toml"
    monkeypatch.chdir(tmp_path)
    project.rename(tmp_path / "moved")
    moved = load_bundle("moved/runs/mine/fold-0/bundle")
    assert moved.card.data.split == str(Path("moved/mine.toml"))
    assert len(EvaluationSet((moved,)).windows(4.0)) > 0


def test_training_like_a_bundle_repeats_it(run_folder: Path, tmp_path: Path) -> None:
    """--like takes over data, network and training, so that the same fold gives the same model, bit for bit."""
    like = run_folder / "fold-0" / "bundle"
    done = CliRunner().invoke(app, ["train", "--like", str(like), "--fold", "0", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    again = load_bundle(tmp_path / "fold-0" / "bundle")
    assert again.read_litert() == load_bundle(like).read_litert()


def test_folds_are_trained_side_by_side(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several workers the engine trains each fold as this process does, and the command writes the bundles."""
    trained: list[str] = []

    class Engine:
        remote = False

        def __init__(self, log: Path, *, workers: int, scheduler: str | None) -> None:
            assert (workers, scheduler) == (5, None)  # no more workers than folds

        def run(self, tasks: list[Task], on_progress: OnProgress) -> Iterator[tuple[Task, str | None]]:
            for task in tasks:
                task.function(*task.arguments, folder=task.folder, on_epoch=lambda log: None)
                trained.append(task.name)
                yield task, None

    monkeypatch.setattr("ecg_shock.search.engine.Engine", lambda *given, **named: nullcontext(Engine(*given, **named)))
    done = CliRunner().invoke(app, ["train", *RUN, "--fold", "all", "--out", str(tmp_path), "--workers", "8"])
    assert done.exit_code == 0, done.output
    assert trained == [f"fold {fold}" for fold in range(5)]
    assert "train 5/5: fold 4 BAC" in done.output
    for fold in ("fold-0", "fold-1"):
        again = load_bundle(tmp_path / fold / "bundle")
        assert again.read_litert() == load_bundle(run_folder / fold / "bundle").read_litert()


def test_training_starts_from_a_bundle(run_folder: Path, tmp_path: Path) -> None:
    """Frozen blocks keep their weights, the others change, and the card names the earlier model and its patients."""
    earlier = load_bundle(run_folder / "fold-0" / "bundle")
    options = ["--from", str(earlier.folder), "--freeze", "1", "--databases", "synthetic", "--epochs", "1"]
    done = CliRunner().invoke(app, ["train", *options, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    bundle = load_bundle(tmp_path / "fold-0" / "bundle")
    before, after = (b.load_keras().get_weights() for b in (earlier, bundle))
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [False, False, True, True, True, True]
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) < 0.01
    card = bundle.card
    assert card.training["learning_rate"] == 1e-4
    assert set(card.patients.earlier) == {*earlier.card.patients.train, *earlier.card.patients.validation}
    assert card.patients.seen(card.patients.earlier) == set(card.patients.earlier)
    text = (bundle.folder / "CARD.md").read_text(encoding="utf-8")
    assert f"started from those of {earlier.name}" in text
    assert earlier.digests["model.keras"][:16] in text
    assert "the first 1 blocks kept their weights" in text
    again = CliRunner().invoke(app, ["train", *options[:2], *options[4:], "--out", str(tmp_path)])
    assert "start.frozen_blocks: 1 in the folder, 0 now" in again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold", "1"], "test patients of fold 1, such as 'synthetic/p"),
        (["--freeze", "3"], "frozen_blocks (--freeze) is 3; allowed are 0 to "),
        (["--filters", "4,4"], "--from takes the network of its bundle"),
        (["--like", "runs/x"], "remove"),
    ],
)
def test_start_that_is_not_allowed(run_folder: Path, tmp_path: Path, options: list[str], message: str) -> None:
    """Test patients that the bundle has seen, and options that contradict it, are refused before training."""
    start = ["--from", str(run_folder / "fold-0" / "bundle"), "--databases", "synthetic"]
    done = CliRunner().invoke(app, ["train", *start, *options, "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert message in done.output
    assert not list(tmp_path.glob("fold-*/checkpoint.npz"))


def test_freezing_needs_a_start(tmp_path: Path) -> None:
    """Random weights cannot be frozen."""
    done = CliRunner().invoke(app, ["train", *RUN, "--freeze", "1", "--out", str(tmp_path)])
    assert "--freeze needs --from" in done.output


def test_like_keeps_what_is_not_changed(run_folder: Path, tmp_path: Path) -> None:
    """Other filters leave the bundle's padding and dropout as they are."""
    like = tmp_path / "like"
    shutil.copytree(run_folder / "fold-0" / "bundle", like)
    text = (like / "bundle.toml").read_text(encoding="utf-8")
    text = text.replace('padding = "same"', 'padding = "valid"').replace("dropout = 0.3", "dropout = 0.1")
    (like / "bundle.toml").write_text(text, encoding="utf-8")
    options = ["--like", str(like), "--filters", "5,5", "--epochs", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["train", *options])
    assert done.exit_code == 0, done.output
    spec = load_bundle(tmp_path / "fold-0" / "bundle").spec
    assert (spec.filters, spec.kernels, spec.padding, spec.dropout) == ((5, 5), (10, 10), "valid", 0.1)


def test_patience_of_zero_is_never(run_folder: Path, tmp_path: Path) -> None:
    """--patience 0 resets what --like takes over, and a negative one is refused."""
    for patience, expected in ((["--patience", "1"], 1), ([], 1), (["--patience", "0"], None)):
        like = tmp_path / "fold-0" / "bundle" if (tmp_path / "fold-0").exists() else run_folder / "fold-0" / "bundle"
        options = ["train", "--like", str(like), "--epochs", "2", *patience, "--out", str(tmp_path)]
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 0, done.output
        assert training_of(load_bundle(tmp_path / "fold-0" / "bundle")).patience == expected
    refused = CliRunner().invoke(app, ["train", "--patience", "-1"])
    assert refused.exit_code == 1
    assert "error: patience = -1: " in refused.output


@pytest.mark.parametrize("table", ["data", "training", "patients"])
def test_bundle_that_does_not_say_what_it_has_seen(run_folder: Path, table: str) -> None:
    """A model whose card lacks data, training or patients is not evaluated, and not repeated."""
    bundle = load_bundle(run_folder / "fold-0" / "bundle")
    card = {key: value for key, value in bundle.raw_card.items() if key != table}
    with pytest.raises(ValueError, match=rf"has no \[card.{table}\]"):
        EvaluationSet((replace(bundle, raw_card=card),))


def test_validate_pools_the_folds_own_test_patients(run_folder: Path, tmp_path: Path) -> None:
    """Every test window of both folds is predicted once, by the model that never saw its patient."""
    done = CliRunner().invoke(app, ["validate", str(run_folder), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "synthetic" in done.output
    predictions = Predictions.read_csv(tmp_path / "predictions.csv")
    assert sorted(set(predictions.duration_s)) == [2, 3, 4, 5, 8, 10]
    at_5_s = predictions.select(predictions.duration_s == 5)
    tests = [load_subsets(DataConfig(databases=("synthetic",), split="synthetic-v1", fold=k)).test for k in (0, 1)]
    assert len(at_5_s) == sum(map(len, tests))
    for fold, test in enumerate(tests):
        assert set(at_5_s.patient[at_5_s.fold == fold]) == set(test.patient)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["synthetic"] is True
    assert "not a claim of conformity" in (tmp_path / "report.md").read_text(encoding="utf-8").lower()


def test_validate_refuses_patients_that_the_model_has_seen(run_folder: Path) -> None:
    """Evaluating on all synthetic windows would test the model on its own training patients."""
    bundle = load_bundle(run_folder / "fold-0" / "bundle")
    with pytest.raises(ValueError, match=r"selected with the patients .*synthetic/p0"):
        EvaluationSet((bundle,), ("synthetic",)).predictions([5.0])


def test_prediction_is_the_keras_models(run_folder: Path) -> None:
    """The LiteRT model that is evaluated predicts as the trained Keras model."""
    bundle = load_bundle(run_folder / "fold-0" / "bundle")
    found = EvaluationSet((bundle,)).predictions([5.0])
    test = load_subsets(DataConfig(databases=("synthetic",), split="synthetic-v1", fold=0)).test
    expected = np.asarray(bundle.load_keras()(test.ecg[..., np.newaxis]))[:, 0]
    np.testing.assert_allclose(found.probability, expected, atol=1e-6)
    np.testing.assert_array_equal(found.shock, expected >= 0.5)


def test_bundles_that_cannot_be_pooled_are_refused(run_folder: Path, tmp_path: Path) -> None:
    """Two models of one fold are refused, which would count its patients twice."""
    for name in ("fold-0", "fold-7"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bundle").symlink_to(run_folder / "fold-0" / "bundle", target_is_directory=True)
    with pytest.raises(ValueError, match=r"folds \[0, 0\]"):
        find_bundles(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no bundle"):
        find_bundles(tmp_path / "empty")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold", "9"], "has the folds 0 to 4"),
        (["--fold", "one"], "fold"),
        (["--filters", "20,x"], "'20,x' is not a list of whole numbers"),
        (["--filters", "4,4,4"], "differ in length"),
        (["--sampler", "magic"], "magic"),
        (["--like", "nowhere"], "is not a bundle"),
    ],
)
def test_wrong_options_are_one_line(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what is wrong, and nothing is trained."""
    monkeypatch.setenv("ECG_SHOCK_CACHE", str(tmp_path / "cache"))
    done = CliRunner().invoke(app, ["train", *RUN, *options, "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert message in done.output
    assert not list((tmp_path / "run").glob("fold-*"))


def test_card_says_whether_test_patients_had_a_part_in_the_choice(run_folder: Path, tmp_path: Path) -> None:
    """Fold 1 tests patients that took part in the choice of a network on fold 0, and the card says so."""
    like = run_folder / "fold-0" / "bundle"
    given = load_bundle(like)
    assert given.card.selection == "network and training were given, not searched"
    for fold, expected in (("0", "chosen without the test patients"), ("1", "the result is optimistic")):
        done = CliRunner().invoke(app, ["train", "--like", str(like), "--fold", fold, "--out", str(tmp_path)])
        assert done.exit_code == 0, done.output
        card = load_bundle(tmp_path / f"fold-{fold}" / "bundle").card
        assert expected in card.selection
    shared = len({*given.card.patients.train, *given.card.patients.validation} & {*card.patients.test})
    assert shared > 0
    assert f"on {shared} of this fold's {len(card.patients.test)} test patients" in card.selection


def test_synthetic_patients_are_not_counted_with_real_ones(tmp_path: Path) -> None:
    """A subset of real and synthetic windows names its real patients only; one of synthetic windows names those."""
    subsets = load_subsets(DataConfig(databases=("synthetic",), split="synthetic-v1"))
    assert patients(subsets.train) == sorted(set(subsets.train.patient))
    mixed = dataclasses.replace(
        subsets.train, database=np.where(np.arange(len(subsets.train)) < 5, "vfdb", "synthetic")
    )
    assert patients(mixed) == sorted(set(subsets.train.patient[:5]))


def test_test_results_can_be_recorded_on_the_card(run_folder: Path, tmp_path: Path) -> None:
    """--record adds the figures of the report to the card and leaves the model as it is."""
    folder = tmp_path / "bundle"
    shutil.copytree(run_folder / "fold-1" / "bundle", folder)
    before = load_bundle(folder)
    done = CliRunner().invoke(app, ["validate", str(folder), "--record", "--out", str(tmp_path / "report")])
    assert done.exit_code == 0, done.output
    after = load_bundle(folder)
    assert after.digests == before.digests
    assert {key: value for key, value in after.raw_card.items() if key != "test"} == before.raw_card
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    at_5_s = next(p for p in report["performances"] if p["duration_s"] == 5)
    for rate in (at_5_s["sensitivity"], at_5_s["specificity"]):
        assert f"({rate['count']}/{rate['windows']} windows, {rate['patients']} patients" in after.card.test["5 s"]
    assert "## test" in (folder / "CARD.md").read_text(encoding="utf-8")
    refused = CliRunner().invoke(app, ["validate", str(run_folder), "--record", "--out", str(tmp_path / "no")])
    assert refused.exit_code == 1
    assert "one bundle" in refused.output
