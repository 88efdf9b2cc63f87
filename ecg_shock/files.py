"""Write files atomically, compute their digests, lock folders, read TOML, and list versions of the software."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound="BaseModel")

LOCK_NAME = ".lock"
CHUNK_BYTES = 1 << 20
RESULT_PACKAGES = (
    *("ecg-shock", "numpy", "scipy", "scikit-learn", "keras", "keras-tuner", "tensorflow", "tensorflow-cpu"),
    *("ai-edge-litert", "pandas", "pydantic", "wfdb"),
)
GIT_TIMEOUT_S = 10


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the `with` block ends.

    If the block raises an error, `path` is unchanged.
    """
    # The process ID is in the name, because two processes may write the same file.
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
    """Write a text file atomically: if the process is killed, the file contains either the old or the new text.

    The encoding is UTF-8, and line endings are kept.
    """
    with atomic_writer(path) as file:
        file.write(text.encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 digest of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not UTF-8 text or not TOML.
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
        raise ValueError(f"{path} is not valid TOML: {error}; correct the file") from error


def path_beside(name: str, file: Path) -> str:
    """Convert a path that `file` contains to a path that can be opened from the working directory.

    In `file`, a relative path starts at the folder of `file`.
    """
    path = Path(name).expanduser()
    if path.is_absolute():
        return str(path)
    path = Path(os.path.normpath(file.absolute().parent / path))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def path_for(name: str, file: Path) -> str:
    """Convert a path to a path that can be written into `file`: relative to the folder of `file`.

    If `name` is relative, it starts at the working directory.
    """
    path = Path(name).expanduser().absolute()
    return Path(os.path.relpath(path, file.absolute().parent)).as_posix()


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one dictionary with dotted keys. Each key begins with `prefix`.

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
    """Return one line for each error that pydantic found: the key, its value, and what is allowed.

    If `model`, the class that was validated, is given, the line about an unknown key lists the allowed keys.
    """
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _fields_beside(fault["loc"], model) if model else []
            lines.append(f"{key} is unknown{'; allowed are ' if known else ''}{', '.join(known)}")
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
    """Return a validated copy of a pydantic model with new values; None keeps the old value."""
    given = {name: value for name, value in values.items() if value is not None}
    return type(model).model_validate({**model.model_dump(), **given})


def _fields_beside(location: tuple[int | str, ...], model: type[Any]) -> list[str]:
    """Return the allowed keys of the table with an unknown key, such as that of an optional table or of a list."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if hasattr(model, "model_fields") else None
        inner = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and _field_names(one)]
        if not inner:
            return []
        model = inner[0]
    return _field_names(model)


def _field_names(model: type[Any]) -> list[str]:
    if is_dataclass(model):
        return [field.name for field in fields(model)]
    return list(getattr(model, "model_fields", ()))


class InUseError(OSError):
    """Another process uses a folder."""


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock an existing folder, so that no other process can lock it during the `with` block.

    If another process holds the lock, wait for its release if `wait` is True; otherwise raise InUseError. The lock is
    released when the process ends, even if it is killed. The empty file ``.lock`` is not removed.

    Raises
    ------
    InUseError
        If another process holds the lock, and `wait` is False.
    OSError
        If the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK_NAME, timeout=-1 if wait else 0, is_singleton=False):
            yield
    except Timeout:
        raise InUseError(
            f"another run is using {folder}; wait until that run ends, or choose another folder with --out"
        ) from None


def commit() -> str | None:
    """Return the git commit of this checkout, with ``-dirty`` appended if its files have been changed.

    Return None if the package does not run from a checkout, or if git is missing.
    """
    checkout = Path(__file__).resolve().parents[1]
    # An installed package may be inside the repository of another project.
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that influence results."""
    found = {"python": platform.python_version()}
    for package in RESULT_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
