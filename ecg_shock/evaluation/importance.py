"""Measure what a network responds to, by global importance analysis.

The importance of a pattern is the mean, over many strips, of the logit with the pattern minus that without it [1]_.
Each strip is compared with itself. Each patient's mean counts equally, and the interval is from resampled patients. The
pattern is added to the raw strip, before the model's own preprocessing.

Deviations from [1]_:

- Two patterns are not added: clipping, and the scaling of the whole strip.
- The strips are recorded ones of sinus rhythm and of coarse VF, and nonshockable ones with random phases. The paper
  uses random sequences.
- The interaction of two patterns is measured at their usual doses only.

References
----------
.. [1] Koo et al., PLoS Computational Biology 17:e1008925, 2021, doi:10.1371/journal.pcbi.1008925
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from ecg_shock.data.synthetic import DATABASE as SYNTHETIC
from ecg_shock.evaluation.backgrounds import SINUS, OnStage, load_backgrounds
from ecg_shock.evaluation.patterns import standard_patterns
from ecg_shock.evaluation.responses import Interaction, Network, Response, measure_interaction, measure_response
from ecg_shock.inference.advisor import Advisor, choose_advisor, to_logit
from ecg_shock.inference.quality import unusable_reasons
from ecg_shock.models.bundle import LITERT_NAME, Bundle
from ecg_shock.preprocessing import FS, preprocess_strips


@dataclass(frozen=True)
class Importance:
    """What a network responds to; see the module's description.

    Parameters
    ----------
    model, sha256 : str
        Name of the model, and digest of its LiteRT file.
    threshold : float
        Probability of *shockable* from which a shock is advised.
    synthetic : bool
        Whether the strips are synthetic.
    subset : {"test", "validation", "train"}
        The subset of the patients whose strips were used.
    patients : tuple of str
        The names of the patients.
    window_s : float
        Length of the strips in seconds.
    responses : tuple of Response
        One for each pattern and kind of background.
    interactions : tuple of Interaction
        One for each two patterns, on `SINUS`.
    coarse_vf_mv, rapid_vt_bpm : float
        The limits of the model's labels, from which a shock is right.
    seed : int
        Seed of all random numbers.
    omitted : str
        Patterns or backgrounds that were left out, and the reason; may be empty.
    """

    model: str
    sha256: str
    threshold: float
    synthetic: bool
    subset: str
    patients: tuple[str, ...]
    window_s: float
    responses: tuple[Response, ...]
    interactions: tuple[Interaction, ...]
    coarse_vf_mv: float
    rapid_vt_bpm: float
    seed: int
    omitted: str = ""

    def response(self, pattern: str, background: str) -> Response | None:
        """Return the response to a pattern on a background, given by their names; None if there is none."""
        found = (r for r in self.responses if (r.pattern, r.background) == (pattern, background))
        return next(found, None)


def explain(
    model: str | Path | Bundle | Advisor | None = None,
    *,
    data: Path | None = None,
    seed: int = 0,
    on_stage: OnStage = lambda stage, steps: lambda: None,
) -> Importance:
    """Measure what a network responds to: the effect of standard patterns on its logit.

    The patterns are added to strips of the model's test patients; without test patients, of its validation patients;
    and without these, of its training patients. At most five strips of each patient and AHA class are drawn,
    fewer of each if there are more than 42 patients.

    Parameters
    ----------
    model : str, pathlib.Path, Bundle or Advisor, optional
        A bundle, its folder, or a loaded model. By default the pretrained model of the package.
    data : pathlib.Path, optional
        Folder of the recordings; see `ecg_shock.data.manifests.data_dir`.
    seed : int
        Seed of all random numbers.
    on_stage : callable, optional
        Function that takes the name of a stage and its number of steps. It returns a function that is called after each
        step.

    Returns
    -------
    Importance
        The effects at all doses, and the interactions.

    Raises
    ------
    ValueError
        If the card of the model does not name its patients, or if they have no strip of sinus rhythm.
    FileNotFoundError
        If a database is missing.
    """
    advisor = Advisor(model) if isinstance(model, Bundle) else choose_advisor(model)
    bundle = advisor.bundle
    subset, backgrounds = load_backgrounds(bundle, data, seed=seed, on_stage=on_stage)
    labels = bundle.card.data.labels
    patterns = standard_patterns(labels, data)
    network, threshold = network_of(advisor), float(to_logit(bundle.threshold))
    step = on_stage("patterns", len(patterns))
    responses = []
    for pattern in patterns:
        found = [measure_response(network, group, pattern, threshold, seed) for group in backgrounds.values()]
        responses += [response for response in found if response]
        step()
    pairs = list(combinations([pattern for pattern in patterns if not pattern.variant_of], 2))
    step = on_stage("pairs of patterns", len(pairs))
    interactions = []
    for first, second in pairs:
        both = measure_interaction(network, backgrounds[SINUS], first, second, seed)
        interactions += [both] if both else []
        step()
    missing = not any(pattern.name == "baseline wander" for pattern in patterns)
    return Importance(
        model=bundle.name or str(bundle.folder),
        sha256=bundle.digests[LITERT_NAME],
        threshold=bundle.threshold,
        synthetic=SYNTHETIC in bundle.card.data.databases,
        subset=subset,
        patients=tuple(sorted({str(p) for group in backgrounds.values() for b in group for p in b.patient})),
        window_s=bundle.spec.input_samples / FS,
        responses=tuple(responses),
        interactions=tuple(interactions),
        coarse_vf_mv=labels.coarse_vf_mv,
        rapid_vt_bpm=labels.rapid_vt_bpm,
        seed=seed,
        omitted="Baseline wander and electrode motion were not added, because nstdb was not found." if missing else "",
    )


def network_of(advisor: Advisor) -> Network:
    """Return a function that computes the logits of raw strips, and which of them are usable."""

    def answer(strips: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
        filtered = preprocess_strips(strips, fs, advisor.bundle.preprocessing)
        return to_logit(advisor.probabilities(filtered)), unusable_reasons(strips, fs, filtered) == ""

    return answer


@dataclass(frozen=True)
class Habit:
    """A pattern that makes the advice wrong.

    Parameters
    ----------
    response : Response
        The response to the pattern.
    dose : int
        Index of the dose with the most wrong advice.
    harm : float
        Proportion of wrong advice, averaged over all doses at which advice can be wrong, minus that without the
        pattern.
    """

    response: Response
    dose: int
    harm: float


def find_habits(responses: Sequence[Response], count: int = 3) -> tuple[Habit, ...]:
    """Return the patterns with the most harm, the worst first, each on the background on which it is worst.

    The harm of a pattern is averaged over its doses, which cover what may occur in use. Of a pattern and its variants,
    only the one with the most harm is returned. A pattern without harm is not returned.
    """
    habits: dict[str, Habit] = {}
    for response in responses:
        before, *others = (response.wrong(i) for i in range(len(response.doses)))
        wrong = np.array([np.nan if one is None else one.mean for one in others])
        if np.isnan(wrong).all():
            continue
        harm = float(np.nanmean(wrong)) - (before.mean if before else 0.0)
        habit = Habit(response, int(np.nanargmax(wrong)) + 1, harm)
        if habit.harm > (habits[response.family].harm if response.family in habits else 0.0):
            habits[response.family] = habit
    return tuple(sorted(habits.values(), key=lambda habit: -habit.harm)[:count])
