"""Fetch databases from their publishers, and check local copies against their manifests."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import numpy as np

from ecg_shock.data.manifests import FileEntry, Manifest, cache_dir, data_dir, database_path, load_manifest
from ecg_shock.files import write_text

logger = logging.getLogger(__name__)

PARALLEL_DOWNLOADS = 4  # a moderate load for the server
CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30.0  # longest time without new data
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TEMPORARY_SUFFIX = ".part"
# File systems round times, so a file that changed less than this ago may change again and keep its time.
UNSETTLED_S = 2.0
# A temporary file this old was left by a killed run; a younger one may belong to another run.
ABANDONED_S = 24 * 3600.0


@dataclass(frozen=True)
class Problem:
    """A file of a local copy that does not match the manifest."""

    file: str
    state: str  # "missing", "wrong size" or "wrong digest"
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: {self.state}; expected {self.expected}, found {self.found}"


def fetch(
    database: str | Path,
    folder: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Fetch the files of a database that are missing or wrong.

    Each file gets its final name only after it has been checked. After an interruption, the next call fetches the files
    that are still missing.

    Parameters
    ----------
    database : str or pathlib.Path
        Name of a database, or path of a manifest.
    folder : str or pathlib.Path, optional
        Folder that holds the databases; see `ecg_shock.data.manifests.data_dir` for the default.
    progress : callable, optional
        Called after each file has been checked, with its size in bytes.

    Returns
    -------
    pathlib.Path
        Folder of the files, named after the database.

    Raises
    ------
    ValueError
        If the manifest has no URL; if the URL is neither https nor on this machine; or if a fetched file does not match
        the manifest.
    OSError
        If a file cannot be fetched or written.
    """
    manifest = load_manifest(database)
    target = data_dir(folder) / manifest.name
    address = manifest.url.rstrip("/")
    if not address:
        raise ValueError(
            f"the manifest of {database} has no url, so its files cannot be fetched; copy the files to {target}, and "
            f"check them with `ecg-shock fetch {database} --verify`"
        )
    _require_safe(address)
    target.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    logger.info("fetching %s from %s to %s", manifest.name, address, target)
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        downloads = {
            pool.submit(_fetch_file, f"{address.replace('{name[:3]}', name[:3])}/{name}", target / name, entry): entry
            for name, entry in manifest.files.items()
        }
        try:
            for download in as_completed(downloads):
                download.result()
                if progress is not None:
                    progress(downloads[download].bytes)
        except BaseException:  # Ctrl-C too: downloads that have not begun must not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return target


def verify(database: str | Path, folder: str | Path | None = None) -> tuple[Problem, ...]:
    """Check the local files of a database against its manifest, and return a `Problem` for each wrong file.

    `database` and `folder` are the same as for `fetch`.
    """
    manifest = load_manifest(database)
    target = data_dir(folder) / manifest.name
    problems = (_check_file(target / name, name, entry) for name, entry in manifest.files.items())
    return tuple(problem for problem in problems if problem is not None)


def require_verified(database: str | Path, folder: str | Path | None = None) -> Path:
    """Check the files of a database against its manifest, and return the folder of the files.

    The cache stores the size and the times of each correct file. A file is read again only if its size or a time
    differs.

    Parameters
    ----------
    database : str or pathlib.Path
        Name of a database, or path of a manifest.
    folder : str or pathlib.Path, optional
        Folder that holds the databases; see `ecg_shock.data.manifests.data_dir` for the default.

    Raises
    ------
    FileNotFoundError
        If the database is missing.
    ValueError
        If a file of the database is missing, or differs from the manifest.
    """
    manifest = load_manifest(database)
    path = database_path(database, folder)
    stamps_path = _stamps_path(manifest, path)
    known = _read_stamps(stamps_path)
    found: dict[str, list[int]] = {}
    problems = []
    for name, entry in manifest.files.items():
        stamp = _stamp(path / name)  # before the file is read, so that a later change is seen
        if stamp is None or stamp != known.get(name):
            problem = _check_file(path / name, name, entry)
            if problem is not None:
                problems.append(problem)
        if stamp is not None:
            found[name] = stamp
    if problems:
        get = f"Run `ecg-shock fetch {database}` with the same folder" if manifest.url else "Restore the files"
        raise ValueError(
            f"{path} differs from its manifest in {len(problems)} files; the first is {problems[0]}. {get}, "
            "or write your own manifest for changed files."
        )
    settled_ns = time.time_ns() - round(UNSETTLED_S * 1e9)
    settled = {name: stamp for name, stamp in found.items() if max(stamp[1:]) < settled_ns}
    if settled != known:
        _write_stamps(stamps_path, settled)
    return path


