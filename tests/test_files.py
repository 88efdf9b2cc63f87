"""Files are written atomically, locked against other processes, and read with errors that name them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from ecg_shock.files import atomic_writer, explain, flatten, locked, read_toml, sha256, write_text
from ecg_shock.search.compare import TrainingComparison
from ecg_shock.training.trainer import TrainingConfig


def test_failed_write_leaves_the_old_file(tmp_path):
    """If writing fails half-way, the file is unchanged and no temporary file is left."""
    path = tmp_path / "history.json"
    path.write_bytes(b"old")

    def write_half() -> None:
        with atomic_writer(path) as file:
            file.write(b"ne")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_lock_is_for_one(tmp_path):
    """A second lock fails and the error says what to do; it succeeds once the first is released, also by an error."""

    def fail_with_the_lock() -> None:
        with locked(tmp_path):
            raise RuntimeError("stopped")

    with locked(tmp_path), pytest.raises(OSError, match="another run is using .* with --out"), locked(tmp_path):
        pass
    with pytest.raises(RuntimeError, match="stopped"):
        fail_with_the_lock()
    with locked(tmp_path):
        pass


def test_lock_ends_with_a_killed_process(tmp_path):
    """A lock that another process holds fails, and is free as soon as that process is killed."""
    script = (
        "import sys, pathlib\n"
        "from ecg_shock.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(OSError, match="another run"), locked(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with locked(tmp_path):
            pass


def test_text_is_replaced_with_its_line_ends(tmp_path: Path):
    """The text is written byte for byte, and the folder holds no other file."""
    path = tmp_path / "a.txt"
    path.write_text("longer than the new text")
    write_text(path, "µV\r\n")
    assert path.read_bytes() == b"\xc2\xb5V\r\n"
    assert sha256(path) == hashlib.sha256(b"\xc2\xb5V\r\n").hexdigest()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"), [(b"a = \xff", "not UTF-8"), (b"a = ", "not valid TOML"), (b"a = " + b"[" * 5000, "TOML")]
)
def test_damaged_toml_is_named(tmp_path: Path, content: bytes, message: str):
    """A file that is not TOML is an error that names it."""
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.toml.*{message}"):
        read_toml(path)


def test_flatten_keeps_every_value():
    """A dotted key names each nested value; a list is a value, and an empty table disappears."""
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": {}}) == {"a.b.c": 1, "a.d": [1, {"e": 2}]}


def test_unknown_key_of_an_inner_table_names_the_keys_beside_it() -> None:
    """The allowed keys are those of the table, also if the table is optional or in a list."""
    with pytest.raises(ValidationError) as caught:
        TrainingConfig.model_validate({"augmentation": {"wrap": 0.1}})
    (line,) = explain(caught.value, TrainingConfig)
    assert line.startswith("augmentation.wrap is unknown; allowed are windows, patient_windows, warp")
    with pytest.raises(ValidationError) as caught:
        TrainingComparison.model_validate(
            {"name": "a", "folds": [0], "seeds": [0], "rule": "r", "base": {}, "variants": [{"name": "b", "seed": 1}]}
        )
    (line,) = explain(caught.value, TrainingComparison)
    assert line == "variants.0.seed is unknown; allowed are data, network, training, name, after"
