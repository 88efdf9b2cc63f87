"""How advice bears noise, artefacts and what devices do to a signal."""

from __future__ import annotations

from dataclasses import dataclass

from ecg_shock.evaluation.performance import Rate


@dataclass(frozen=True)
class StressPoint:
    """What an algorithm does on windows that were disturbed in one way, to one degree.

    Parameters
    ----------
    stress : str
        What was done, such as ``"electrode motion"``.
    level : str
        To which degree, as one reads it, such as ``"6 dB"``.
    value : float
        The same as a number, by which points of one stress are drawn in a line.
    sensitivity, specificity : Rate
        Over the shockable and the nonshockable windows. An unusable window is advised no shock.
    unusable : int
        Windows that the rule for unusable strips refused.
    """

    stress: str
    level: str
    value: float
    sensitivity: Rate
    specificity: Rate
    unusable: int
