"""Refuse to test a model on recordings on which it was trained or selected, even if their names have changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from ecg_shock.data.datasets import SYNTHETIC
from ecg_shock.data.same_files import signal_digests
from ecg_shock.models.bundle import Bundle

SHOWN_PATIENTS = 10


def seen_digests(bundle: Bundle, folder: str | Path | None = None) -> frozenset[str]:
    """Return the digests of the signal files on which a model was trained or selected.

    The digests are on the card of the model. If an older card has none, they are taken from the manifests of the
    databases on the card, which are in `folder`.
    """
    card = bundle.card
    if card.patients.files:
        return frozenset(card.patients.files)
    digests = signal_digests([name for name in (*card.data.databases, *card.data.extra) if name != SYNTHETIC], folder)
    known = card.patients.seen(digests.values())
    return frozenset(key for key, patient in digests.items() if patient in known)


def check_unseen_files(
    bundle: Bundle,
    databases: Iterable[str],
    folder: str | Path | None = None,
    patients: Collection[str] | None = None,
) -> None:
    """Check that a model was not trained or selected on a copy of a tested signal file with another patient's name.

    If the card names a tested patient as a training or validation patient, this function does not report it; see
    `ecg_shock.models.card.Patients.seen`.

    Parameters
    ----------
    bundle : Bundle
        The model.
    databases : iterable of str
        Names or manifest paths of the tested databases.
    folder : str or pathlib.Path, optional
        Folder that holds the databases.
    patients : collection of str, optional
        The tested patients; all patients of `databases` if not given.

    Raises
    ------
    ValueError
        If there is a copy, or if two patients of `databases` have the same signal file.
    """
    seen = seen_digests(bundle, folder)
    tested = signal_digests([name for name in databases if name != SYNTHETIC], folder)
    of_seen = {patient for key, patient in tested.items() if key in seen and (patients is None or patient in patients)}
    copies = sorted(of_seen - bundle.card.patients.seen(of_seen))
    if copies:
        more = f" and {len(copies) - SHOWN_PATIENTS} more" if len(copies) > SHOWN_PATIENTS else ""
        names = ", ".join(map(repr, copies[:SHOWN_PATIENTS])) + more
        raise ValueError(
            f"{bundle.folder} was trained or selected on the recordings of {names}, under another name: the signal "
            "files are equal. Remove these recordings from the manifest."
        )
