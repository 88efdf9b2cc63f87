"""`ecg-shock export` writes what `ecg_shock.export.export` exports, and shows how the export does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ecg_shock.commands.app import app
from ecg_shock.data.datasets import DataConfig, load_subsets
from ecg_shock.export import export as library
from ecg_shock.export.export import ExportResult
from ecg_shock.export.rescoring import Flip, Rescoring
from ecg_shock.export.sidecar import check_export
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import Bundle, load_bundle, write_bundle

# TensorFlow's converter warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def run(*options: str | Path) -> Result:
    """Run the command on a terminal of 80 columns."""
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["export", *map(str, options)])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Write an untrained bundle that says it was trained on synthetic recordings."""
    spec = CnnSpec(filters=(4,), kernels=(10,), input_samples=250)
    config = DataConfig(databases=("synthetic",), window_s=2.0)
    subsets = load_subsets(config)
    card = {
        "name": "tiny",
        "data": config.model_dump(mode="json", exclude_none=True),
        "training": {},
        "patients": {
            subset: sorted(set(getattr(subsets, subset).patient.tolist())) for subset in ("train", "validation", "test")
        },
    }
    folder = tmp_path_factory.mktemp("tiny") / "a [b]"
    return write_bundle(
        folder, build_model(spec), spec=spec, preprocessing=config.preprocessing, threshold=0.5, card=card
    )


def test_files_and_figures_are_those_of_the_export(bundle: Bundle, tmp_path: Path) -> None:
    """Model and folder reach the exporter: the files pass their check, and the terminal shows what the sidecar says."""
    out = tmp_path / "x [y]"
    done = run(bundle.folder, "--to", "litert", "--out", out)
    assert done.exit_code == 0, done.output
    network, sidecar = out / "ecg_shock.tflite", out / "ecg_shock.tflite.json"
    check_export(network)
    content = json.loads(sidecar.read_text(encoding="utf-8"))
    assert content["bundle"]["sha256"] == bundle.digests
    found = content["rescoring"]
    assert f"validation subset: {found['windows']} windows of {found['patients']} patients" in done.stdout
    lines = {line.split("│")[1].strip(): line.split("│")[2:5] for line in done.stdout.splitlines() if "│" in line}
    for name, key in (("Se %", "sensitivity"), ("Sp %", "specificity")):
        before, after, change = (cell.strip() for cell in lines[name])
        assert (before, after) == (f"{100 * found[key]:.2f}", f"{100 * found[f'exported_{key}']:.2f}")
        assert float(change) == pytest.approx(float(after) - float(before), abs=0.011)
    assert float(lines["largest difference of probability"][2]) == pytest.approx(
        found["largest_probability_difference"], rel=0.1
    )
    for path in (network, sidecar):
        assert f"written: {path} ({path.stat().st_size:,} bytes)" in done.stdout


@pytest.mark.parametrize("count", [0, 3, 10, 12])
def test_changed_decisions_are_listed(
    count: int, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to ten windows are shown by record and start, and the rest counted; each format has its own folder."""
    flips = tuple(Flip("cudb", f"cu{k:02d}", 7.5 + k, "rapid_vt", 0.51, 0.49) for k in range(count))
    asked = []

    def exported(model: Path | None, to: str, folder: Path, **options: object) -> ExportResult:
        asked.append((model, to, folder, options["data"], options["threshold"], options["window_s"], options["fs"]))
        rescoring = Rescoring("validation", 2000, 20, 0.95, 0.98, 0.953, 0.9785, 0.125, 1.5, flips)
        return ExportResult(bundle, (bundle.folder / "model.tflite", bundle.folder / "CARD.md"), rescoring)

    monkeypatch.setattr(library, "export", exported)
    wanted = ("--threshold", "0.7", "--window", "3", "--fs", "300")
    done = run("--to", "litert-int8", "--data", tmp_path, *wanted)
    assert done.exit_code == 0, done.output
    assert asked == [(None, "litert-int8", Path("runs/export/litert-int8"), tmp_path, 0.7, 3.0, 300.0)]
    assert "Se and Sp at a threshold of 0.5, in windows of 2 s" in done.stdout  # of the bundle that was returned
    assert done.stdout.count("decision changed: ") == min(count, 10)
    assert ("decision changed: cudb/cu02 at 9.5 s, rapid_vt, probability 0.510 became 0.490" in done.stdout) == (
        count > 2
    )
    assert ("and 2 more; all are in CARD.md" in done.stdout) == (count == 12)
    text = " ".join(done.stdout.split())
    assert "│ Se % │ 95.00 │ 95.30 │ +0.30 │" in text
    assert "│ Sp % │ 98.00 │ 97.85 │ -0.15 │" in text
    assert f"│ decisions changed │ │ {count} │ {count / 20:.2f} % │" in text


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--to", "tflite"), 1, "to='tflite' is unknown; choose one of litert, litert-int8, onnx"),
        (("nowhere", "--to", "litert"), 1, "nowhere is not a bundle"),
        ((), 2, "Missing option '--to'"),
    ],
)
def test_wrong_request_is_an_error(options: tuple[str, ...], code: int, message: str, tmp_path: Path) -> None:
    """Errors are one line that says what is allowed, and no folder is made."""
    done = run(*options, "--out", tmp_path / "out")
    assert done.exit_code == code
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_folder_that_is_a_file_is_an_error(bundle: Bundle, tmp_path: Path) -> None:
    """A file in the place of the folder stays as it is."""
    (tmp_path / "out").write_text("mine")
    done = run(bundle.folder, "--to", "litert", "--out", tmp_path / "out")
    assert (done.exit_code, done.stderr[:7]) == (1, "error: ")
    assert (tmp_path / "out").read_text() == "mine"


def test_bundle_is_left_alone(bundle: Bundle, tmp_path: Path) -> None:
    """An export into the bundle's own folder leaves the bundle whole."""
    before = bundle.read_litert()
    done = run(bundle.folder, "--to", "litert", "--out", bundle.folder)
    assert done.exit_code == 0, done.output
    assert load_bundle(bundle.folder) == bundle
    assert bundle.read_litert() == before
    assert np.sort([path.name for path in bundle.folder.glob("ecg_shock*")]).tolist() == [
        "ecg_shock.tflite",
        "ecg_shock.tflite.json",
    ]
