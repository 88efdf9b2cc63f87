"""Present what a network responds to: sentences, tables, one HTML page, JSON and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from ecg_shock.evaluation.backgrounds import COARSE_VF, QUIET, QUIET_MV, RANDOMISED, SINUS
from ecg_shock.evaluation.importance import Habit, Importance, find_habits
from ecg_shock.evaluation.patterns import FAST_T_WAVES, OSCILLATION, SCALED, T_WAVES, VENTRICULAR
from ecg_shock.evaluation.responses import ALPHA, RESAMPLES, Estimate, Interaction, Response
from ecg_shock.files import commit, versions, write_text
from ecg_shock.report.figures import to_svg
from ecg_shock.report.formats import NONE, Table, patients_text
from ecg_shock.report.importance_figures import (
    MARGINS,
    OVERVIEW,
    draw_overview,
    draw_response,
    save_pictures,
    size_of_overview,
)
from ecg_shock.report.pages import render_page
from ecg_shock.report.tables import DISCLAIMER, SYNTHETIC_NOTE

NAMES = ("explain.html", "explain.json", "importance.png", "doses.png")
LEVEL = f"{100 * (1 - ALPHA):g} %"
MAX_PAIRS = 10
MIN_SHOWN = 0.005  # proportion; a smaller one would be shown as 0 %
KINDS = {
    SINUS: "recorded strips of normal sinus rhythm.",
    COARSE_VF: "recorded strips of coarse VF.",
    QUIET: f"nonshockable strips with random phases, scaled to {QUIET_MV:g} mV from peak to peak, in place of "
    "asystole, of which there are few patients. These strips differ little, so their intervals are narrow.",
    RANDOMISED: "nonshockable strips with random phases: the same power spectrum, but no beats.",
}


def describe_evidence(found: Importance) -> str:
    """Return one sentence on whose strips were changed."""
    whom = {"train": "training"}.get(found.subset, found.subset)
    return (
        f"Strips of {found.window_s:g} s of {len(found.patients)} {whom} patients; a shock is advised from a "
        f"probability of {found.threshold:g}."
    )


def describe_habits(found: Importance) -> list[str]:
    """Return a sentence for each of the most dangerous habits."""
    return [_habit(habit) for habit in find_habits(found.responses)]


def _habit(habit: Habit) -> str:
    response, at = habit.response, habit.dose
    wrong, before = response.wrong(at), response.advised[0]
    if wrong is None:
        raise ValueError(f"{response.pattern} has no wrong advice at dose {at}; give a habit of find_habits.")
    if response.right[at]:
        before = before.complement
    unusable = response.unusable[at]
    return (
        f"{_capital(response.pattern)} on {_article(response.background)} ({response.dose}: {_dose(response, at)}): "
        f"{'no shock' if response.right[at] else 'a shock'} is advised, wrongly, for {_percent(wrong)} of the strips "
        f"({patients_text(response.patients)}), and for {100 * before.mean:.0f} % without the pattern."
        + (f" {100 * unusable:.0f} % of the strips are unusable." if unusable >= MIN_SHOWN else "")
    )


def answer_questions(found: Importance) -> list[tuple[str, str]]:
    """Return questions of a design review, and their answers."""
    limit, rate = found.coarse_vf_mv, found.rapid_vt_bpm
    no_beats = next(r for r in found.responses if r.background == RANDOMISED)
    return [
        (
            f"Does the network hold the boundary of {limit:g} mV between coarse and fine VF?",
            _crossings(
                found,
                (SCALED, COARSE_VF, "recorded coarse VF, scaled to an amplitude"),
                (OSCILLATION, QUIET, "an oscillation of 3–8 Hz on a quiet line"),
                boundary=limit,
            ),
        ),
        (
            f"At which rate does a wide-complex rhythm become a shock? Rapid VT begins at {rate:g}/min.",
            _crossings(found, (VENTRICULAR, QUIET, "ventricular complexes on a quiet line"), boundary=rate),
        ),
        (
            "How large a T wave turns sinus rhythm into a shock?",
            _crossings(
                found,
                (T_WAVES, SINUS, "recorded sinus rhythm with added T waves"),
                (FAST_T_WAVES, QUIET, "T waves after narrow complexes of 1 mV at 120/min on a quiet line"),
            ),
        ),
        (
            "What is advised without beats? Nonshockable strips get random phases, which keeps their spectrum.",
            f"A shock is advised for {_percent(no_beats.advised[0])} of these strips "
            f"({patients_text(no_beats.patients)}).",
        ),
    ]


def _crossings(found: Importance, *places: tuple[str, str, str], boundary: float | None = None) -> str:
    """Say at which dose the mean logit of each place crosses the threshold."""
    sentences = []
    for pattern, background, what in places:
        response = found.response(pattern, background)
        if response is None:
            sentences.append(f"{_capital(what)}: not tested, because there are no such strips.")
            continue
        unit, at = response.unit, response.crossing
        if at is None:
            most = max(response.advised[1:], key=lambda one: one.mean)
            sentences.append(
                f"{_capital(what)}: the mean logit does not cross the threshold between {_dose(response, 1)} and "
                f"{_dose(response, -1)} ({patients_text(response.patients)}). A shock is "
                + (f"advised for at most {_percent(most)} of the strips." if most.mean else "never advised.")
            )
            continue
        verdict = ""
        if boundary is not None and at.lower is not None and at.upper is not None:
            below, above = at.upper < boundary, at.lower > boundary
            verdict = "below the boundary" if below else "above the boundary" if above else "at about the boundary"
            verdict = f", which is {verdict}"
        spec, space = (".0f", "") if unit == "/min" else (".2g", " ")
        sentences.append(
            f"{_capital(what)}: the mean logit crosses the threshold at {at.mean:{spec}}{space}{unit} "
            f"({_interval(at, spec)}, {patients_text(response.patients)}){verdict}."
        )
    return " ".join(sentences)


def overview_table(found: Importance) -> Table:
    """Return the importance of each pattern at its usual dose on each kind of background, without intervals."""
    kinds = [kind for kind in KINDS if any(r.background == kind for r in found.responses)]
    rows = []
    for pattern in dict.fromkeys(r.pattern for r in found.responses):
        by_kind = {r.background: r for r in found.responses if r.pattern == pattern}
        one = next(iter(by_kind.values()))
        cells = (signed(by_kind[kind].importance.mean) if kind in by_kind else NONE for kind in kinds)
        rows.append((f"{pattern}, {_dose(one, one.usual)}", *cells))
    return Table("Mean change of the logit at the usual dose", ("Pattern", *kinds), tuple(rows))


def write_explanation(found: Importance, folder: Path, command: str = "") -> None:
    """Write the page, the JSON file and the pictures; see `NAMES`. `command` is shown on the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / NAMES[0], render_page("importance", _view(found, command)))
    write_text(folder / NAMES[1], json.dumps(asdict(found), indent=1, allow_nan=False) + "\n")
    save_pictures(found, folder / NAMES[2], folder / NAMES[3])


