"""Networks whose opinions on the same windows are compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from ecg_shock.data.recordings import Recording
from ecg_shock.evaluation.evaluation_set import find_bundles
from ecg_shock.inference.advisor import Advisor
from ecg_shock.inference.scanning import scan
from ecg_shock.models.bundle import KERAS_NAME, Bundle
from ecg_shock.preprocessing import FS

MIN_MEMBERS = 2


class Committee:
    """Networks whose opinions are compared.

    Parameters
    ----------
    bundles : sequence of Bundle
        The members, two or more different networks with the same window length.

    Raises
    ------
    ValueError
        If there are fewer than two members, two are the same network, or their window lengths differ.
    """

    def __init__(self, bundles: Sequence[Bundle]) -> None:
        if len(bundles) < MIN_MEMBERS:
            raise ValueError(
                f"the committee has {len(bundles)} member; give {MIN_MEMBERS} or more networks, such as a folder with "
                "fold-0/bundle, fold-1/bundle …, or bundles that were trained with several seeds."
            )
        places: dict[str, Path] = {}
        for bundle in bundles:
            if (other := places.get(bundle.digests[KERAS_NAME])) is not None:
                raise ValueError(f"{other} and {bundle.folder} are the same network; give different networks.")
            places[bundle.digests[KERAS_NAME]] = bundle.folder
        lengths = sorted({bundle.spec.input_samples / FS for bundle in bundles})
        if len(lengths) > 1:
            raise ValueError(
                f"the members have windows of {', '.join(f'{length:g}' for length in lengths)} s; give networks with "
                "windows of the same length."
            )
        self.bundles = tuple(bundles)
        self.window_s = lengths[0]
        self._advisors = [Advisor(bundle) for bundle in bundles]

    def members_for(self, patient: str) -> tuple[list[Advisor], bool]:
        """Return the members to ask about a patient, and whether they were trained or selected on the patient.

        They are those who have not seen the patient, or all if these are fewer than two.
        """
        unseen = [one for one in self._advisors if not one.bundle.card.patients.seen([patient])]
        return (unseen, False) if len(unseen) >= MIN_MEMBERS else (self._advisors, True)

    def slide(self, recording: Recording, step_s: float) -> tuple[np.ndarray, np.ndarray, bool]:
        """Ask the members about the windows of the first lead of a recording.

        Returns
        -------
        start_s : numpy.ndarray
            Shape (n_windows,): start of each window in seconds.
        opinions : numpy.ndarray
            Shape (n_members, n_windows): each member's probability of *shockable*, with the logit moved so that its
            threshold is 0.5; NaN for an unusable window.
        seen : bool
            As `members_for` returns it.
        """
        members, seen = self.members_for(recording.patient)
        scans = [
            scan(recording, lead=recording.leads[0], model=member, step_s=step_s, window_s=self.window_s)
            for member in members
        ]
        return scans[0].start_s, np.array([_opinion(one.probability, one.threshold) for one in scans]), seen


def find_committee(folders: Iterable[Path]) -> Committee:
    """Load the members of a committee.

    Parameters
    ----------
    folders : iterable of pathlib.Path
        Bundles, run folders with ``bundle/``, or folders with ``fold-0/bundle``, ``fold-1/bundle`` …

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no bundle, or the bundles are no committee.
    """
    bundles: list[Bundle] = []
    for folder in folders:
        bundles += find_bundles(folder)
    return Committee(bundles)


def _opinion(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Return probabilities whose logits are moved so that the threshold is 0.5."""
    with np.errstate(divide="ignore"):  # a probability of 0 or 1 stays what it is
        return expit(logit(probability) - logit(threshold))
