"""Files that are written whole or not at all, hashed and read in one way, and the software that a run was made with."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound="BaseModel")

LOCK_NAME = ".lock"
READ_BYTES = 1 << 20
PACKAGES = (
    *("ecg-shock", "numpy", "scipy", "scikit-learn", "keras", "keras-tuner", "tensorflow", "tensorflow-cpu"),
    *("ai-edge-litert", "pandas", "pydantic", "wfdb"),
)
GIT_TIMEOUT_S = 10


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` only when it is complete and on disk.

    Until the end of the `with` block `path` stays as it was.
    """
    # Each process has a temporary file of its own, so that two that write the same file never mix their bytes.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the text of a file at once: a process that is killed leaves the old text or the new one.

    The text is written as UTF-8 with the line ends that it has.
    """
    with atomic_writer(path) as file:
        file.write(text.encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file of any size, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    ValueError
        If the file is not UTF-8 text or not TOML; the message names it.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from error


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Name every value of nested mappings, in their order, by its dotted key, after `prefix`.

    Examples
    --------
    >>> flatten({"search": {"trials": 20}, "name": "mine"})
    {'search.trials': 20, 'name': 'mine'}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def explain(error: ValidationError, model: type[BaseModel] | None = None) -> list[str]:
    """Say on a line for each fault that pydantic found which key it is, what came, and what is allowed.

    If `model`, what was checked, is given, an unknown key is answered with the keys that are allowed.
    """
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            allowed = f"; allowed are {', '.join(_fields_beside(fault['loc'], model))}" if model else ""
            lines.append(f"{key} is unknown{allowed}")
        elif fault["type"] == "missing":
            lines.append(f"{key} is missing")
        elif fault["type"] in ("model_type", "dataclass_type"):
            lines.append(f"{key} = {fault['input']!r} must be a table, [{key}] with a line for each value")
        elif key and not isinstance(fault["input"], Mapping):
            lines.append(f"{key} = {fault['input']!r}: {message}")
        else:
            lines.append(f"{key + ': ' if key else ''}{message}")
    return lines


def with_values(model: Model, **values: Any) -> Model:
    """Return a copy of a pydantic model with those of these values that are not None, checked."""
    given = {name: value for name, value in values.items() if value is not None}
    return type(model).model_validate({**model.model_dump(), **given})


def _fields_beside(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and hasattr(annotation, "model_fields")):
            break
        model = annotation
    return list(model.model_fields)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process that asks for the same lock out of an existing folder.

    The system gives the lock back when the process ends, however it ends; the empty file ``.lock`` stays.

    Raises
    ------
    OSError
        If another process holds the lock, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK_NAME, timeout=0, is_singleton=False):
            yield
    except Timeout:
        raise OSError(f"another run works in {folder}; wait for it or choose another folder with --out") from None


def commit() -> str | None:
    """Return the git commit of the checkout that runs, marked if there are changes on top of it.

    None if the package is installed, not checked out, or git is missing.
    """
    checkout = Path(__file__).resolve().parents[1]
    # An installed package may lie inside somebody else's repository.
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of those packages that decide a result and are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
