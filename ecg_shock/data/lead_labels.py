"""What a label says: whether a channel is an ECG lead."""

from __future__ import annotations

import re

# Einthoven, Goldberger, chest and modified leads; C3 is left to the EEG.
_LEAD = re.compile(r"m?l?i{1,3}|d(i{1,3}|[123])|-?av[rlf]|(ml|mcl|m?v|c[cms])\dr?", re.IGNORECASE)
_ECG = re.compile(r"(?<![a-z])e[ck]g(?![a-z])|^e[ck]g|e[ck]g$", re.IGNORECASE)
_BESIDE = frozenset({"lead", "ableitung", "derivation", "mv", "uv", "\u00b5v", "\u03bcv", "v", "mod"})
# What is measured or said of an ECG is no ECG: "ECG quality", "ECG peaks", "ECG time".
_OF_AN_ECG = re.compile(
    r"time|quality|sqi|rate|\bhr\b|peak|index|marker|event|label|annot|status|\boff\b|impedance|beat|count|flag|note",
    re.IGNORECASE,
)


def is_ecg_label(name: str) -> bool:
    """Say whether a label names an ECG lead.

    Parameters
    ----------
    name : str
        Label of a channel or column, such as ``"ECG II"``, ``"MLII"``, ``"V5"`` or ``"ekg (mV)"``.

    Returns
    -------
    bool
        True if it says ECG or EKG, or is the name of a lead; False for ``"EEG C3-M2"``, ``"ch1"`` or no name.

    Examples
    --------
    >>> [is_ecg_label(name) for name in ("ECG (mV)", "aVR", "Lead II", "EEG", "Resp", "ECG quality", "1")]
    [True, True, True, False, False, False, False]
    """
    if _OF_AN_ECG.search(name.replace("_", " ")):
        return False
    if _ECG.search(name.replace("_", " ").strip()):
        return True
    words = [word for word in re.split(r"[^\w+\u00b5\u03bc-]+|_", name) if word.lower() not in _BESIDE | {""}]
    return len(words) == 1 and bool(_LEAD.fullmatch(words[0]))