def _stamp(path: Path) -> list[int] | None:
    """Return the size in bytes and the mtime and ctime in ns of a file, or None if there is no file."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _stamps_path(manifest: Manifest, path: Path) -> Path:
    content = f"{manifest.files_sha256}\n{os.path.abspath(path)}"  # noqa: PTH100 - resolve() would read the links
    return cache_dir() / "verified" / f"{manifest.name}-{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"


def _read_stamps(path: Path) -> dict[str, list[int]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none yet, or damaged: all files are read
        return {}
    return known if isinstance(known, dict) else {}


def _write_stamps(path: Path, settled: dict[str, list[int]]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settled))
    except OSError as error:
        logger.warning("%s cannot be written (%s); the files will be read again each time.", path, error)


def decode_212(packed: bytes) -> np.ndarray:
    """Decode WFDB format 212, two 12-bit two's complement samples in three bytes, to little-endian int16."""
    low, middle, high = np.frombuffer(packed, np.uint8).reshape(-1, 3).astype("<i2").T
    samples = np.stack([(middle & 0x0F) << 8 | low, (middle & 0xF0) << 4 | high], axis=1).ravel()
    return np.where(samples > 2047, samples - 4096, samples).astype("<i2")


def header_content(header: bytes) -> bytes:
    r"""Return the signal descriptions of a WFDB header in a standard form, so that headers can be compared.

    Parameters
    ----------
    header : bytes
        The ``.hea`` file.

    Returns
    -------
    bytes
        The first line has the number of signals, the sampling rate in Hz and the number of samples. Each further
        line has the file, format, gain, baseline, unit, checksum and name of a signal. Fields are separated by tabs.
        Comments, spacing and the spelling of numbers make no difference.

    Raises
    ------
    ValueError
        If `header` is not a WFDB header.

    Examples
    --------
    >>> header_content(b"r 1 250 4\nr.dat 16 200.0(0)/mV 16 0 3 9 0 II\n#Age: 70\n")
    b'1\t250\t4\nr.dat\t16\t200\t0\tmV\t9\tII'
    """
    lines = [line.split("#")[0].split() for line in header.decode("ascii").splitlines()]
    (_, count, fs, samples, *_), *signals = [line for line in lines if line]
    content = [[f"{int(count)}", f"{float(fs):g}", f"{int(samples)}"]]
    for file, fmt, amplitude, _, zero, _, checksum, _, *lead in signals:
        found = re.fullmatch(r"([^(/]+)(?:\((.+)\))?(?:/(.+))?", amplitude)
        if found is None:
            raise ValueError(f"{amplitude!r} is not a gain such as 200(0)/mV")
        gain, baseline, unit = found.groups()
        numbers = [f"{float(gain):g}", f"{int(baseline or zero)}", unit or "mV", f"{int(checksum)}"]
        content.append([file, fmt, *numbers, " ".join(lead)])
    return "\n".join("\t".join(line) for line in content).encode()


def _check_file(path: Path, name: str, entry: FileEntry) -> Problem | None:
    if not path.is_file():
        return Problem(name, "missing", f"{entry.bytes} bytes", f"no file at {path}")
    if entry.header_sha256 is not None:
        try:
            digest = hashlib.sha256(header_content(path.read_bytes())).hexdigest()
        except ValueError:
            return Problem(name, "wrong digest", "a WFDB header", "another file")
        if digest != entry.header_sha256:
            return Problem(name, "wrong digest", f"a header whose content has SHA-256 {entry.header_sha256}", digest)
        return None
    size = path.stat().st_size
    if size != entry.bytes:
        return Problem(name, "wrong size", f"{entry.bytes} bytes", f"{size} bytes")
    content = path.read_bytes()
    if entry.sha256 is not None:
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry.sha256:
            return Problem(name, "wrong digest", f"SHA-256 {entry.sha256}", digest)
    if entry.samples_sha256 is not None:
        digest = hashlib.sha256(decode_212(content).tobytes()).hexdigest()
        if digest != entry.samples_sha256:
            return Problem(name, "wrong digest", f"samples with SHA-256 {entry.samples_sha256}", digest)
    return None


def _require_safe(address: str) -> None:
    url = urlsplit(address)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
        raise ValueError(f"{address!r} is not allowed; give an https address (http only from {', '.join(LOOPBACK)})")


def _fetch_file(url: str, path: Path, entry: FileEntry) -> None:
    if _check_file(path, path.name, entry) is None:
        return
    import pooch

    download = pooch.HTTPDownloader(chunk_size=CHUNK_BYTES, timeout=TIMEOUT_S, hooks={"response": _guard_response})
    # The temporary file is in the final folder, because only a move within one file system is atomic. Its name is
    # unique, because another run may be fetching the same file.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY_SUFFIX}")
    try:
        try:
            download(url, str(temporary), None)
        except OSError as error:  # requests' own errors are OSErrors
            raise OSError(
                f"could not fetch {path.name} ({entry.bytes} bytes) from {url}: {error}; check the connection, "
                "and run the same command again. Complete files are kept"
            ) from error
        problem = _check_file(temporary, path.name, entry)
        if problem is not None:
            raise ValueError(
                f"{url} sent a wrong file, which was deleted: {problem}; run the same command again. If it "
                "happens again, the file of the publisher does not match the manifest: please report it"
            )
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _guard_response(response: Any, **_: Any) -> None:
    # pooch does not close the connection if the response raises an error.
    try:
        if response.is_redirect:
            _require_safe(urljoin(response.url, response.headers["location"]))
        response.raise_for_status()
    except (OSError, ValueError):
        response.close()
        raise


def _remove_abandoned(folder: Path) -> None:
    for leftover in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        with suppress(FileNotFoundError):  # another run has moved or removed it
            if time.time() - leftover.stat().st_mtime > ABANDONED_S:
                leftover.unlink()
