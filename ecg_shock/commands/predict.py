"""`ecg-shock predict`: advise a shock, or no shock, for one strip of a recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ecg_shock.commands import Decimal, Delimiter, Fs, Lead, Model, Units

if TYPE_CHECKING:
    from ecg_shock.inference.advisor import Advice


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Advise a shock, or no shock, for one strip of one lead.

    A strip is a part of the recording of 2 to 10 s. No shock is advised for an
    unusable strip: one that is flat, saturated, noisy or out of range, or has
    more than 10 % of its samples missing.

    Example: ecg-shock predict cudb/cu01 --start 225 --length 5
    """
    from ecg_shock.data.lead import open_lead
    from ecg_shock.inference.advisor import Advisor

    source = open_lead(path, fs=fs, units=units, lead=lead, delimiter=delimiter, decimal=decimal)
    strip = source.strip(start, length)
    advisor = Advisor(model)
    advice = advisor.predict(strip)
    name = advisor.bundle.name or str(advisor.bundle.folder)
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


def _verdict(advice: Advice) -> tuple[str, str]:
    """Return a rich style and the advice in words."""
    if not advice.usable:
        return "bold yellow", f"UNUSABLE: {advice.reason}"
    return ("bold red", "SHOCK ADVISED") if advice.shock else ("bold green", "NO SHOCK ADVISED")
