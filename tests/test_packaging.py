"""The wheel holds what it needs, and works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from ecg_shock import __version__

CHECKOUT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path, cache: Path | None = None) -> str:
    """Run a command in a folder, without this process's Python settings, and return what it printed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ECG_SHOCK"))}
    if cache is not None:
        env["ECG_SHOCK_CACHE"] = str(cache)
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, without network access."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, CHECKOUT, folder=out)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment that borrows all other packages from this one."""
    root = tmp_path_factory.mktemp("environment")
    venv.create(root, with_pip=True, symlinks=os.name != "nt")
    python = root / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, folder=root)
    # Only now, or pip would see this one's ecg_shock. Of a folder named in a .pth file the .pth files are not read,
    # so the editable install of the checkout stays out.
    borrowed = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=root).strip()
    (Path(packages) / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    return python


def test_wheel_holds_studies_and_manifests_and_no_recording(wheel: Path) -> None:
    """Every tracked file of tuning/ and data_manifests/ and the templates are in it byte for byte, and the model."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    for folder in ("tuning", "data_manifests"):
        files = list((CHECKOUT / folder).rglob("*.toml"))
        assert files
        for file in files:
            name = f"ecg_shock/_resources/{file.relative_to(CHECKOUT).as_posix()}"
            assert held[name] == file.read_bytes()
    expected = {f"ecg_shock/pretrained/{name}" for name in ("bundle.toml", "model.tflite", "model.keras", "CARD.md")}
    assert expected <= held.keys()
    for file in (CHECKOUT / "ecg_shock/report/templates").iterdir():
        assert held[file.relative_to(CHECKOUT).as_posix()] == file.read_bytes()
    assert {"ecg_shock/py.typed", "ecg_shock/__main__.py"} <= held.keys()
    assert not [name for name in held if name.endswith((".dat", ".atr", ".hea", ".edf", ".pyc"))]
    assert {name.split("/")[0] for name in held} == {"ecg_shock", f"ecg_shock-{__version__}.dist-info"}


def test_import_is_light(python: Path, tmp_path: Path) -> None:
    """`import ecg_shock` finds the installed package, and loads nothing that takes seconds."""
    heavy = ("tensorflow", "keras", "scipy.signal", "matplotlib", "wfdb")
    code = f"import sys, ecg_shock; print(ecg_shock.__file__, *(name for name in {heavy!r} if name in sys.modules))"
    (path,) = run(python, "-c", code, folder=tmp_path).split()
    assert Path(path).is_relative_to(python.parents[1])


def test_installed_package_predicts(python: Path, tmp_path: Path) -> None:
    """`predict` works from another folder with the model of the wheel, and without TensorFlow."""
    code = (
        "import sys, numpy as np, ecg_shock\n"
        "seconds = np.arange(1250) / 250\n"
        "advice = ecg_shock.predict(0.8 * np.sin(2 * np.pi * 5 * seconds) * (1 + 0.3 * np.sin(3 * seconds)), fs=250)\n"
        "print(advice.usable, 0 <= advice.probability <= 1, 'tensorflow' in sys.modules)"
    )
    assert run(python, "-c", code, folder=tmp_path).split() == ["True", "True", "False"]
    (tmp_path / "flat.csv").write_text("0.0\n" * 1250)
    command = (python.parent / "ecg-shock", "predict", "flat.csv", "--fs", "250", "--units", "mV")
    assert run(*command, folder=tmp_path).startswith("UNUSABLE: flat")


def test_installed_package_runs_a_study(python: Path, tmp_path: Path) -> None:
    """The embedded study runs from another folder, in a small edition, up to a bundle that gives advice."""
    options = ("--trials", "1", "--epochs", "1", "--seeds", "1", "--out", "run")
    printed = run(python, "-m", "ecg_shock.tune", "quickstart", *options, folder=tmp_path, cache=tmp_path / "cache")
    assert "synthetic" in printed
    code = "import ecg_shock, numpy as np; print(ecg_shock.predict(np.zeros(625), model='run/bundle').reason)"
    assert run(python, "-c", code, folder=tmp_path).startswith("flat")
