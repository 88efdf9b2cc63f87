"""One command makes the complete report, which agrees with its separately computed parts."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import sys
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner, Result

from ecg_shock.commands.app import app
from ecg_shock.data.datasets import SYNTHETIC_PATIENTS, SYNTHETIC_SEED, DataConfig, load_subsets
from ecg_shock.data.manifests import load_manifest, resource_dir
from ecg_shock.data.recordings import Recording
from ecg_shock.data.splits import load_split
from ecg_shock.data.synthetic import synthetic_recordings
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.baselines import SVM_NAME, baseline_predictions
from ecg_shock.evaluation.detectors import DETECTORS
from ecg_shock.evaluation.evaluation_set import EvaluationSet, Record
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.whole_records import RecordScans
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.models.bundle import TOML_NAME, Bundle, load_bundle
from ecg_shock.report.formats import rounded_down
from ecg_shock.report.gallery import Strip, draw_strip
from ecg_shock.report.review import QUICK
from ecg_shock.rhythms import NONSHOCKABLE, SHOCKABLE

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOSTILE = "<img src=x onerror=alert(1)>"


def validate(*options: str | Path) -> Result:
    """Run the command."""
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["validate", *map(str, options)])
    assert done.exit_code == 0, done.output
    return done


class Tables(HTMLParser):
    """The cells of each table by its caption, and the items of each list of definitions."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.defined: dict[str, str] = {}
        self._rows: list[list[str]] = []
        self._term = ""
        self._text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a row or a text."""
        if tag == "tr":
            self._rows.append([])
        if tag in ("caption", "th", "td", "dt", "dd"):
            self._text = ""

    def handle_data(self, data: str) -> None:
        """Add to the text."""
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        """Keep what has ended."""
        if tag == "caption":
            self._rows = self.tables[self._text.strip()] = []
        elif tag in ("th", "td"):
            self._rows[-1].append(self._text.strip())
        elif tag == "dt":
            self._term = self._text.strip()
        elif tag == "dd":
            self.defined[self._term] = self._text.strip()


def bundle_of(folder: Path, data: DataConfig, name: str = "synthetic") -> Path:
    """Copy the pretrained model with a card that names other training data."""
    shutil.copytree(DEFAULT_BUNDLE, folder)
    content = tomllib.loads((folder / TOML_NAME).read_text(encoding="utf-8"))
    fold = load_split(data.split)[data.fold]
    content["card"]["name"] = name
    content["card"]["data"] = data.model_dump(mode="json", exclude_none=True)
    content["card"]["patients"] = {subset: sorted(getattr(fold, subset)) for subset in ("train", "validation", "test")}
    (folder / TOML_NAME).write_text(tomli_w.dumps(content), encoding="utf-8")
    return folder


def drawn(ecg: np.ndarray, fs: float, start_s: float, window: tuple[float, float]) -> list[str]:
    """Return the traces that samples make on paper."""
    return [
        re.findall(r'd="([^"]*)" class="trace"', str(row))[0] for row in draw_strip(Strip(ecg, fs, start_s), window)
    ]


def wrong(predictions: Predictions) -> np.ndarray:
    """Find the windows with wrong advice, 5 s long."""
    missed = np.isin(predictions.aha_class, SHOCKABLE) & ~predictions.shock
    false = np.isin(predictions.aha_class, NONSHOCKABLE) & predictions.shock
    return np.flatnonzero((missed | false) & (predictions.duration_s == 5.0))


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the whole command on the synthetic test patients, where no noise is recorded."""
    folder = bundle_of(tmp_path_factory.mktemp("model") / "bundle", DataConfig(databases=("synthetic",)), HOSTILE)
    validate(folder, "--data", folder, "--out", folder / "review")
    return folder / "review"


@pytest.fixture
def page(review: Path) -> str:
    """Read the page."""
    return (review / "report.html").read_text(encoding="utf-8")


def test_everything_is_written_and_nothing_is_loaded(review: Path, page: str) -> None:
    """Four files, of which the page needs no other; the model's name is text."""
    assert sorted(p.name for p in review.iterdir()) == ["predictions.csv", "report.html", "report.json", "report.md"]
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href|action)="(?!#|data:)', page)
    assert not re.search(r"url\((?!#)|@import", page)
    assert HOSTILE not in page
    assert "&lt;img src=x" in page
    assert page.count("<script") == 1


