"""A bundle restores the model it was written from, or is refused; reading one runs no code."""

from __future__ import annotations

import hashlib
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecg_shock.inference.advisor import DEFAULT_BUNDLE, Advisor
from ecg_shock.models import CnnSpec, build_model
from ecg_shock.models.bundle import Bundle, load_bundle, write_bundle
from ecg_shock.preprocessing import Preprocessing

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# TensorFlow's converter warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

SPEC = CnnSpec(filters=(4, 3), kernels=(7, 5))
PREPROCESSING = Preprocessing(high_hz=35.0, mains_hz=50.0)
CARD = {
    "name": "Small one",
    "patients": ["vfdb/418", "cudb/cu01"],
    "seed": 3,
    "results": {"Se %": 91.5, "Sp %": 97.25, "protocol": "public-v1"},
}


def write(folder: Path, **changes: object) -> Bundle:
    """Write a bundle of an untrained network."""
    arguments = {"spec": SPEC, "preprocessing": PREPROCESSING, "threshold": 0.4, "card": CARD} | changes
    return write_bundle(folder, build_model(SPEC, seed=changes.pop("seed", 0)), **arguments)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle once, for tests that only read."""
    return write(tmp_path_factory.mktemp("bundle") / "deep" / "folder").folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """Copy the bundle, for tests that damage it."""
    for file in written.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_bundle_comes_back_as_it_was_written(written: Path) -> None:
    """Network, preprocessing, threshold and card are read back, also from a path given as str."""
    bundle = load_bundle(str(written))
    assert (bundle.spec, bundle.preprocessing, bundle.threshold) == (SPEC, PREPROCESSING, 0.4)
    assert bundle.raw_card == CARD
    assert sorted(file.name for file in written.iterdir()) == ["CARD.md", "bundle.toml", "model.keras", "model.tflite"]
    assert bundle.read_litert() == (written / "model.tflite").read_bytes()


def test_global_pool_is_stored_only_if_it_is_not_the_default(written: Path, tmp_path: Path) -> None:
    """Versions without `global_pool` read a network of the default; another one is read back."""
    assert "global_pool" not in tomllib.loads((written / "bundle.toml").read_text())["network"]
    spec = replace(SPEC, global_pool="max+average")
    write_bundle(tmp_path, build_model(spec), spec=spec, preprocessing=PREPROCESSING, threshold=0.4, card={})
    assert load_bundle(tmp_path).spec == spec


def test_average_is_over_windows_of_any_length(tmp_path: Path, rng: np.random.Generator) -> None:
    """The bundle's LiteRT model averages over windows of 2 to 10 s as networks for their length do."""
    spec = replace(SPEC, global_pool="max+average")
    write_bundle(tmp_path, build_model(spec), spec=spec, preprocessing=PREPROCESSING, threshold=0.4, card={})
    advisor, weights = Advisor(tmp_path), load_bundle(tmp_path).load_keras().get_weights()
    for samples in (250, 251, 625, 1250, 250):
        ecg = rng.normal(size=(3, samples))
        model = build_model(replace(spec, input_samples=samples))
        model.set_weights(weights)
        expected = np.asarray(model(ecg[..., np.newaxis]))[:, 0]
        np.testing.assert_allclose(advisor.probabilities(ecg), expected, atol=1e-6)


def test_keras_model_comes_back(written: Path, rng: np.random.Generator) -> None:
    """The Keras model of a bundle computes the same as the one that was written."""
    ecg = rng.normal(size=(3, 625, 1)).astype(np.float32)
    expected = build_model(SPEC, seed=0)(ecg).numpy()
    np.testing.assert_array_equal(load_bundle(written).load_keras()(ecg).numpy(), expected)


@pytest.mark.parametrize("name", ["model.tflite", "model.keras"])
def test_one_flipped_bit_is_refused(copy: Path, name: str) -> None:
    """A changed model file is an error that names it."""
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    bundle = load_bundle(copy)
    with pytest.raises(ValueError, match=rf"{name} has SHA-256 .*changed or damaged"):
        bundle.read_litert() if name == "model.tflite" else bundle.load_keras()


@pytest.mark.parametrize("name", ["model.tflite", "model.keras"])
def test_missing_model_is_named(copy: Path, name: str) -> None:
    """A missing model file is a FileNotFoundError that says that the bundle is incomplete."""
    (copy / name).unlink()
    bundle = load_bundle(copy)
    with pytest.raises(FileNotFoundError, match=f"{name} is missing: the bundle is incomplete"):
        bundle.read_litert() if name == "model.tflite" else bundle.load_keras()


