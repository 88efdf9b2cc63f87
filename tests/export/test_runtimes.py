"""Exported networks convert values as their tensors say, and other files are errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecg_shock.export.export import ExportResult
from ecg_shock.export.runtimes import CCode, LiteRt, Tensor

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def test_stored_values_are_clipped() -> None:
    """Values out of the range of int8 are clipped, and reading gives the centre of a step."""
    tensor = Tensor("ecg", 0, (1, 4, 1), "int8", scale=0.5, zero_point=-3)
    stored = tensor.store(np.array([-1e9, -0.2, 0.3, np.inf]))
    assert stored.tolist() == [-128, -3, -2, 127]
    assert tensor.read(stored).tolist() == [-62.5, 0.0, 0.5, 65.0]


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\x00\x00\x00TFL3" + bytes(64)])
def test_damaged_model_is_refused(content: bytes, tmp_path: Path) -> None:
    """An empty or truncated file is a ValueError that names it."""
    (tmp_path / "a.tflite").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tflite is not a LiteRT model"):
        LiteRt(tmp_path / "a.tflite")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing: the C code cannot be compiled")
def test_code_that_does_not_compile_and_other_headers(exports: Callable[[str], ExportResult], tmp_path: Path) -> None:
    """Both are errors that name the file."""
    for file in exports("c").files:
        shutil.copy(file, tmp_path)
    path = tmp_path / "ecg_shock_model.h"
    text = path.read_text(encoding="ascii")
    path.write_text(text.replace(" bytes: sizeof", " bytes"), encoding="ascii")
    with pytest.raises(ValueError, match=r"model\.h is not a generated header"):
        CCode(path)
    path.write_text("rubbish", encoding="ascii")
    with pytest.raises(ValueError, match=r"model\.h and the C code in its folder do not compile"):
        CCode(path)
