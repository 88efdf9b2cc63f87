"""Write the adjudication queue as one HTML page, on which an expert reads and labels the strips.

The page is a single file, and its Content-Security-Policy forbids loading others. It draws a strip when it is shown. It
keeps the answers in the browser, and saves them as a file of corrections (see `ecg_shock.data.corrections`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ecg_shock.data.corrections import CANNOT_SAY, FILE_NAME, NOISE
from ecg_shock.evaluation.adjudication import QueueEntry, QueueRule
from ecg_shock.evaluation.committee import Committee
from ecg_shock.files import write_text
from ecg_shock.inference.scan_files import clock
from ecg_shock.preprocessing import FS, Preprocessing, preprocess
from ecg_shock.report.formats import class_name, printable
from ecg_shock.report.gallery import paper_grid
from ecg_shock.report.pages import render_page
from ecg_shock.report.tables import DISCLAIMER
from ecg_shock.rhythms import AHA_CLASSES

SHOWN_LEADS = 2
MONITOR = Preprocessing(low_hz=0.5, high_hz=40.0)  # without it, a wandering baseline would leave the paper
MAX_MV = 2.0  # half of the largest height of a lead
ROW_S = 10.0  # 250 mm of paper, which fits on A4 in landscape
MV_PER_UNIT = 0.002  # of a stored sample
INVALID = np.iinfo(np.int16).min  # a stored sample that the recorder did not have

KEYS = {
    **{str(number): (name, class_name(name)) for number, name in enumerate(AHA_CLASSES, 1)},
    "8": (NOISE, "Noise"),
    "0": (CANNOT_SAY, "Cannot say"),
}


def write_queue(path: Path, entries: Sequence[QueueEntry], committee: Committee, rule: QueueRule) -> str:
    """Write the page of a queue.

    Parameters
    ----------
    path : pathlib.Path
        The file. An existing file is replaced. An equal queue gives an equal file.
    entries : sequence of QueueEntry
        The queue, in the order in which it is read.
    committee, rule : Committee, QueueRule
        How the queue was made.

    Returns
    -------
    str
        The digest of the queue. The browser keeps the answers under this name.
    """
    strips = json.dumps([_strip(entry) for entry in entries], ensure_ascii=True, separators=(",", ":"))
    queue = hashlib.sha256(strips.encode()).hexdigest()
    settings = {
        "queue": queue,
        "fs": FS,
        "mvPerUnit": MV_PER_UNIT,
        "invalid": INVALID,
        "rowS": ROW_S,
        "maxMv": MAX_MV,
        "fileName": FILE_NAME,
        "cannotSay": CANNOT_SAY,
        "keys": {key: name for key, (name, _) in KEYS.items()},
        "labels": dict(KEYS.values()),
    }
    view = {
        "disclaimer": DISCLAIMER,
        "keys": [{"key": key, "name": name, "label": label} for key, (name, label) in KEYS.items()],
        "members": [bundle.name or bundle.folder.name for bundle in committee.bundles],
        "rule": rule,
        "count": len(entries),
        "patients": len({entry.patient for entry in entries}),
        "seen": sum(entry.seen for entry in entries),
        "queue": queue,
        "monitor": MONITOR,
        "grid": paper_grid(ROW_S, SHOWN_LEADS * MAX_MV),
        "settings": _for_script(json.dumps(settings)),
        "strips": _for_script(strips),
    }
    write_text(path, render_page("adjudication", view))
    return queue


def _for_script(text: str) -> Markup:
    """Return JSON that can stand in a script element: it cannot end the element."""
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _strip(entry: QueueEntry) -> dict[str, Any]:
    """Return what the page needs to show an entry."""
    label = entry.label
    code = f", code {printable(label.episode.code)}" if label.episode.code else ""
    meaning = class_name(label.aha_class) if label.aha_class else f"no AHA class: {label.reason}"
    leads = list(zip(entry.context.leads, entry.context.signal.T, strict=True))[:SHOWN_LEADS]
    return {
        "record": entry.record,
        "patient": printable(entry.patient),
        "shownRecord": printable(entry.record),
        "start": round(entry.start_s, 3),
        "end": round(entry.end_s, 3),
        "when": f"{clock(entry.start_s)} to {clock(entry.end_s)}",
        "old": label.episode.rhythm,
        "ahaClass": label.aha_class,
        "label": f"{label.episode.rhythm.replace('_', ' ')}{code}; {meaning}",
        "from": round(label.episode.start_s, 3),
        "to": round(label.episode.end_s, 3),
        "contextStart": round(entry.context_start_s, 3),
        "leads": [{"name": printable(name), "ecg": _encode(ecg, entry.context.fs)} for name, ecg in leads],
        "opinions": [round(opinion, 3) for opinion in entry.opinions],
        "seen": entry.seen,
        "score": round(entry.score, 3),
        "disagreement": round(entry.disagreement, 3),
        "contradiction": round(entry.contradiction, 3),
        "closeness": round(entry.closeness, 3),
    }


def _encode(ecg: np.ndarray, fs: float) -> str:
    """Return a lead in the bandwidth of a monitor, as base64 of little-endian int16; a gap stays a gap."""
    mv = preprocess(ecg, fs, MONITOR)
    nearest = np.minimum(np.round(np.arange(len(mv)) * fs / FS).astype(int), len(ecg) - 1)
    units = np.clip(np.round(mv / MV_PER_UNIT), INVALID + 1, np.iinfo(np.int16).max)
    return base64.b64encode(np.where(np.isfinite(ecg[nearest]), units, INVALID).astype("<i2").tobytes()).decode("ascii")