def test_other_folders_are_refused(tmp_path: Path) -> None:
    """An empty folder and a missing folder are not bundles."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileNotFoundError, match=r"is not a bundle: it has no bundle\.toml"):
            load_bundle(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "format is 2, but this version reads 1"),
        ("format = 1\n", "", "'format'"),
        ("threshold = 0.4", "threshold = 0", "threshold=0 is not allowed"),
        ("threshold = 0.4", "threshold = 1.0", "threshold=1.0"),
        ("threshold = 0.4", "threshold = nan", "threshold=nan"),
        ("threshold = 0.4", 'threshold = "0.5"', "threshold='0.5'"),
        ("threshold = 0.4", "threshold = true", "threshold=True"),
        ("threshold = 0.4\n", "", "'threshold'"),
        ("[network]", "[network]\ndepth = 3", "depth"),
        ("[preprocessing]", "[preprocessing]\nnotch = 3", "notch"),
        ("high_hz = 35.0", "high_hz = 350.0", "high_hz=350.0"),
        ("high_hz = 35.0", 'high_hz = "35"', "TypeError"),
        ("grid = false", "grid = [0]", "grid=[0] is not allowed"),
        ("dropout = 0.3", 'dropout = "0.3"', "TypeError"),
        ("[network]", "[net]", "'network'"),
        ("[sha256]", "[sha1]", "'sha256'"),
        ('"model.tflite"', '"model.lite"', "model.tflite"),
        ("[card]", "[[card]]", "ValueError"),
    ],
)
def test_damaged_description_is_refused(copy: Path, old: str, new: str, message: str) -> None:
    """A value out of range, an unknown or a missing key is an error that names the file and the key."""
    path = copy / "bundle.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match="cannot be read as a bundle") as refusal:
        load_bundle(copy)
    assert message in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"format = ", b"format = 1", b"network = 3\nformat = 1", b"format = " + b"[" * 5000],
)
def test_garbage_is_refused(copy: Path, content: bytes) -> None:
    """An empty, truncated or foreign bundle.toml is a ValueError that names it."""
    (copy / "bundle.toml").write_bytes(content)
    with pytest.raises(ValueError, match=r"bundle\.toml cannot be read as a bundle"):
        load_bundle(copy)


def test_truncated_description_is_refused(copy: Path) -> None:
    """A bundle.toml that ends anywhere before its card is refused."""
    path = copy / "bundle.toml"
    content = path.read_bytes()
    for length in range(0, content.index(b"[card]"), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot be read as a bundle"):
            load_bundle(copy)


def test_damaged_keras_file_with_its_digest_is_refused(copy: Path) -> None:
    """Any error of Keras on a damaged file becomes a ValueError that names the file."""
    content = bytearray((copy / "model.keras").read_bytes())
    old = hashlib.sha256(content).hexdigest()
    content[len(content) // 2] ^= 1
    (copy / "model.keras").write_bytes(content)
    text = (copy / "bundle.toml").read_text()
    (copy / "bundle.toml").write_text(text.replace(old, hashlib.sha256(content).hexdigest()))
    # Which error it is depends on what the byte belonged to, and so on the version of Python that compressed the file.
    with pytest.raises(
        ValueError, match=r"model\.keras cannot be read as a Keras model: .*\((BadZipFile|ValueError)\)"
    ):
        load_bundle(copy).load_keras()


def replace_keras_file(copy: Path, model: Any) -> None:
    """Put another model into a bundle, with its digest."""
    digests = load_bundle(copy).digests
    model.save(copy / "model.keras")
    digest = hashlib.sha256((copy / "model.keras").read_bytes()).hexdigest()
    path = copy / "bundle.toml"
    path.write_text(path.read_text().replace(digests["model.keras"], digest))


def test_code_in_a_keras_file_is_not_run(copy: Path) -> None:
    """A Lambda layer is never built: only the weights are read, into the network that bundle.toml describes."""
    import keras

    original = load_bundle(copy).load_keras()
    layers = [keras.layers.Lambda(lambda x: x * 0), *original.layers[1:]]
    x = ecg = keras.Input((625, 1))
    for layer in layers:
        x = layer(x)
    replace_keras_file(copy, keras.Model(ecg, x))
    windows = np.random.default_rng(0).normal(size=(3, 625, 1))
    found = load_bundle(copy).load_keras()
    np.testing.assert_array_equal(found(windows), original(windows))
    assert not [layer for layer in found.layers if isinstance(layer, keras.layers.Lambda)]


def test_keras_file_of_another_network_is_refused(copy: Path) -> None:
    """Weights of other shapes or of fewer layers are a ValueError."""
    import keras

    spec = load_bundle(copy).spec
    fewer = keras.Sequential([keras.Input((625, 1)), keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(1)])
    for other in (build_model(replace(spec, kernels=tuple(k + 1 for k in spec.kernels))), fewer):
        replace_keras_file(copy, other)
        with pytest.raises(ValueError, match=r"model\.keras cannot be read as a Keras model"):
            load_bundle(copy).load_keras()


def test_writing_again_replaces(copy: Path) -> None:
    """A second bundle in the same folder replaces the first completely."""
    first = load_bundle(copy)
    second = write_bundle(
        copy, build_model(SPEC, seed=1), spec=SPEC, preprocessing=Preprocessing(), threshold=0.7, card={"name": "2"}
    )
    assert load_bundle(copy) == second
    assert second.threshold == 0.7
    assert second.digests["model.tflite"] != first.digests["model.tflite"]
    assert second.read_litert() != b""
    with pytest.raises(ValueError, match="changed or damaged"):
        first.read_litert()
    assert len(list(copy.iterdir())) == 4


@pytest.mark.parametrize("threshold", [0, 1, -0.1, math.nan, "0.5", True, None])
def test_threshold_out_of_range_is_not_written(copy: Path, threshold: object) -> None:
    """A threshold that could not be read is not written, and the older bundle is kept."""
    before = load_bundle(copy)
    with pytest.raises(ValueError, match=f"threshold={threshold!r}"):
        write(copy, threshold=threshold)
    assert load_bundle(copy) == before
    assert before.read_litert()


def test_card_that_toml_cannot_hold_leaves_the_old_bundle(copy: Path) -> None:
    """None in a card is a TypeError before anything is replaced."""
    before = load_bundle(copy)
    with pytest.raises(TypeError):
        write(copy, card={"commit": None})
    assert load_bundle(copy) == before
    assert before.read_litert()


def test_card_has_every_entry(written: Path) -> None:
    """CARD.md has the network, the threshold and every entry, and says that it is not a medical device."""
    text = (written / "CARD.md").read_text(encoding="utf-8")
    assert text.startswith("# Small one\n")
    assert "**Not a medical device**" in text
    assert f"{SPEC.parameter_count()} parameters" in text
    for line in ("- threshold: 0.4 (", "- patients: vfdb/418, cudb/cu01\n", "## results\n", "- Se %: 91.5\n"):
        assert line in text


def test_hostile_card_keeps_its_layout(tmp_path: Path) -> None:
    """Line breaks, headings and HTML in keys and values are one line of text in CARD.md, and exact in TOML."""
    hostile = "fine\n# Approved\n\n<script>alert(1)</script>\r\n- shock: always"
    card = {"name": hostile, "note": hostile, hostile: [hostile, "b"], "results": {hostile: hostile}, "µ \u2028é": "ü"}
    write(tmp_path, card=card)
    lines = (tmp_path / "CARD.md").read_text(encoding="utf-8").split("\n")
    assert [line for line in lines if line.startswith("#")] == [lines[0], "## results"]
    assert sum(line.startswith("- ") for line in lines) == 2 + 4
    assert not any("<" in line for line in lines)
    assert load_bundle(tmp_path).raw_card == card
    assert tomllib.loads((tmp_path / "bundle.toml").read_text(encoding="utf-8"))["card"] == card


SEEN = {
    "data": {"databases": ["vfdb"], "fold": 2},
    "training": {"epochs": 3},
    "patients": {"train": ["vfdb/418"], "validation": ["vfdb/419"], "test": []},
}


def test_card_is_typed_and_comes_back(copy: Path) -> None:
    """A card is read by field, a missing entry has a default, and writing the card gives the same table."""
    bundle = replace(load_bundle(copy), raw_card={**SEEN, "name": "one", "synthetic_windows": 7, "foreign": [1]})
    card = bundle.card
    assert (card.name, card.data.fold, card.training, card.synthetic_windows) == ("one", 2, {"epochs": 3}, 7)
    assert (card.selection, card.validation, card.test) == ("", None, None)
    assert card.patients.seen(["vfdb/418", "vfdb/419", "vfdb/420"]) == {"vfdb/418", "vfdb/419"}
    assert replace(bundle, raw_card=card.to_toml(copy / "bundle.toml")).card == card
    given = load_bundle(DEFAULT_BUNDLE)
    rewritten = given.card.to_toml(DEFAULT_BUNDLE / "bundle.toml")
    assert {key: rewritten[key] for key in given.raw_card if key != "data"} == {
        key: value for key, value in given.raw_card.items() if key != "data"
    }
    for table in ("data", "labels"):  # which have got more settings since
        before, now = ((c["data"] if table == "data" else c["data"][table]) for c in (given.raw_card, rewritten))
        assert {key: now[key] for key in before if key != "labels"} == {
            k: v for k, v in before.items() if k != "labels"
        }


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({}, r"has no \[card\.data\], \[card\.training\], \[card\.patients\], so it does not say"),
        ({**SEEN, "patients": {"train": [], "test": []}}, r"card\.patients\.validation is missing"),
        ({**SEEN, "data": {"fold": -1}}, r"card\.data\.fold = -1: input should be greater than or equal to 0"),
    ],
)
def test_incomplete_card_is_refused_when_it_is_read(written: Path, card: dict[str, Any], message: str) -> None:
    """A model with an incomplete card can be used, and reading the card is an error that names what is missing."""
    bundle = replace(load_bundle(written), raw_card=card)
    assert (bundle.name, bundle.synthetic) == ("", False)
    assert bundle.read_litert()
    with pytest.raises(ValueError, match=rf"bundle\.toml.*{message}"):
        _ = bundle.card
