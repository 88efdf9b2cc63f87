"""The package's face: what stands there, that it is documented, and that it runs from another folder."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import ecg_shock

FACE = {
    *("Advice", "Advisor", "Episode", "Predictions", "Preprocessing", "Recording", "Validation"),
    *("predict", "predict_many", "compare_predictions", "read_record", "validate"),
}


def test_face_is_what_it_says() -> None:
    """`__all__` holds the promised names, sorted, and each of them is there."""
    assert set(ecg_shock.__all__) >= FACE
    assert list(ecg_shock.__all__) == sorted(ecg_shock.__all__)
    assert all(hasattr(ecg_shock, name) for name in ecg_shock.__all__)
    assert ecg_shock.__version__ == version("ecg-shock")


@pytest.mark.parametrize("name", sorted(FACE))
def test_face_is_documented(name: str) -> None:
    """Every parameter of a public name stands in its docstring, which has a first line that is a sentence."""
    thing = getattr(ecg_shock, name)
    text = inspect.getdoc(thing)
    assert text.split("\n")[0].endswith(".")
    for parameter in inspect.signature(thing).parameters:
        assert re.search(rf"^[\w, ]*\b{parameter}\b[\w, ]* :|^fs, units, model$", text, re.MULTILINE), parameter


def test_signatures_are_the_promised_ones() -> None:
    """The signal and its rate may be given by position, units and model by name only."""
    for function in (ecg_shock.predict, ecg_shock.predict_many):
        parameters = inspect.signature(function).parameters.values()
        assert [p.name for p in parameters][1:] == ["fs", "units", "model"]
        assert [p.kind.name for p in parameters] == ["POSITIONAL_OR_KEYWORD"] * 2 + ["KEYWORD_ONLY"] * 2


def test_validate_takes_one_thing_by_position() -> None:
    """The subject comes first, and every option by name only."""
    first, *others = inspect.signature(ecg_shock.validate).parameters.values()
    assert (first.name, first.kind.name) == ("predictions", "POSITIONAL_OR_KEYWORD")
    assert {parameter.kind.name for parameter in others} == {"KEYWORD_ONLY"}


def test_no_module_hides_a_function() -> None:
    """There is no module of a public function's name."""
    names = {path.stem for path in Path(ecg_shock.__file__).parent.iterdir()}
    assert not names & set(ecg_shock.__all__)


def test_import_is_light_and_silent(tmp_path: Path) -> None:
    """From any folder the import prints and warns nothing, and loads none of the heavy libraries."""
    heavy = ("tensorflow", "keras", "keras_tuner", "matplotlib", "wfdb", "scipy", "sklearn", "pandas", "ai_edge_litert")
    heavy += ("dask", "distributed", "cryptography")
    code = f"import sys, ecg_shock; print([m for m in {heavy!r} if m in sys.modules])"
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)  # noqa: S603
    assert (done.stdout, done.stderr) == ("[]\n", "")
