"""Write and read bundles. A bundle is a model as it is saved, with its threshold and preprocessing.

A bundle is a folder with these files:

``bundle.toml``
    Format, threshold, network, preprocessing, the digests of both model files, and the card.
``model.tflite``
    The network for LiteRT, used by `predict`. It takes one window of any length from 2 to 10 s.
``model.keras``
    The same network for Keras, for further training and for exports.
``CARD.md``
    The card as text: what the model was trained, selected and tested on.

Reading a bundle runs no code from the bundle. The network is built from `bundle.toml`; the Keras file only provides the
weights. The digests detect damage, but not manipulation, and a manipulated LiteRT model could crash LiteRT. Therefore
the LiteRT model is compared with the network in `bundle.toml` before it is loaded.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ecg_shock.files import read_toml, sha256, write_text
from ecg_shock.models.cnn import CnnSpec, build_model, import_keras
from ecg_shock.models.litert_check import check_graph
from ecg_shock.preprocessing import Preprocessing

if TYPE_CHECKING:
    import keras

    from ecg_shock.models.card import Card

FORMAT = 1
BUNDLE_NAME = "bundle"  # the bundle's folder inside that of its training
DIGESTS_KEY = ("patients", "files")  # entry of the card that only programs read, so CARD.md omits it
TOML_NAME, LITERT_NAME, KERAS_NAME, CARD_NAME = "bundle.toml", "model.tflite", "model.keras", "CARD.md"


@dataclass(frozen=True)
class Bundle:
    """The description of a saved model. The weights are read from `folder` when they are needed.

    Parameters
    ----------
    folder : pathlib.Path
        The bundle's folder.
    spec : CnnSpec
        The network.
    preprocessing : Preprocessing
        Parameters of the preprocessing.
    threshold : float
        Smallest probability of *shockable* at which a shock is advised.
    digests : dict of str to str
        SHA-256 of each model file.
    raw_card : dict
        The table [card] of `bundle.toml`. It is not validated before `card` is used.
    """

    folder: Path
    spec: CnnSpec
    preprocessing: Preprocessing
    threshold: float
    digests: dict[str, str]
    raw_card: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def card(self) -> Card:
        """What the model was trained, selected and tested on. Raises ValueError if the card is incomplete."""
        from ecg_shock.models.card import read_card  # imports pydantic, which predict does not need

        return read_card(self.raw_card, self.folder / TOML_NAME)

    @property
    def name(self) -> str:
        """Name of the model; empty if its card has none."""
        return str(self.raw_card.get("name", ""))

    @property
    def synthetic(self) -> bool:
        """Whether the card says that the model was trained on synthetic recordings only."""
        return bool(self.raw_card.get("synthetic", False))

    def read_litert(self) -> bytes:
        """Return the bytes of the LiteRT model, after checking them against the digest and against `spec`.

        Raises
        ------
        FileNotFoundError
            If the file is missing.
        ValueError
            If the file was changed, or is not the network of `spec`.
        """
        content = self._read(LITERT_NAME)
        try:
            check_graph(content, self.spec)
        except ValueError as error:
            raise ValueError(f"{self.folder / LITERT_NAME} is {error}. Fetch a fresh copy of the bundle.") from error
        return content

    def load_keras(self) -> keras.Model:
        """Build the Keras model, and load its weights.

        Raises
        ------
        FileNotFoundError
            If the file is missing.
        ValueError
            If the file was changed, or does not have the weights of the network of `spec`.
        """
        self._read(KERAS_NAME)
        path = self.folder / KERAS_NAME
        model = build_model(self.spec)
        try:
            model.load_weights(path)
        except Exception as error:  # damaged files raise BadZipFile, KeyError and others
            cause = " ".join(str(error).split())[:200]  # some messages list all weights
            raise ValueError(f"{path} cannot be read as a Keras model: {cause} ({type(error).__name__})") from error
        return model

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} is missing: the bundle is incomplete. Copy {name} there, or write the bundle again."
            ) from None
        found = hashlib.sha256(content).hexdigest()
        if found != self.digests[name]:
            raise ValueError(
                f"{path} has SHA-256 {found}, but {TOML_NAME} says {self.digests[name]}: the file was changed "
                "or damaged. "
                "Write the bundle again, or fetch a fresh copy."
            )
        return content


def write_bundle(
    folder: Path,
    model: keras.Model,
    *,
    spec: CnnSpec,
    preprocessing: Preprocessing,
    threshold: float,
    card: dict[str, Any],
) -> Bundle:
    """Write a trained network as a bundle, and return the bundle as `load_bundle` reads it.

    Parameters
    ----------
    folder : pathlib.Path
        The bundle's folder. It is created if it is missing. An older bundle in it is replaced.
    model : keras.Model
        The trained network, built by `ecg_shock.models.build_model` from `spec`.
    spec, preprocessing, threshold
        As in `Bundle`.
    card : dict
        The card, usually from `ecg_shock.models.card.Card.to_toml`. It may have any entries that TOML can represent.

    Raises
    ------
    ValueError
        If the threshold is not above 0 and below 1.
    TypeError
        If the card has a value that TOML cannot represent, such as None.
    """
    import tomli_w

    check_threshold(threshold)
    tomli_w.dumps(card)  # raises TypeError before an older bundle is replaced
    folder.mkdir(parents=True, exist_ok=True)
    toml_path = folder / TOML_NAME
    toml_path.unlink(missing_ok=True)  # the folder is not a bundle while the models are replaced
    model.save(folder / KERAS_NAME)
    _export_litert(model, folder / LITERT_NAME)
    digests = {name: sha256(folder / name) for name in (KERAS_NAME, LITERT_NAME)}
    return _write_description(Bundle(folder, spec, preprocessing, float(threshold), digests, card))


def add_to_card(bundle: Bundle, entries: dict[str, Any]) -> Bundle:
    """Add or replace entries of a bundle's card, such as test results, and return the new bundle.

    The model is not changed.
    """
    return _write_description(replace(bundle, raw_card={**bundle.raw_card, **entries}))


def _write_description(bundle: Bundle) -> Bundle:
    """Write `CARD.md` and then `bundle.toml`; read the bundle again and return it."""
    import tomli_w

    content = {
        "format": FORMAT,
        "threshold": bundle.threshold,
        "network": bundle.spec.to_dict(),
        "preprocessing": bundle.preprocessing.to_dict(),
        "sha256": bundle.digests,
        "card": bundle.raw_card,
    }
    text = tomli_w.dumps(content)
    write_text(bundle.folder / CARD_NAME, _card_markdown(bundle.spec, bundle.threshold, bundle.raw_card))
    write_text(bundle.folder / TOML_NAME, text)
    return load_bundle(bundle.folder)


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle's description. The weights are read later, when they are needed.

    Raises
    ------
    FileNotFoundError
        If the folder is not a bundle.
    ValueError
        If `bundle.toml` is damaged or has another format.
    """
    folder = Path(folder)
    path = folder / TOML_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is not a bundle: it has no {TOML_NAME}. Give a bundle that `tune` or `train` wrote."
        )
    try:
        content = read_toml(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}, but this version reads {FORMAT}")
        threshold = content["threshold"]
        check_threshold(threshold)
        return Bundle(
            folder=folder,
            spec=CnnSpec(**content["network"]),
            preprocessing=Preprocessing(**content["preprocessing"]),
            threshold=threshold,
            digests={name: str(content["sha256"][name]) for name in (KERAS_NAME, LITERT_NAME)},
            raw_card=dict(content["card"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a bundle: {error!s} ({type(error).__name__})") from error


def logit_of(probability: float) -> float:
    """Return the logit of a probability p: log(p / (1 - p)).

    Examples
    --------
    >>> logit_of(0.5)
    0.0
    """
    return math.log(probability / (1 - probability))


def check_threshold(threshold: float) -> None:
    """Raise ValueError if a threshold is not a probability above 0 and below 1."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
        raise ValueError(f"threshold={threshold!r} is not allowed; give a probability above 0 and below 1.")


def _export_litert(model: keras.Model, path: Path) -> None:
    """Write the network as a LiteRT model that takes one window of any length.

    The input has a fixed name, so that equal weights give equal bytes.
    """
    keras = import_keras()
    import tensorflow as tf

    single = keras.models.clone_model(model, input_tensors=keras.Input((None, 1), batch_size=1, name="ecg"))
    single.set_weights(model.get_weights())
    # format="litert" needs Keras 3.13, and so Python 3.11.
    with TemporaryDirectory() as saved:
        single.export(saved, format="tf_saved_model", verbose=False)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(saved).convert())


def _card_markdown(spec: CnnSpec, threshold: float, card: dict[str, Any]) -> str:
    """Return the card as Markdown. A table becomes a section, and any other entry becomes a line."""
    lines = [
        f"# {_one_line(card.get('name', 'Model card'))}",
        "",
        "Shock advice from one ECG lead. **Not a medical device**, and not a claim of conformity.",
        "",
        f"- network: filters {list(spec.filters)}, kernels {list(spec.kernels)}, {spec.parameter_count()} parameters",
        f"- threshold: {threshold:g} (probability of *shockable*)",
    ]
    lines += [
        f"- {_one_line(key)}: {_one_line(value)}"
        for key, value in card.items()
        if not isinstance(value, dict) and key != "name"
    ]
    for key, table in card.items():
        if isinstance(table, dict):
            lines += ["", f"## {_one_line(key)}", ""]
            lines += [f"- {_one_line(k)}: {_one_line(v)}" for k, v in table.items() if (key, k) != DIGESTS_KEY]
    return "\n".join(lines) + "\n"


def _one_line(value: Any) -> str:
    """Return a value as one line without HTML."""
    if isinstance(value, dict):
        value = [f"{key} ({_one_line(x)})" if isinstance(x, dict) else f"{key} {x}" for key, x in value.items()]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()).replace("<", "&lt;")
