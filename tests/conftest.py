"""Fixtures that several test modules share."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import wfdb

from ecg_shock.data.datasets import DataConfig
from ecg_shock.data.splits import load_split
from ecg_shock.data.windows import LabelPolicy
from ecg_shock.evaluation.events import FalseAlarm, RecordEvents
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.reference import ReferenceEvent
from ecg_shock.inference.advisor import DEFAULT_BUNDLE
from ecg_shock.models.bundle import TOML_NAME, Bundle, load_bundle
from ecg_shock.rhythms import RHYTHMS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPLIT = {"vf": "fine_vf", "vt": "other_vt"}


def _find_recordings() -> Path | None:
    beside_checkout = Path(__file__).resolve().parents[2] / "shared" / "data"
    candidates = [os.environ.get("ECG_SHOCK_DATA"), beside_checkout]
    return next((Path(c) for c in candidates if c and (Path(c) / "vfdb").is_dir()), None)


@pytest.fixture(scope="session")
def recordings_dir() -> Path:
    """Folder with the real recordings: vfdb/, cudb/, mitdb/, nstdb/."""
    folder = _find_recordings()
    if folder is None:
        pytest.skip("the real recordings are missing: set ECG_SHOCK_DATA, or run `ecg-shock fetch vfdb cudb mitdb`")
    return folder


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep prepared windows out of the user's cache, in one folder for all tests and all their processes."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # each worker has a folder of its own in it
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECG_SHOCK_CACHE", str(folder / "session-cache"))
        yield folder / "session-cache"


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20201031)


@pytest.fixture
def make_predictions(rng: np.random.Generator) -> Callable[..., Predictions]:
    """Build predictions of `n` windows from random patients, rhythms and advice, a fifth of it wrong."""

    def make(n: int, duration_s: float = 5.0, databases: tuple[str, ...] = ("cudb", "vfdb")) -> Predictions:
        patient = rng.integers(0, 20, n)
        database = np.array(databases)[patient % len(databases)]
        rhythm = rng.choice(list(RHYTHMS), n)
        aha_class = np.array([SPLIT[r] if r in SPLIT and rng.random() < 0.3 else RHYTHMS[r] for r in rhythm], dtype=str)
        probability = np.where(np.isin(rhythm, ["vf", "vt"]), 0.9, 0.1)
        probability = np.where(rng.random(n) < 0.2, rng.random(n), probability)
        return Predictions(
            database=database,
            record=np.array([f"r{p}" for p in patient], dtype=str),
            lead=np.full(n, "ECG"),
            patient=np.array([f"{d}/r{p}" for d, p in zip(database, patient, strict=True)], dtype=str),
            start_s=np.arange(n) * duration_s + 1 / 3,
            duration_s=np.full(n, duration_s),
            rhythm=rhythm,
            aha_class=aha_class,
            probability=probability,
            shock=probability > 0.5,
            fold=patient % 5,
        )

    return make


@pytest.fixture
def fold_bundle() -> Bundle:
    """Return the model of fold 0 of public-v1, which has test patients; the pretrained model has none."""
    return load_bundle(Path(__file__).parents[1] / "tuning/results/headline/bundles/fold-0/bundle")


@pytest.fixture
def synthetic_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundle]:
    """Let the model that comes with the package say that it was trained on a fold of the synthetic patients."""

    def make(fold: int = 0, labels: LabelPolicy | None = None) -> Bundle:
        folder = tmp_path_factory.mktemp("synthetic") / "bundle"
        shutil.copytree(DEFAULT_BUNDLE, folder)
        content = tomllib.loads((folder / TOML_NAME).read_text(encoding="utf-8"))
        data = DataConfig(databases=("synthetic",), fold=fold, labels=labels or LabelPolicy())
        patients = load_split(data.split)[fold]
        content["card"]["data"] = data.model_dump(mode="json", exclude_none=True)
        content["card"]["patients"] = {
            subset: sorted(getattr(patients, subset)) for subset in ("train", "validation", "test")
        }
        (folder / TOML_NAME).write_text(tomli_w.dumps(content), encoding="utf-8")
        return load_bundle(folder)

    return make


@pytest.fixture
def record_events() -> Callable[..., RecordEvents]:
    """Make the counts of a record: events by length and delay, false alarms, and hours of nonshockable time."""

    def make(
        patient: str, lengths: Sequence[tuple[float, float | None]], false: int = 0, hours: float = 1.0
    ) -> RecordEvents:
        events = tuple(
            ReferenceEvent(100.0 * i, 100.0 * i + length, "vf", delay is not None, delay, True)
            for i, (length, delay) in enumerate(lengths, 1)
        )
        return RecordEvents(
            database=patient.split("/")[0], record=patient, patient=patient, duration_s=7200.0, windows=100, unusable=5,
            shockable_s=100.0, intermediate_s=0.0, nonshockable_s=3600.0 * hours, uncounted_s=0.0, found_s=80.0,
            wrong_s=20.0, true_alarms=len(lengths), other_alarms=0, events=events,
            false_alarms=tuple(FalseAlarm(0.0, 5.0, 5.0, 0.9, "paced", None, i == 0, i == 1) for i in range(false)),
        )  # fmt: skip

    return make


@pytest.fixture
def own_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write twelve records of one's own, two of one patient, in sinus rhythm and one in VT, and their manifest."""
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.setenv("ECG_SHOCK_DATA", str(folder.parent))
    labels, files = [], []
    for number in range(12):
        bpm, name = (200 if number == 3 else 60 + number), f"r{number}"
        phase = np.arange(5000) / 250 * bpm / 60 % 1
        wave = np.exp(-(((phase - 0.5) * 60 / bpm / 0.03) ** 2))
        wfdb.wrsamp(
            name, fs=250, units=["mV"], sig_name=["II"], p_signal=wave[:, None], fmt=["16"], write_dir=str(folder)
        )
        labels.append(f'{name} = "{"(VT" if number == 3 else "(N"}"')
        for path in (folder / f"{name}.hea", folder / f"{name}.dat"):
            content = path.read_bytes()
            files.append(
                f'"{path.name}" = {{ bytes = {len(content)}, sha256 = "{hashlib.sha256(content).hexdigest()}" }}'
            )
    manifest = tmp_path / "mine.toml"
    manifest.write_text(
        'name = "mine"\ntitle = ""\nversion = "7"\nlicence = ""\ncitation = ""\n'
        '[rhythm_codes]\n"(N" = "normal_sinus"\n"(VT" = "vt"\n[patients]\nr2 = "r1"\nr5 = "else/where"\n'
        "[record_labels]\n" + "\n".join(labels) + "\n[files]\n" + "\n".join(files) + "\n"
    )
    return manifest


@pytest.fixture
def copied_database(own_manifest: Path) -> Callable[[str, Sequence[int]], Path]:
    """Copy records of `own_manifest` to a database of another name, as other records of other patients."""
    content = tomllib.loads(own_manifest.read_text(encoding="utf-8"))

    def copy(name: str, numbers: Sequence[int]) -> Path:
        mine = own_manifest.parent / "data" / "mine"
        folder, files = mine.with_name(name), {}
        folder.mkdir()
        for number in numbers:
            header = (mine / f"r{number}.hea").read_text().replace(f"r{number}", f"x{number}").encode()
            for file, data in ((f"x{number}.hea", header), (f"x{number}.dat", (mine / f"r{number}.dat").read_bytes())):
                (folder / file).write_bytes(data)
                files[file] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        labels = {f"x{number}": "(N" for number in numbers}
        changes = {"name": name, "patients": {}, "record_labels": labels, "files": files}
        path = own_manifest.with_name(f"{name}.toml")
        path.write_text(tomli_w.dumps({**content, **changes}), encoding="utf-8")
        return path

    return copy