def test_gallery_holds_the_samples_of_every_error(review: Path, page: str) -> None:
    """The trace of each wrong window is drawn from the recording's own samples, a second around it."""
    predictions = Predictions.read_csv(review / "predictions.csv")
    rows = wrong(predictions)
    assert len(rows) == page.count('<li data-kind="') > 3
    recordings = {r.name: r for r in synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED)}
    for row in rows:
        recording: Recording = recordings[str(predictions.record[row])]
        start_s = float(predictions.start_s[row])
        first, last = max(round((start_s - 1) * 250), 0), round((start_s - 1) * 250) + 7 * 250
        for trace in drawn(recording.signal[first:last, 0], 250.0, first / 250, (start_s, start_s + 5)):
            assert f'd="{trace}"' in page
    assert page.count('class="probability"') >= len(rows)


def test_baselines_are_fitted_on_training_patients(review: Path, page: str) -> None:
    """Each detector is in the tables with the proportions of a separate fit, and the differences."""
    subsets = load_subsets(DataConfig(databases=("synthetic",)))
    others = baseline_predictions(subsets.train, subsets.test, 0)
    tables = Tables(page).tables
    observed = {name: cells for name, *cells in tables["Observed, and lower limit by patient"][1:]}
    less = {name: cells for name, *cells in tables["This algorithm minus the other, with limits"][1:]}
    names = [detector.name for detector in DETECTORS]
    assert list(observed) == ["this algorithm", *names, SVM_NAME]
    assert list(less) == [*names, SVM_NAME]
    mine = Predictions.read_csv(review / "predictions.csv")
    mine = mine.select(mine.duration_s == 5.0)
    for name, other in others.items():
        shockable, nonshockable = (np.isin(other.aha_class, classes) for classes in (SHOCKABLE, NONSHOCKABLE))
        se, sp = other.shock[shockable].mean(), 1 - other.shock[nonshockable].mean()
        assert float(observed[name][0].split("(")[0]) == pytest.approx(100 * se, abs=0.1)
        assert float(observed[name][1].split("(")[0]) == pytest.approx(100 * sp, abs=0.1)
        gain = mine.shock[np.isin(mine.aha_class, SHOCKABLE)].mean() - se
        assert float(less[name][0].split("(")[0].replace("−", "-")) == pytest.approx(100 * gain, abs=0.06)
    assert "Published thresholds are not used" in page


def test_stress_is_of_a_stated_part(page: str) -> None:
    """Without nstdb there is no recorded noise, which the report says; other stresses have the stated windows."""
    assert "The stress tests have no recorded noise, because nstdb was not found." in page
    rows = Tables(page).tables["Stress tests"][1:]
    assert not {"baseline wander", "electrode motion", "muscle noise"} & {row[0] for row in rows}
    assert {"none", "chest compressions (model)", "missing samples"} <= {row[0] for row in rows}
    stated = re.search(r"(\d+) of \d+ windows of 5 s were drawn at random: at most \d of each patient", page)
    assert stated is not None
    for row in rows:
        assert int(row[2].split("/")[1]) + int(row[5].split("/")[1]) == int(stated[1])


def test_responses_are_those_of_the_test_patients(page: str) -> None:
    """The section names the model and its patients, and has a table of all patterns."""
    assert '<section id="responses">' in page
    section = page.partition('<section id="responses">')[2].partition("</section>")[0]
    assert "test patients" in section
    assert "Most dangerous habits" in section
    assert section.count("chest compressions, 1 mV") >= 3  # a row for each kind of background


def test_seconds_left_out_add_up(review: Path, page: str) -> None:
    """Windows and excluded segments add up to the recordings of the test patients."""
    predictions = Predictions.read_csv(review / "predictions.csv")
    in_windows = 5.0 * (predictions.duration_s == 5.0).sum()
    tested = load_split("synthetic-v1")[0].test
    recorded = sum(
        r.duration_s for r in synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED) if r.patient in tested
    )
    total = Tables(page).tables["Excluded seconds"][-1]
    assert float(total[-1]) == pytest.approx(recorded - in_windows, abs=0.5)


