"""Find recordings that have two names, by comparing the digests of their signal files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from ecg_shock.data.fetch import decode_212
from ecg_shock.data.manifests import Manifest, data_dir, is_packaged, load_manifest
from ecg_shock.rhythms import UNUSABLE

KEPT_DIGITS = 16  # digits of a SHA-256 that tell files apart, and that are short enough for a card
SIGNALS = (".dat", ".mat")  # even if no record has the name of the file, because a header may name any file
NO_SIGNALS = (".hea", ".atr")  # two records may well have the same labels


def signal_digests(databases: Iterable[str], folder: str | Path | None = None) -> dict[str, str]:
    """Return the patient of each signal file in the manifests of these databases, by the digest of the file.

    Parameters
    ----------
    databases : iterable of str
        Names or manifest paths.
    folder : str or pathlib.Path, optional
        Folder that holds the databases. Files of public databases are not read. A file of your own database is read if
        it may have WFDB format 212, because for some files of this format, the public manifests have only a digest of
        the samples.

    Returns
    -------
    dict of str to str
        Maps the digest of each file to the patient. A digest is ``"sha256:DIGITS"`` or ``"samples:DIGITS"``, with the
        first digits of the SHA-256 of the file or of its samples. A file may have both digests. If no record has the
        name of a signal file, the name of the file replaces the name of the patient.

    Raises
    ------
    ValueError
        If two patients have the same file, because a split would treat one patient as two.
    """
    found: dict[str, str] = {}
    for database in databases:
        manifest = load_manifest(database)
        own = not is_packaged(database)
        for name in manifest.files:
            record, dot, suffix = name.rpartition(".")
            if dot + suffix in (*NO_SIGNALS, f".{manifest.annotator}"):
                continue
            if f"{record}.hea" in manifest.files:
                if _is_unusable(manifest, record):
                    continue
                patient = manifest.patient_of(record)
            elif dot + suffix in SIGNALS:
                patient = f"{manifest.name}/{name}"
            else:
                continue
            for key in _digests(manifest, name, data_dir(folder) / manifest.name / name if own else None):
                other = found.setdefault(key, patient)
                if other != patient:
                    raise ValueError(
                        f"{manifest.name}/{name} is the same file as a file of patient {other}, but the manifests "
                        f"name two patients, {other} and {patient}; in the manifest of {manifest.name}, write "
                        f'{record} = "{other}" in [patients], or remove the record.'
                    )
    return found


def _is_unusable(manifest: Manifest, record: str) -> bool:
    """Return whether a record has only noise and unlabelled segments, so that it may equal a record of another patient.

    For example, two recordings without electrodes may be equal.
    """
    labels = manifest.labels_of(record) if record in manifest.record_labels else ()
    return bool(labels) and all(manifest.rhythm_codes[code] in UNUSABLE for _, code in labels)


def _digests(manifest: Manifest, name: str, path: Path | None) -> list[str]:
    entry = manifest.files[name]
    digests = [f"sha256:{entry.sha256[:KEPT_DIGITS]}"] if entry.sha256 else []
    if entry.samples_sha256:
        return [*digests, f"samples:{entry.samples_sha256[:KEPT_DIGITS]}"]
    if path is not None and entry.bytes % 3 == 0 and path.is_file():
        return [*digests, f"samples:{_samples_digest(path, path.stat().st_mtime_ns)[:KEPT_DIGITS]}"]
    return digests


@cache
def _samples_digest(path: Path, mtime_ns: int) -> str:
    content = path.read_bytes()
    return hashlib.sha256(decode_212(content[: len(content) // 3 * 3]).tobytes()).hexdigest()
