"""Fetch databases from their publishers, and check local copies against their manifests."""

from __future__ import annotations

import hashlib
import logging
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

from ecg_shock.data.manifests import FileEntry, data_dir, load_manifest

logger = logging.getLogger(__name__)

PARALLEL_DOWNLOADS = 4  # a moderate load for the server
CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30.0  # longest time without new data
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TEMPORARY_SUFFIX = ".part"
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
        If the URL in the manifest is neither https nor on this machine, or a fetched file does not match the manifest.
    OSError
        If a file cannot be fetched or written.
    """
    manifest = load_manifest(database)
    address = manifest.url.rstrip("/")
    _require_safe(address)
    target = data_dir(folder) / manifest.name
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
    """Return the files of a local copy that do not match the manifest; the parameters are those of `fetch`."""
    manifest = load_manifest(database)
    target = data_dir(folder) / manifest.name
    problems = (_check_file(target / name, name, entry) for name, entry in manifest.files.items())
    return tuple(problem for problem in problems if problem is not None)


def _decode_212(packed: bytes) -> np.ndarray:
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
        A line with the number of signals, sampling rate in Hz and number of samples, and one for each signal with
        its file, format, gain, baseline, unit, checksum and name, separated by tabs. Comments, spacing and the
        spelling of numbers make no difference.

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
        digest = hashlib.sha256(_decode_212(content).tobytes()).hexdigest()
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
    # In the final folder, because only a move within one file system is atomic; with a unique name, because another
    # run may be fetching the same file.
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