def test_whole_records_are_those_of_the_test_patients(review: Path, page: str) -> None:
    """The JSON holds what scans of the same patients give, and the page their sums."""
    evaluation = EvaluationSet((load_bundle(review.parent),))
    scans = RecordScans(evaluation)
    for recording in evaluation.recordings(scans.records):
        scans.add(recording)
    found = scans.figures()
    document = json.loads((review / "report.json").read_text(encoding="utf-8"))["whole_records"]
    assert document == json.loads(json.dumps(asdict(found)))
    assert {record["patient"] for record in document["records"]} == load_split("synthetic-v1")[0].test
    tables = Tables(page).tables
    at = "{k} of {n}".format(**document["choices"][0]["rule"])
    rows = tables[f"Whole records: false alarms in nonshockable time, alarm at {at} windows"]
    false = sum(len(record["false_alarms"]) for record in document["records"])
    assert [row[3] for row in rows[1:]] == [str(false)] * 2 + [str(found.fixed.false_alarms)]
    assert len(tables.get("False alarms", [[]])) - 1 == false
    assert "Whole records: other alarm rules" in (review / "report.md").read_text(encoding="utf-8")


def test_provenance_is_what_lies_there(review: Path, page: str) -> None:
    """The digest is that of the file, the command is the one that was typed, and data and settings are named."""
    defined = Tables(page).defined
    digest = hashlib.sha256((review / "predictions.csv").read_bytes()).hexdigest()
    assert defined["predictions.csv"] == f"SHA-256 {digest}"
    model = review.parent
    assert f"ecg-shock validate {model} --out {review} --data {model}" in page
    assert defined["synthetic"] == f"synthetic signals: {SYNTHETIC_PATIENTS} patients, seed {SYNTHETIC_SEED}"
    assert (defined["databases"], defined["folds"], defined["labels.coarse_vf_mv"]) == ("synthetic", "0", "0.2")
    assert defined["patient bootstrap"] == "0, 2000 resamples"
    assert defined["numpy"] == np.__version__
    assert {"scikit-learn", "ai-edge-litert", "commit", "count2"} <= defined.keys()


def test_quick_leaves_out_and_says_so(tmp_path: Path) -> None:
    """The quick report has the gallery only, and two runs write equal files."""
    model = bundle_of(tmp_path / "bundle", DataConfig(databases=("synthetic",)))
    validate(model, "--quick")
    page = (model / "validation" / "report.html").read_text(encoding="utf-8")
    assert QUICK in page
    assert 'id="responses"' not in page
    assert 'id="whole"' not in page
    assert 'id="baselines"' not in page
    assert 'id="stress"' not in page
    assert 'id="gallery"' in page
    validate(model, "--quick")
    assert (model / "validation" / "report.html").read_text(encoding="utf-8") == page


def test_each_recording_is_read_once_and_held_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each recording of test and validation patients is read once."""
    read: list[str] = []
    alive: list[weakref.ref[Recording]] = []

    def counted(self: EvaluationSet, records: Iterable[Record]) -> Iterator[Recording]:
        names = {record.name for record in records}
        for recording in synthetic_recordings(SYNTHETIC_PATIENTS, SYNTHETIC_SEED):
            if recording.name in names:
                assert sum(one() is not None for one in alive) <= 1
                read.append(recording.patient)
                alive.append(weakref.ref(recording))
                yield recording

    monkeypatch.setattr(EvaluationSet, "recordings", counted)
    validate(bundle_of(tmp_path / "bundle", DataConfig(databases=("synthetic",))), "--data", tmp_path)
    fold = load_split("synthetic-v1")[0]
    assert len(read) == len(set(read))
    assert set(read) == fold.test | fold.validation


def test_missing_recordings_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where windows come from the cache and their recordings are gone, the report is made without what needs them."""

    def gone(*_: object) -> Iterator[Recording]:
        raise FileNotFoundError("gone")

    monkeypatch.setattr(EvaluationSet, "recordings", gone)
    model = bundle_of(tmp_path / "bundle", DataConfig(databases=("synthetic",)))
    validate(model, "--data", tmp_path)
    page = (model / "validation" / "report.html").read_text(encoding="utf-8")
    assert "The recordings were not found, so the ECG of the errors is not shown." in page
    assert "The recordings were not found, so there is no stress test." in page
    assert "The recordings were not found, so whole records were not scanned." in page
    assert 'id="whole"' not in page
    assert 'id="gallery"' not in page
    assert 'id="stress"' not in page
    assert 'id="baselines"' in page


