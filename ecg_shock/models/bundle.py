"""Bundles: a model as it is saved, with everything that its decision depends on.

A bundle is a folder:

``bundle.toml``
    Format, threshold, network, preprocessing, the digests of the two models, and the card.
``model.tflite``
    The network for LiteRT, one window of any length from 2 to 10 s; what `predict` runs.
``model.keras``
    The same network for Keras, to retrain or export.
``CARD.md``
    What the model was trained, selected and tested on, for people.

Reading one runs no code: TOML, a flatbuffer, and (on request only) the weights in the Keras file, which are put into a
network that is built from the description: what else the file holds is not looked at, so that files of a newer Keras
can be read too. The digests say whether a file is the one that was written; whoever can change a model can change its
digest too. So the flatbuffer is also checked against the network that the bundle describes, before LiteRT sees it, for
LiteRT itself can be made to write where it must not.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, field, replace
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
BUNDLE_NAME = "bundle"  # of the folder that a training writes it to, beside its checkpoint
TOML_NAME, LITERT_NAME, KERAS_NAME, CARD_NAME = "bundle.toml", "model.tflite", "model.keras", "CARD.md"


@dataclass(frozen=True)
class Bundle:
    """A saved model, without its weights, which stay in `folder`.

    Parameters
    ----------
    folder : pathlib.Path
        Where the bundle lies.
    spec : CnnSpec
        The network.
    preprocessing : Preprocessing
        The filter it was trained behind.
    threshold : float
        Probability of *shockable* from which on a shock is advised.
    digests : dict of str to str
        SHA-256 of each model file.
    raw_card : dict
        The table [card] as it is written. It is read only when `card` is asked for, so that a model with a foreign
        card, or none, still predicts.
    """

    folder: Path
    spec: CnnSpec
    preprocessing: Preprocessing
    threshold: float
    digests: dict[str, str]
    raw_card: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def card(self) -> Card:
        """What the model was trained, selected and tested on; a ValueError names what the card does not say."""
        from ecg_shock.models.card import read_card  # pydantic, which predict does without

        return read_card(self.raw_card, self.folder / TOML_NAME)

    @property
    def name(self) -> str:
        """Name of the model; empty if its card has none."""
        return str(self.raw_card.get("name", ""))

    @property
    def synthetic(self) -> bool:
        """Whether the model was trained on synthetic recordings alone, as far as its card says."""
        return bool(self.raw_card.get("synthetic", False))

    def read_litert(self) -> bytes:
        """Return the LiteRT model, checked against its digest and against the network that it should be.

        Raises
        ------
        ValueError
            If the file is not the one that was written, or not this network.
        """
        content = self._read(LITERT_NAME)
        try:
            check_graph(content, self.spec)
        except ValueError as error:
            raise ValueError(f"{self.folder / LITERT_NAME} holds {error}. Fetch a fresh copy of the bundle.") from error
        return content

    def load_keras(self) -> keras.Model:
        """Build the Keras model, and load its weights.

        Raises
        ------
        ValueError
            If the file is not the one that was written, or holds no weights of this network.
        """
        self._read(KERAS_NAME)
        path = self.folder / KERAS_NAME
        model = build_model(self.spec)
        try:
            model.load_weights(path)
        except Exception as error:  # BadZipFile, KeyError, AttributeError and more over damaged files
            raise ValueError(f"{path} cannot be read as a Keras model: {error!s} ({type(error).__name__})") from error
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
                f"{path} has SHA-256 {found}, but {TOML_NAME} says {self.digests[name]}: it was changed or damaged. "
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
    """Write a trained network as a bundle, and return it as `load_bundle` reads it back.

    Parameters
    ----------
    folder : pathlib.Path
        A folder that is made, or whose bundle is replaced.
    model : keras.Model
        The trained network, as `ecg_shock.models.build_model` builds it from `spec`.
    spec, preprocessing, threshold
        As a `Bundle` has them.
    card : dict
        What to tell about the model, such as `ecg_shock.models.card.Card.to_toml` gives; anything that TOML can hold,
        with the keys in the order to print.

    Raises
    ------
    ValueError
        If the threshold is not between 0 and 1.
    TypeError
        If the card holds what TOML cannot, such as None.
    """
    import tomli_w

    _check_threshold(threshold)
    tomli_w.dumps(card)  # refuses what TOML cannot hold while an older bundle is still whole
    folder.mkdir(parents=True, exist_ok=True)
    toml_path = folder / TOML_NAME
    toml_path.unlink(missing_ok=True)  # without it the folder is no bundle while the models are replaced
    model.save(folder / KERAS_NAME)
    _export_litert(model, folder / LITERT_NAME)
    digests = {name: sha256(folder / name) for name in (KERAS_NAME, LITERT_NAME)}
    return _write_description(Bundle(folder, spec, preprocessing, float(threshold), digests, card))


def add_to_card(bundle: Bundle, entries: dict[str, Any]) -> Bundle:
    """Add entries to the card of a model, such as how its test went, or replace them; the model is not touched."""
    return _write_description(replace(bundle, raw_card={**bundle.raw_card, **entries}))


def _write_description(bundle: Bundle) -> Bundle:
    """Write everything but the weights; `bundle.toml` comes last and whole."""
    import tomli_w

    content = {
        "format": FORMAT,
        "threshold": bundle.threshold,
        "network": asdict(bundle.spec),
        "preprocessing": bundle.preprocessing.to_dict(),
        "sha256": bundle.digests,
        "card": bundle.raw_card,
    }
    text = tomli_w.dumps(content)
    write_text(bundle.folder / CARD_NAME, _card_markdown(bundle.spec, bundle.threshold, bundle.raw_card))
    write_text(bundle.folder / TOML_NAME, text)
    return load_bundle(bundle.folder)


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle's description; the weights are read when they are needed.

    Parameters
    ----------
    folder : str or pathlib.Path
        The bundle's folder.

    Raises
    ------
    FileNotFoundError
        If the folder is no bundle.
    ValueError
        If `bundle.toml` is damaged, or of another format.
    """
    folder = Path(folder)
    path = folder / TOML_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no bundle: it has no {TOML_NAME}. Give the folder that `tune` wrote.")
    try:
        content = read_toml(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r} is not {FORMAT}, the one this version reads")
        threshold = content["threshold"]
        _check_threshold(threshold)
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
    """Return the logit of a probability, on which networks decide that do not compute the sigmoid exactly.

    Examples
    --------
    >>> logit_of(0.5)
    0.0
    """
    return math.log(probability / (1 - probability))


