"""The search space: the number of blocks, and the filters and kernel length of each block.

References
----------
.. [1] Krasteva et al., Sensors 20:2875, 2020, doi:10.3390/s20102875

Deviations from the paper
    - Filters and kernel lengths are multiples of 5, because all values in the paper are multiples of 5.
    - The number of blocks is drawn first, uniformly, so that each depth gets about the same number of trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from ecg_shock.models.cnn import MAX_BLOCKS, CnnSpec

if TYPE_CHECKING:
    from keras_tuner import HyperParameters

Range = tuple[PositiveInt, PositiveInt]
RANDOM_PER_DIMENSION = 3  # as in Keras Tuner's Bayesian optimisation


class SearchSpace(BaseModel):
    """The ranges from which the networks of a search are drawn. The limits are included.

    Parameters
    ----------
    blocks : tuple of int
        Smallest and largest number of blocks.
    filters, kernels : tuple of int
        Smallest and largest number of filters of a block, and smallest and largest kernel length in samples. All must
        be multiples of `step`.
    step : int
        Step between the numbers of filters, and between the kernel lengths.
    dropout : float
        Proportion of the activations dropped in each block, the same in all networks.
    padding : {"same", "valid"}
        Padding of the convolutions, the same in all networks.

    Examples
    --------
    >>> space = SearchSpace(blocks=(1, 2), filters=(5, 10), kernels=(5, 5))
    >>> space.size()
    6
    >>> space.spec_from({"blocks": 1, "filters_1": 10, "kernel_1": 5}, input_samples=625).filters
    (10,)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    blocks: Range = (1, 7)
    filters: Range = (5, 50)
    kernels: Range = (5, 100)
    step: PositiveInt = 5
    dropout: float = Field(default=0.3, ge=0, lt=1)
    padding: Literal["same", "valid"] = "same"

    @field_validator("blocks", "filters", "kernels")
    @classmethod
    def _ascends(cls, limits: Range) -> Range:
        if limits[0] > limits[1]:
            raise ValueError("the first limit must not be greater than the second")
        return limits

    @field_validator("blocks")
    @classmethod
    def _is_not_too_deep(cls, limits: Range) -> Range:
        if limits[1] > MAX_BLOCKS:
            raise ValueError(f"a network has at most {MAX_BLOCKS} blocks")
        return limits

    @model_validator(mode="after")
    def _lies_on_grid(self) -> SearchSpace:
        for name in ("filters", "kernels"):
            limits = getattr(self, name)
            if any(limit % self.step for limit in limits):
                raise ValueError(f"{name} = {list(limits)} must be multiples of step = {self.step}")
        return self

    def size(self) -> int:
        """Count the networks of the space, including those that do not fit the window."""
        widths, lengths = ((high - low) // self.step + 1 for low, high in (self.filters, self.kernels))
        return sum((widths * lengths) ** blocks for blocks in self._depths())

    @property
    def random_trials(self) -> int:
        """Number of networks that Bayesian optimisation draws at random first: three for each hyperparameter."""
        return RANDOM_PER_DIMENSION * (1 + 2 * self.blocks[1])

    def declare(self, hp: HyperParameters) -> None:
        """Declare the hyperparameters `blocks`, `filters_1`, `kernel_1`, `filters_2` … to Keras Tuner.

        The hyperparameters of a block are active only if the network has that block.
        """
        hp.Int("blocks", *self.blocks)
        for block in range(1, self.blocks[1] + 1):
            with hp.conditional_scope("blocks", [depth for depth in self._depths() if depth >= block]):
                hp.Int(f"filters_{block}", *self.filters, step=self.step)
                hp.Int(f"kernel_{block}", *self.kernels, step=self.step)

    def spec_from(self, values: HyperParameters | Mapping[str, int], *, input_samples: int) -> CnnSpec:
        """Return the network with the hyperparameters `values`, for windows of `input_samples` samples.

        `values` must have the names that `declare` uses.

        Raises
        ------
        ValueError
            If the network does not fit windows of that length.
        """
        blocks = range(1, values["blocks"] + 1)
        return self.spec(
            tuple(values[f"filters_{block}"] for block in blocks),
            tuple(values[f"kernel_{block}"] for block in blocks),
            input_samples=input_samples,
        )

    def values_of(self, spec: CnnSpec) -> dict[str, int]:
        """Return the hyperparameters of a network, the inverse of `spec_from`."""
        values = {"blocks": len(spec.filters)}
        for block, (filters, kernel) in enumerate(zip(spec.filters, spec.kernels, strict=True), start=1):
            values |= {f"filters_{block}": filters, f"kernel_{block}": kernel}
        return values

    def spec(self, filters: tuple[int, ...], kernels: tuple[int, ...], *, input_samples: int) -> CnnSpec:
        """Return the network with these blocks, and the dropout and padding of the space."""
        return CnnSpec(
            filters=filters,
            kernels=kernels,
            dropout=self.dropout,
            padding=self.padding,
            input_samples=input_samples,
        )

    def _depths(self) -> range:
        return range(self.blocks[0], self.blocks[1] + 1)