def test_folds_are_pooled(tmp_path: Path) -> None:
    """Baselines of two folds are evaluated on the windows of both, and stress is said to be of the first."""
    for fold in (0, 1):
        bundle_of(tmp_path / f"fold-{fold}" / "bundle", DataConfig(databases=("synthetic",), fold=fold))
    validate(tmp_path, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    predictions = Predictions.read_csv(tmp_path / "out" / "predictions.csv")
    assert set(predictions.fold.tolist()) == {0, 1}
    assert page.count('<li data-kind="') == len(wrong(predictions))
    assert "was evaluated on other windows" not in page
    assert "windows of 5 s of fold 0, with its model only, were drawn" in page
    split = load_split("synthetic-v1")
    assert [row[0] for row in Tables(page).tables["By fold, windows of 5 s"][1:]] == ["0", "1", "all"]
    validate(tmp_path, "--quick", "--folds", "1")
    one = Predictions.read_csv(tmp_path / "validation-folds-1" / "predictions.csv")
    assert one.record.tolist() == predictions.record[predictions.fold == 1].tolist()
    refused = CliRunner().invoke(app, ["validate", str(tmp_path), "--folds", "1,2"])
    assert "--folds is '1,2', but the model has the folds 0, 1; choose from these." in refused.output
    both = EvaluationSet(tuple(load_bundle(tmp_path / f"fold-{fold}" / "bundle") for fold in (0, 1)))
    records = {f"synthetic/{entry.record}" for entry in both.excluded(5.0)}
    assert records == split[0].test | split[1].test


def test_both_label_policies_side_by_side(tmp_path: Path) -> None:
    """Terminal, page, card and JSON show the results under both; each file of predictions reproduces one of them."""
    rules = LabelPolicy(slow_vf_bpm=400.0, slow_vf_periodicity=0.25, vt_amplitude_ratio=1.001)
    model = bundle_of(tmp_path / "bundle", DataConfig(databases=("synthetic",), labels=rules))
    done = validate(model, "--quick", "--record", "--out", tmp_path / "out")
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    page, markdown, report = (
        (tmp_path / "out" / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md", "json")
    )
    document = json.loads(report)
    results = {"predictions.csv": document, "predictions-default-labels.csv": document["default_labels"]}
    cells = []
    for name, result in results.items():
        validate("--predictions", tmp_path / "out" / name, "--out", tmp_path / "again")
        again = json.loads((tmp_path / "again" / "report.json").read_text(encoding="utf-8"))
        assert again["performances"] == result["performances"]
        se = next(at for at in again["performances"] if at["duration_s"] == 5.0)["sensitivity"]
        cells += [str(se["patients"]), rounded_down(se["observed"]), rounded_down(se["patient_limit"])]
    assert cells[:3] != cells[3:]
    title = "The model's own labels and the default labels (limits by patient)"
    assert ["5 s", "Se", *cells] in Tables(page).tables[title]
    assert page.index(title.partition("own")[2]) < page.index("AHA classes, windows of 5 s")
    assert ["5", "s", "Se", *cells] in [line.split() for line in done.stdout.splitlines()]
    assert " ".join(["Se", *cells]) in " ".join(markdown.replace("|", " ").split())

    moved = [row for row in document["default_labels"]["set_apart"] if row["duration_s"] == 5.0]
    assert {row["aha_class"] for row in moved} == {"slow_vf", "excluded"}
    rows = Tables(page).tables["Windows of 5 s of another class than by default"][1:]
    assert sum(int(row[4]) for row in rows) == sum(row["windows"] for row in moved) > 0
    assert sum(int(row[5]) for row in rows) == sum(row["shocks"] for row in moved)
    by_patient = Tables(page).tables["Windows of 5 s of another class than by default, by patient"][1:]
    assert [row[0] for row in by_patient] == sorted(row["patient"] for row in moved)
    assert "slow_vf_bpm 400 (default 0), slow_vf_periodicity 0.25 (default 0.6)" in page[: page.index("<table")]
    card = load_bundle(model).card.test
    assert card is not None
    assert {"5 s", "5 s, default labels", "5 s, other class"} <= card.keys()
    assert f"Se {cells[1]} " in card["5 s"]
    assert f"Se {cells[4]} " in card["5 s, default labels"]


def test_default_labels_are_evaluated_once(review: Path, page: str) -> None:
    """A model with the default labels has no second evaluation."""
    assert json.loads((review / "report.json").read_text(encoding="utf-8"))["default_labels"] is None
    for text in (page, (review / "report.md").read_text(encoding="utf-8")):
        assert "default labels" not in text.lower()
        assert "another class than by default" not in text


def test_decisions_alone(tmp_path: Path) -> None:
    """A file of decisions with hostile names makes a page without curves, which says what it lacks."""
    path = tmp_path / "other.csv"
    lines = ["record,patient,start_s,duration_s,aha_class,shock"]
    for i in range(60):
        shock = (i % 2 == 0) != (i % 7 == 0)
        lines.append(f"r{i},{HOSTILE}{i % 9},{5 * i},5,{'normal_sinus' if i % 2 else 'coarse_vf'},{shock:d}")
    path.write_text("\n".join(lines), encoding="utf-8")
    validate("--predictions", path, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;3" in page
    assert "There are no ROC and reliability curves" in page
    assert "A file of predictions contains no recordings" in page
    assert 'id="curves"' not in page
    assert Tables(page).defined["other.csv"] == f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))["source"].startswith("other.csv")


@pytest.mark.recordings
def test_real_records(
    fold_bundle: Bundle, tmp_path: Path, recordings_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two records of cudb that the model has not seen: samples as wfdb reads them, seconds, and digests."""
    import wfdb

    monkeypatch.setenv("ECG_SHOCK_CACHE", str(tmp_path / "cache"))
    records = ("cu03", "cu30")
    content = tomllib.loads((resource_dir("data_manifests") / "cudb.toml").read_text(encoding="utf-8"))
    content["files"] = {name: entry for name, entry in content["files"].items() if name.split(".")[0] in records}
    content["patients"] = {}
    manifest = tmp_path / "two.toml"
    manifest.write_text(tomli_w.dumps(content), encoding="utf-8")
    out = tmp_path / "out"
    validate(fold_bundle.folder, "--databases", manifest, "--quick", "--data", recordings_dir, "--out", out)
    page = (out / "report.html").read_text(encoding="utf-8")
    predictions = Predictions.read_csv(out / "predictions.csv")
    assert set(predictions.record.tolist()) == set(records)
    signals = {name: wfdb.rdrecord(str(recordings_dir / "cudb" / name)).p_signal[:, 0] for name in records}
    rows = wrong(predictions)
    assert len(rows) == page.count('<li data-kind="') > 50
    for row in rows:
        start_s, signal = float(predictions.start_s[row]), signals[str(predictions.record[row])].astype(np.float32)
        first, last = max(round((start_s - 1) * 250), 0), round((start_s - 1) * 250) + 7 * 250
        for trace in drawn(signal[first:last], 250.0, first / 250, (start_s, start_s + 5)):
            assert f'd="{trace}"' in page
    seconds: dict[str, float] = defaultdict(float)
    with (out / "predictions.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            seconds[line["duration_s"]] += float(line["duration_s"])
    tables = Tables(page)
    total = sum(len(signal) / 250 for signal in signals.values())
    assert float(tables.tables["Excluded seconds"][-1][-1]) == pytest.approx(total - seconds["5.0"], abs=0.5)
    lines = sorted(
        f"{name} {entry.bytes} {entry.sha256 or entry.samples_sha256}\n"
        for name, entry in load_manifest(manifest).files.items()
    )
    listed = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert listed in tables.defined["cudb"]
    assert "version 1.0.0, doi:10.13026/C2X59M; 6 files" in tables.defined["cudb"]
