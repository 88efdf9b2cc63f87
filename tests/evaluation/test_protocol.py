"""Only the folds of one model are pooled, and the report names what it judged."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from ecg_shock.data.parts import DataConfig
from ecg_shock.evaluation.protocol import describe, find_bundles
from ecg_shock.models.bundle import FORMAT, KERAS_NAME, LITERT_NAME, load_bundle
from ecg_shock.models.cnn import CnnSpec
from ecg_shock.preprocessing import Preprocessing

SPEC = CnnSpec((4, 3), (5, 5))
TRAINING = {"epochs": 3, "seed": 0}


def write(
    folder: Path, fold: int, *, data: dict[str, Any] | None = None, card: dict[str, Any] | None = None, **changes: Any
) -> None:
    """Write the description of a bundle; its weights play no part."""
    folder.mkdir(parents=True)
    config = DataConfig.model_validate({"fold": fold, **(data or {})})
    content = {
        "format": FORMAT,
        "threshold": 0.5,
        "network": asdict(SPEC),
        "preprocessing": Preprocessing().to_dict(),
        "sha256": {KERAS_NAME: "k" * 64, LITERT_NAME: "t" * 64},
        "card": {
            "name": f"fold {fold}",
            "commit": "c" * 40,
            "data": config.model_dump(mode="json", exclude_none=True),
            "training": TRAINING,
            "patients": {},
            **(card or {}),
        },
        **changes,
    }
    (folder / "bundle.toml").write_text(tomli_w.dumps(content))


def test_folds_of_one_model_are_found_in_order(tmp_path: Path) -> None:
    """Folds may come in any folders; only the fold, name and commit differ."""
    for fold, place in ((2, "fold-a"), (0, "fold-b"), (1, "fold-c")):
        write(tmp_path / place / "bundle", fold, card={"commit": str(fold)})
    assert [bundle.card["data"]["fold"] for bundle in find_bundles(tmp_path)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": asdict(CnnSpec((4, 2), (5, 5)))}, r"network is .*\(4, 3\).*\(4, 2\)"),
        ({"preprocessing": Preprocessing(high_hz=35.0).to_dict()}, r"preprocessing is .*30\.0.*35\.0"),
        ({"threshold": 0.4}, r"threshold is 0\.5 and 0\.4"),
        ({"data": {"split": "synthetic-v1"}}, r"data\.split is 'public-v1' and 'synthetic-v1'"),
        ({"data": {"supplement": ["asystole"]}}, r"data\.supplement is \[\] and \['asystole'\]"),
        ({"card": {"training": {**TRAINING, "seed": 1}}}, r"training\.seed is 0 and 1"),
        ({"card": {"training": {**TRAINING, "patience": 5}}}, r"training\.patience is None and 5"),
    ],
)
def test_unlike_models_are_not_pooled(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Whatever differs but the fold is named, and nothing else is."""
    write(tmp_path / "fold-0" / "bundle", 0)
    write(tmp_path / "fold-1" / "bundle", 1, **changes)
    with pytest.raises(ValueError, match=rf"cannot be pooled: {message}[^;]*\. Validate each by itself") as refusal:
        find_bundles(tmp_path)
    assert str(tmp_path / "fold-1" / "bundle") in str(refusal.value)


def test_description_is_what_the_bundle_says(tmp_path: Path) -> None:
    """Digest, fold, size and the sentence on selection are the bundle's own, and no path above its folder is told."""
    write(tmp_path / "fold-3" / "bundle", 3, card={"selection": "Chosen by hand."})
    model = describe(load_bundle(tmp_path / "fold-3" / "bundle"))
    assert (model.name, model.folder, model.split, model.fold) == ("fold 3", "fold-3/bundle", "public-v1", 3)
    assert (model.sha256, model.commit, model.threshold) == ("t" * 64, "c" * 40, 0.5)
    assert model.parameters == 5 * 4 + 4 + 4 * 5 * 3 + 3 + 3 + 1
    assert model.selection == "Chosen by hand."
    write(tmp_path / "mine", 0)
    model = describe(load_bundle(tmp_path / "mine"))
    assert (model.folder, model.selection) == ("mine", "")
