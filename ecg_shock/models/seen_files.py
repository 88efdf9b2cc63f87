"""Refuse to test a model on recordings that it has seen under another name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecg_shock.data.datasets import SYNTHETIC
from ecg_shock.data.same_files import signal_sums
from ecg_shock.models.bundle import Bundle

SHOWN_PATIENTS = 10


def check_unseen_files(bundle: Bundle, databases: Sequence[str] = (), folder: str | Path | None = None) -> None:
    """Raise a ValueError if a model has seen a signal file that it would be tested on, as one of another patient.

    A tested patient whom the card names among those that it has seen is not looked for here.

    Parameters
    ----------
    bundle : Bundle
        The model. If its card has no sums, those in the manifests of its databases are used.
    databases : sequence of str
        Names or manifest paths of the tested databases; if empty, the test patients on the card are tested.
    folder : str or pathlib.Path, optional
        Folder that holds the databases.
    """
    card = bundle.card
    trained_on = [name for name in (*card.data.databases, *card.data.extra) if name != SYNTHETIC]
    seen = set(card.patients.files)
    if not seen:
        sums = signal_sums(trained_on, folder)
        known = card.patients.seen(sums.values())
        seen = {key for key, patient in sums.items() if patient in known}
    tested = signal_sums([name for name in databases or card.data.databases if name != SYNTHETIC], folder)
    of_seen = {patient for key, patient in tested.items() if key in seen}
    copies = sorted(of_seen - card.patients.seen(of_seen))
    if not databases:
        copies = [patient for patient in copies if patient in card.patients.test]
    if copies:
        more = f" and {len(copies) - SHOWN_PATIENTS} more" if len(copies) > SHOWN_PATIENTS else ""
        names = ", ".join(map(repr, copies[:SHOWN_PATIENTS])) + more
        raise ValueError(
            f"{bundle.folder} has seen the recordings of {names}, under another name: their signal files "
            "equal files that it was trained on or selected with. Remove them from the manifest."
        )
