"""IA3: learned vectors that scale keys, values and feed-forward activations.

Source: Liu et al. (NeurIPS 2022), section 3.3. In every block

    softmax(Q (l_k * K)^T / sqrt(d)) (l_v * V),   (l_ff * gelu(W_1 x)) W_2

with l_k, l_v and l_ff trained, all else frozen. The vectors are merged into
k, v and the second feed-forward layer when saved. A baseline of few bytes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from s3router.errors import SettingError
from s3router.masks.targets import (
    find_blocks,
    resolve_targets,
    target_names,
)
from s3router.methods.peft_method import ADAPTER, PeftMethod, peft


class IA3(PeftMethod):
    """Train scaling vectors; all else stays frozen.

    The vectors are the group `weights`, so that a YAML's `lr_weights` is
    their rate.

    Arguments
    ---------
    targets : str or list of str
        Of these linear layers, those that IA3 scales: keys, values and the
        second layer of the feed-forward part.
    """

    name = "ia3"

    def __init__(self, targets: str | Sequence[str] = "all"):
        super().__init__()
        target_names(targets)
        self.targets = targets

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the encoder and put vectors of ones on its targets.

        Arguments
        ---------
        encoder : torch.nn.Module
            The Hugging Face model. Its targets become peft layers, so take
            the encoder's fingerprint before.

        Raises
        ------
        MissingDependencyError
            If peft is not installed.
        SettingError
            If none of the targets is one that IA3 scales, or a vector would
            have no effect there.
        """
        chosen = set(resolve_targets(encoder, self.targets))
        inputs, outputs = [], []
        for block in find_blocks(encoder):
            roles = {**block.attention, **block.feed_forward}
            outputs += [roles[r] for r in ("k", "v") if roles.get(r) in chosen]
            inputs += [roles["fc2"]] if roles["fc2"] in chosen else []
        if not inputs and not outputs:
            raise SettingError(
                f"targets: {self.targets!r} has no keys, values or second "
                "feed-forward layers, which are what IA3 scales"
            )
        config = peft(self.name).IA3Config(
            target_modules=outputs + inputs, feedforward_modules=inputs
        )
        self.inject(encoder, outputs + inputs, config)

    def factors(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the vector of every scaled layer."""
        for name, layer in self._layers.items():
            yield f"{name}.ia3", layer.ia3_l[ADAPTER]

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Return the scaled weights and biases by their original names."""
        found = {}
        for name, layer in self._layers.items():
            base, vector = layer.get_base_layer(), layer.ia3_l[ADAPTER]
            found[f"{name}.weight"] = base.weight * vector
            if not layer.is_feedforward and base.bias is not None:
                found[f"{name}.bias"] = base.bias * vector.flatten()
        return found

    def describe(self) -> dict:
        """Return method, targets, and bytes of the vectors."""
        return {
            "method": self.name,
            "targets": self.targets,
            "adapter_bytes": self.stored_bytes(),
        }