def importance_section(found: Importance) -> dict[str, object]:
    """Return the values of the section *What the model responds to*."""
    return {
        "model": found.model,
        "evidence": describe_evidence(found),
        "omitted": found.omitted,
        "habits": describe_habits(found),
        "answers": answer_questions(found),
        "level": LEVEL,
        "kinds": list(KINDS.items()),
        "overview": to_svg(OVERVIEW, lambda axes: draw_overview(axes, found), **size_of_overview(found)),
        "importance": _importance_table(found),
    }


def _view(found: Importance, command: str) -> dict[str, object]:
    pairs = sorted(found.interactions, key=lambda pair: -abs(pair.interaction.mean))
    return {
        "title": f"What the model {found.model} responds to",
        "synthetic": SYNTHETIC_NOTE if found.synthetic else "",
        "disclaimer": DISCLAIMER,
        "responses": importance_section(found),
        "level": LEVEL,
        "charts": list(_charts(found)),
        "doses": _doses_table(found.responses),
        "pairs": _pairs_table(f"The {min(MAX_PAIRS, len(pairs))} largest interactions", pairs[:MAX_PAIRS]),
        "all_pairs": _pairs_table("All interactions, the largest first", pairs),
        "provenance": {
            **({"command": command} if command else {}),
            "model": found.model,
            "SHA-256 of the LiteRT model": found.sha256,
            f"{found.subset} patients": ", ".join(found.patients),
            "intervals": f"{LEVEL}, two-sided, from {RESAMPLES} resamples of the patients; seed {found.seed}",
            **versions(),
            "commit": commit() or "unknown",
        },
    }


