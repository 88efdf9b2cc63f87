"""Define the rhythms, and the AHA class of each rhythm.

A *rhythm* is the annotation of a segment of ECG in a database. An *AHA class* is the label of a window, according to
the AHA recommendation for AED algorithms [1]_. For ventricular fibrillation (VF), ventricular tachycardia (VT) and
asystole, the class also depends on the amplitude or heart rate of the window (see `ecg_shock.data.windows`). Each
database has a manifest, `data_manifests/*.toml`, which maps the annotation codes of the database to these rhythms.

References
----------
.. [1] Kerber et al., Circulation 95:1677-1682, 1997, doi:10.1161/01.CIR.95.6.1677
"""

from __future__ import annotations

SHOCKABLE = ("coarse_vf", "rapid_vt")
NONSHOCKABLE = ("normal_sinus", "other_nonshockable", "asystole")
INTERMEDIATE = ("fine_vf", "other_vt", "slow_vf")
AHA_CLASSES = (*SHOCKABLE, *NONSHOCKABLE, "fine_vf", "other_vt")
# Slow VF is not a class of the AHA: an optional rule of the label policy separates it from coarse VF.
CLASSES = (*AHA_CLASSES, "slow_vf")

AHA_LABELS = {
    "coarse_vf": "Coarse VF",
    "rapid_vt": "Rapid VT",
    "normal_sinus": "Normal sinus rhythm",
    "other_nonshockable": "Other nonshockable (AF, SB, SVT, block, PVC …)",
    "asystole": "Asystole",
    "fine_vf": "Fine VF",
    "other_vt": "Other VT",
    "slow_vf": "Slow periodic VF",
}

# The AHA class of each rhythm. Windows of VF or VT are classified further, by amplitude or heart rate. The AHA lists
# AF, sinus bradycardia, SVT, heart block, idioventricular rhythm and PVCs as other nonshockable rhythms. Here, all
# other organised rhythms are included: flutter, junctional, paced, pre-excited, and `organised`, a segment with beats
# but without a named rhythm (cudb outside VF).
RHYTHMS = {
    "vf": "coarse_vf",
    "vt": "rapid_vt",
    "asystole": "asystole",
    "normal_sinus": "normal_sinus",
    "sinus_bradycardia": "other_nonshockable",
    "atrial_fibrillation": "other_nonshockable",
    "atrial_flutter": "other_nonshockable",
    "atrial_ectopy": "other_nonshockable",
    "svt": "other_nonshockable",
    "junctional": "other_nonshockable",
    "heart_block": "other_nonshockable",
    "idioventricular": "other_nonshockable",
    "ventricular_ectopy": "other_nonshockable",
    "preexcitation": "other_nonshockable",
    "paced": "other_nonshockable",
    "organised": "other_nonshockable",
}

# Labels of segments that are not classified.
UNUSABLE = ("noise", "unlabelled")