def _check_threshold(threshold: float) -> None:
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
        raise ValueError(f"threshold={threshold!r} is not allowed; give a probability between 0 and 1.")


def _export_litert(model: keras.Model, path: Path) -> None:
    """Export with a batch of one, which is faster, and any length, which the global max-pooling leaves open.

    With the input's name fixed, equal weights give equal bytes.
    """
    keras = import_keras()
    import tensorflow as tf

    single = keras.models.clone_model(model, input_tensors=keras.Input((None, 1), batch_size=1, name="ecg"))
    single.set_weights(model.get_weights())
    # Not format="litert", which Keras has from 3.13 and so from Python 3.11 on.
    with TemporaryDirectory() as saved:
        single.export(saved, format="tf_saved_model", verbose=False)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(saved).convert())


def _card_markdown(spec: CnnSpec, threshold: float, card: dict[str, Any]) -> str:
    """Lay out the card: nested tables become headings, everything else a line."""
    lines = [
        f"# {_plain(card.get('name', 'Model card'))}",
        "",
        "Shock advice from one ECG lead. **Not a medical device**, and not a claim of conformity.",
        "",
        f"- network: filters {list(spec.filters)}, kernels {list(spec.kernels)}, {spec.parameter_count()} parameters",
        f"- threshold: {threshold:g} (probability of *shockable*)",
    ]
    lines += [
        f"- {_plain(key)}: {_plain(value)}"
        for key, value in card.items()
        if not isinstance(value, dict) and key != "name"
    ]
    for key, table in card.items():
        if isinstance(table, dict):
            lines += ["", f"## {_plain(key)}", ""] + [f"- {_plain(k)}: {_plain(v)}" for k, v in table.items()]
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    """Write a value on one line, without HTML."""
    if isinstance(value, dict):
        value = [
            f"{key} ({_plain(entry)})" if isinstance(entry, dict) else f"{key} {entry}" for key, entry in value.items()
        ]
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()).replace("<", "&lt;")
