"""Judging predictions by the AHA goals: confidence limits, counts by class, patient, database and rhythm."""