def _charts(found: Importance) -> Iterator[tuple[str, object]]:
    for pattern in dict.fromkeys(r.pattern for r in found.responses):
        draw = partial(draw_response, found=found, pattern=pattern)
        yield _capital(pattern), to_svg(f"Response to {pattern}", draw, margins=MARGINS)


def _importance_table(found: Importance) -> Table:
    rows = tuple(
        (
            f"{r.pattern}, {_dose(r, r.usual)}",
            r.background,
            str(r.patients),
            str(r.strips),
            signed(r.importance.mean),
            _limits(r.importance),
            f"{100 * r.advised[0].mean:.0f}",
            f"{100 * r.advised[r.usual].mean:.0f}",
        )
        for r in found.responses
    )
    header = (
        "Pattern",
        "Background",
        "Patients",
        "Strips",
        "Change of\nthe logit",
        "Interval",
        "Shock without, %",
        "with, %",
    )
    return Table("Importance at the usual dose", header, rows)


def _doses_table(responses: Sequence[Response]) -> Table:
    rows = tuple(
        (
            r.pattern,
            r.background,
            "none" if i == 0 else _dose(r, i),
            signed(r.effect[i].mean),
            f"{r.logit[i].mean:.2f}",
            _limits(r.logit[i]),
            f"{100 * r.advised[i].mean:.0f}",
            f"{100 * r.unusable[i]:.0f}",
        )
        for r in responses
        for i in range(len(r.doses))
    )
    header = ("Pattern", "Background", "Dose", "Change of\nthe logit", "Logit", "Interval", "Shock, %", "Unusable, %")
    return Table("All doses", header, rows)


def _pairs_table(title: str, pairs: Sequence[Interaction]) -> Table:
    rows = tuple(
        (f"{p.first} and {p.second}", signed(p.together.mean), signed(p.interaction.mean), _limits(p.interaction))
        for p in pairs
    )
    return Table(title, ("Patterns", "Together", "Interaction", "Interval"), rows)


def signed(value: float) -> str:
    """Format a change of the logit, such as ``"+1.23"``.

    Examples
    --------
    >>> signed(1.234), signed(-0.001), signed(-2.0)
    ('+1.23', '0.00', '−2.00')
    """
    return f"{np.round(value, 2) + 0.0:+.2f}".replace("+0.00", "0.00").replace("-", "−")


def _limits(found: Estimate) -> str:
    return NONE if found.lower is None or found.upper is None else f"{signed(found.lower)} to {signed(found.upper)}"


def _interval(found: Estimate, spec: str) -> str:
    lower, upper = ("?" if limit is None else format(limit, spec) for limit in (found.lower, found.upper))
    return f"{LEVEL} interval {lower} to {upper}"


def _percent(found: Estimate) -> str:
    if found.lower is None or found.upper is None:
        return f"{100 * found.mean:.0f} %"
    return f"{100 * found.mean:.0f} % ({LEVEL} interval {100 * found.lower:.0f} to {100 * found.upper:.0f})"


def _dose(response: Response, index: int) -> str:
    space = "" if response.unit in ("/min",) else " "
    return f"{response.doses[index]:g}{space}{response.unit}"


def _article(kind: str) -> str:
    return f"a {kind}" if kind == QUIET else kind


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
