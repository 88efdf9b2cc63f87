"""Label records that have no annotation file, with the rhythms and start times in their manifest."""

from __future__ import annotations

from dataclasses import replace

from ecg_shock.data.manifests import Manifest
from ecg_shock.data.recordings import Episode, Recording


def label_record(recording: Recording, record: str, manifest: Manifest) -> Recording:
    """Add the labels in `manifest.record_labels` to a recording.

    Parameters
    ----------
    recording : Recording
        The record as it was read.
    record : str
        Name of the record, a key of `manifest.record_labels`.
    manifest : Manifest
        The record's database.

    Returns
    -------
    Recording
        The recording with episodes that cover it from 0 s to its end, in order, without overlap. It has no beats.

    Raises
    ------
    ValueError
        If a label begins after the end of the recording.
    """
    labels = manifest.labels_of(record)
    starts_s = [start_s for start_s, _ in labels]
    if starts_s[-1] >= recording.duration_s:
        raise ValueError(
            f"[record_labels] of {manifest.name} gives {record!r} a label at {starts_s[-1]:g} s, but the recording "
            f"ends at {recording.duration_s:g} s; correct the manifest."
        )
    episodes = tuple(
        Episode(start_s, end_s, manifest.rhythm_codes[code], code)
        for (start_s, code), end_s in zip(labels, [*starts_s[1:], recording.duration_s], strict=True)
    )
    return replace(recording, database=manifest.name, patient=manifest.patient_of(record), episodes=episodes)
