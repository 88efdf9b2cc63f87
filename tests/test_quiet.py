"""Known messages of native libraries are dropped, and nothing else."""

from __future__ import annotations

import os

import pytest

from ecg_shock.quiet import without_lines


def test_only_known_lines_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    """Text on file descriptor 2 is printed, except for lines with a known beginning."""
    with without_lines("INFO: Created"):
        os.write(2, b"INFO: Created a delegate\nout of memory\n")
        os.write(2, b"no newline at the end")
    os.write(2, b", and after it\n")
    assert capfd.readouterr().err == "out of memory\nno newline at the end, and after it\n"


def test_an_error_shows_what_was_written_before_it(capfd: pytest.CaptureFixture[str]) -> None:
    """A library that fails to load is not silenced."""

    def load() -> None:
        os.write(2, b"cannot find libfoo\n")
        raise RuntimeError

    with pytest.raises(RuntimeError), without_lines("INFO"):
        load()
    assert capfd.readouterr().err == "cannot find libfoo\n"
