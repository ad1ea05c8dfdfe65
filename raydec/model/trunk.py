"""The interface of a trunk, the first part of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from raydec.features.front_end import FrontEnd
from raydec.model.noise import Noise


class Trunk(nn.Module, ABC):
    """Maps chunks of normalised frames to one vector each, the input of all branches.

    Attributes:
        utterances_per_block: utterances that a CPU encodes at a time without gradients. Two keep the
            activations of convolutions in its cache; a linear layer reads its weights once per block.
    """

    utterances_per_block: int = 2

    @property
    @abstractmethod
    def embedding_dim(self) -> int:
        """Width of the vectors."""

    @abstractmethod
    def forward(
        self, chunks: Float[Tensor, "chunk frame width"], noise: Noise | None = None
    ) -> Float[Tensor, "chunk embedding"]:
        """Encode chunks; dropout only with ``noise``."""

    @abstractmethod
    def decoder(self, latent_dim: int) -> nn.Module:
        """A module that maps latent vectors, [chunk, latent], back to chunks, for the autoencoders."""

    def takes(self, num_frames: int) -> bool:
        """Whether chunks of this length, at most the configured one, can be encoded."""
        return True

    def tuned_parameters(self) -> list[nn.Parameter]:
        """Parameters of a pretrained encoder, which have their own learning rate."""
        return []

    def read_pretrained(self) -> None:
        """Read the weights of a pretrained encoder; called after the random initialisation.

        Raises:
            UserError: the encoder is not found, or is another one.
        """
        return

    def recompute_layers(self) -> None:
        """Save memory in training by recomputing the layers of a pretrained encoder in the backward pass."""
        return

    def located(self, front_end: FrontEnd) -> None:
        """Record the location of a pretrained encoder's files, unless it is already known."""
        return
