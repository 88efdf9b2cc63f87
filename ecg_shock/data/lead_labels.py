"""Recognise ECG leads by their names, choose the lead to classify, and list names in messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words of a label, in lower case, that name an ECG lead: standard, modified (MLII, MCL1, ML5), bipolar chest leads
# (CM5, CC5), and the numbered leads of French and Spanish recorders (D2). `ECG` finds names with "ecg" or "ekg".
ECG_WORD = re.compile(
    r"i|ii|iii|d(i|ii|iii|[1-4])|av[rlf]|v[1-9xyz]?|v[1-9][rl]|ml(i|ii|iii|[1-6])|mv[1-6]|mcl[1-6]|c[bcmrs][1-7]"
)
# Beginnings of words, in lower case, that name another signal, such as "Airflow" or "EOG V".
OTHER_SIGNAL_WORD = re.compile(
    "eeg|eog|emg|erg|eda|gsr|egm|meg|resp|imp|flow|airflow|nasal|thor|abd|chest|effort|snor|mic|pleth|ppg|spo|sao|pulse"
    "|abp|art|bp|nibp|cvp|pap|icp|lap|rap|press|temp|co2|etco|acc|gyr|pos|leg|chin|event|marker|trig|sync|batt|noise"
)
EEG_PAIR = re.compile(r"(fp|[acefopt])[z\d]\d?-(fp|[acfmopt])[z\d]\d?")  # C3-M2, Fpz-Cz, and E1-M2 of an EOG
# The "quality", "peaks" or "time" of an ECG is not an ECG.
DERIVED_FROM_ECG = re.compile(
    r"time|quality|sqi|rate|\bhr\b|peak|index|marker|event|label|annot|status|\boff\b|impedance|beat|count|flag|note",
    re.IGNORECASE,
)
ECG = re.compile(r"(?<![a-z])e[ck]g(?![a-z])|^e[ck]g|e[ck]g$", re.IGNORECASE)
UNITS = frozenset({"mv", "uv", "v"})
MAX_LISTED = 20  # names in a message


def is_ecg(name: str) -> bool | None:
    """Return whether the name of a lead says that the lead is an ECG.

    Parameters
    ----------
    name : str
        Label of a channel or a column, such as ``"ECG II"``, ``"MLII"`` or ``"ekg (mV)"``.

    Returns
    -------
    bool or None
        True for an ECG, False for another signal, None if the name does not say.

    Examples
    --------
    >>> [is_ecg(name) for name in ("ECG II", "MLII", "aVR", "EEG EKG-Ref", "EOG-V", "ABP", "ECG quality", "1", "lead")]
    [True, True, True, True, False, False, False, None, None]
    """
    text = name.replace("_", " ").strip()
    if DERIVED_FROM_ECG.search(text):
        return False
    if ECG.search(text):
        return True
    words = re.findall(r"[a-z0-9]+", text.lower())
    if any(map(OTHER_SIGNAL_WORD.match, words)) or EEG_PAIR.search(name.lower()):
        return False
    if len(words) > 1 and words[-1] in UNITS:
        words.pop()
    return True if any(ECG_WORD.fullmatch(word) for word in words) else None


def choose_lead(names: Sequence[str], lead: str | None, where: object) -> int:
    """Return the index in `names` of the lead to classify.

    If `lead` is None, choose the first lead with the name of an ECG. If there is only one lead, choose it unless its
    name is the name of another signal. If no lead can be chosen, raise ValueError with a message that begins with
    `where`.
    """
    if lead is not None:
        if lead not in names:
            raise ValueError(f"{where} has no lead {lead!r}; choose from {listed(names)}")
        return list(names).index(lead)
    kinds = [is_ecg(name) for name in names]
    if True in kinds:
        return kinds.index(True)
    if kinds == [None]:
        return 0
    raise ValueError(
        f"{where} has no lead with the name of an ECG lead; choose a lead with lead= or leads= (--lead) from "
        f"{listed(names)}"
    )


def listed(names: Sequence[object], total: int | None = None) -> str:
    """Return a list of at most 20 names for a message.

    If `names` has only the first names, `total` is the number of all names.
    """
    total = len(names) if total is None else total
    shown = [quoted(name) for name in names[:MAX_LISTED]]
    more = f", … and {total - MAX_LISTED} more" if total > MAX_LISTED else ""
    return f"[{', '.join(shown)}{more}]"


def quoted(value: object, limit: int = 60) -> str:
    """Return the repr of a value from a file, cut after `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
