"""Labels of records without an annotation file: their manifest gives each record's rhythms and their starts."""

from __future__ import annotations

from dataclasses import replace

from ecg_shock.data.manifests import Manifest
from ecg_shock.data.recordings import Episode, Recording


def label_record(recording: Recording, record: str, manifest: Manifest) -> Recording:
    """Label a recording by `record_labels` of its manifest.

    Parameters
    ----------
    recording : Recording
        The record as it was read.
    record : str
        Its name, one of `manifest.record_labels`.
    manifest : Manifest
        The record's database.

    Returns
    -------
    Recording
        Its episodes cover it from 0 s to its end, in order, without overlap. It has no beats, because none are
        annotated: `ecg_shock.data.windows` measures the heart rate where a rhythm is not named.

    Raises
    ------
    ValueError
        If a label begins after the end of the recording.
    """
    labels = manifest.labels_of(record)
    starts_s = [start_s for start_s, _ in labels]
    if starts_s[-1] >= recording.duration_s:
        raise ValueError(
            f"record_labels of {manifest.name} has {record!r} change at {starts_s[-1]:g} s, but the recording ends at "
            f"{recording.duration_s:g} s; correct the manifest."
        )
    episodes = tuple(
        Episode(start_s, end_s, manifest.rhythm_codes[code], code)
        for (start_s, code), end_s in zip(labels, [*starts_s[1:], recording.duration_s], strict=True)
    )
    return replace(recording, database=manifest.name, patient=manifest.patient_of(record), episodes=episodes)
