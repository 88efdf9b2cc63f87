"""`ecg-shock predict`: advise a shock, or no shock, for one strip of a recording."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ecg_shock.commands import Decimal, Delimiter, Fs, Lead, Model, Units, check_folder

if TYPE_CHECKING:
    from ecg_shock.inference.advisor import Advice
    from ecg_shock.inference.occlusion import Explanation


def predict(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A WFDB record; an .edf, .bdf, .csv, .npy or .mat file; or a downloaded record, such as vfdb/426.",
        ),
    ],
    start: Annotated[float, typer.Option(help="Start of the strip, in seconds.")] = 0.0,
    length: Annotated[float, typer.Option(help="Length of the strip in seconds, 2 to 10.")] = 5.0,
    lead: Lead = None,
    fs: Fs = None,
    units: Units = None,
    delimiter: Delimiter = None,
    decimal: Decimal = None,
    model: Model = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show which seconds and frequency bands carry the advice, and draw a picture."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the picture of --explain.")] = Path("runs/predict"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and draw no picture.")] = False,
) -> None:
    """Advise a shock, or no shock, for one strip of one lead.

    A strip is a part of the recording of 2 to 10 s. No shock is advised for an
    unusable strip: one that is flat, saturated, noisy or out of range, or has
    more than 10 % of its samples missing.

    With --explain, each second and each frequency band is removed, and the change
    of the logit is shown. A second is replaced by a straight line, and by the same
    second with random phases, because each replacement has an effect of its own.
    The effect is the smaller of both changes, or 0 if their signs differ. It is
    positive if the part is a reason for a shock.

    Example: ecg-shock predict cudb/cu01 --start 225 --length 5
    """
    from ecg_shock.data.lead import open_lead
    from ecg_shock.inference.advisor import Advisor

    if explain and not as_json:
        check_folder(out)
    source = open_lead(path, fs=fs, units=units, lead=lead, delimiter=delimiter, decimal=decimal)
    strip = source.strip(start, length)
    advisor = Advisor(model)
    advice = advisor.predict(strip)
    name = advisor.bundle.name or str(advisor.bundle.folder)
    explanation = advice.explain() if explain and advice.usable else None
    if as_json:
        result = {
            "recording": str(path),
            "lead": strip.leads[0],
            "start_s": start,
            "length_s": strip.duration_s,
            "shock": advice.shock,
            "usable": advice.usable,
            "reason": advice.reason,
            "probability": advice.probability if advice.usable else None,  # JSON has no NaN
            "threshold": advice.threshold,
            "model": name,
            "synthetic": advisor.bundle.synthetic,
            **({"explanation": _to_json(explanation)} if explanation else {}),
        }
        typer.echo(json.dumps(result, indent=2))
        return
    console = Console(markup=False, highlight=False)
    style, verdict = _verdict(advice)
    console.print(verdict, style=style, soft_wrap=True)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("strip", f"{path} lead {strip.leads[0]}, {start:g} to {start + strip.duration_s:g} s")
    if advice.usable:
        facts.add_row("probability", f"{advice.probability:.3f} of shockable; threshold {advice.threshold:g}")
    facts.add_row("model", name)
    console.print(facts)
    if explanation:
        _print_explanation(console, explanation, start)
        picture = out / f"{re.sub(r'[^A-Za-z0-9_-]', '_', source.name) or 'strip'}-{start:g}s.png"
        from ecg_shock.plots import draw_explanation

        out.mkdir(parents=True, exist_ok=True)
        draw_explanation(explanation, f"{path} lead {strip.leads[0]}: {verdict}", start).savefig(picture)
        console.print(f"written: {picture}", soft_wrap=True)


def _verdict(advice: Advice) -> tuple[str, str]:
    """Return a rich style and the advice in words."""
    if not advice.usable:
        return "bold yellow", f"UNUSABLE: {advice.reason}"
    return ("bold red", "SHOCK ADVISED") if advice.shock else ("bold green", "NO SHOCK ADVISED")


def _print_explanation(console: Console, explanation: Explanation, start_s: float) -> None:
    """Print the effect of each second and band, and what the network says without it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("part")
    for heading in ("effect", "removed:\nlogit", "\nprobability", "randomised:\nlogit", "\nprobability"):
        table.add_column(heading, justify="right")

    def add(name: str, effect: str, *changes: float) -> None:
        left = (explanation.logit - change for change in changes)
        cells = ((f"{change:+.2f}", f"{1 / (1 + math.exp(-x)):.3f}") for change, x in zip(changes, left, strict=True))
        table.add_row(name, effect, *(text for pair in cells for text in pair))

    for parts in (explanation.seconds, explanation.bands):
        for part in parts:
            name = f"{start_s + part.low:g}–{start_s + part.high:g} s" if part.kind == "second" else part.name
            add(name, f"{part.effect:+.2f}" if part.effect else "0", part.removed, part.randomised)
        table.add_section()
    add("whole strip", "", explanation.logit - explanation.all_removed, explanation.logit - explanation.all_randomised)
    console.print(table)


def _to_json(explanation: Explanation) -> dict[str, Any]:
    return {
        "logit": explanation.logit,
        "threshold_logit": explanation.threshold_logit,
        "all_removed": explanation.all_removed,
        "all_randomised": explanation.all_randomised,
        "parts": [
            {
                "part": part.name,
                "low": part.low,
                "high": None if math.isinf(part.high) else part.high,
                "removed": part.removed,
                "randomised": part.randomised,
                "effect": part.effect,
            }
            for part in explanation.parts
        ],
    }
