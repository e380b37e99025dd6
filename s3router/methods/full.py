"""Full tuning: every weight behind the convolutional front end is trained.

The dense baseline. As in the weight tuning of S3-Router and unlike PARP's own
baselines, nothing is held frozen at the start; the front end stays frozen, as
in all methods here and in the fine-tuning of wav2vec 2.0 (Baevski et al.,
2020, section 4.2).
"""

import torch
from torch import Tensor, nn

from s3router.errors import MismatchError
from s3router.methods.base import Method, freeze

# Never part of the computation here, so it would have no gradient.
_UNUSED = "masked_spec_embed"


class FullTuning(Method):
    """Train all encoder weights but the front end's."""

    name = "full"
    changes_weights = True

    def __init__(self) -> None:
        self._tuned: dict[str, nn.Parameter] = {}

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the front end, free everything behind it."""
        freeze(encoder)
        front_end = set(encoder.feature_extractor.parameters())
        self._tuned = {
            name: parameter
            for name, parameter in encoder.named_parameters()
            if parameter not in front_end and name != _UNUSED
        }
        for parameter in self._tuned.values():
            parameter.requires_grad_(True)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the encoder's weights as the one group `weights`."""
        return {"weights": list(self._tuned.values())}

    def weights(self) -> dict[str, Tensor]:
        """Return every tuned weight by its name in the encoder."""
        return {n: p.detach() for n, p in self._tuned.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tuned weights."""
        return self.weights()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the tuned weights; names must be the same."""
        if set(state) != set(self._tuned):
            odd = sorted(set(state) ^ set(self._tuned))
            raise MismatchError(
                f"the checkpoint's tuned weights are not this encoder's: "
                f"{odd[0]} is in only one of them ({len(odd)} such names)"
            )
        for name, parameter in self._tuned.items():
            if state[name].shape != parameter.shape:
                raise MismatchError(
                    f"the checkpoint's {name} is {tuple(state[name].shape)}, "
                    f"this encoder's {tuple(parameter.shape)}: it is of "
                    "another encoder; choose another --output_folder"
                )
        with torch.no_grad():
            for name, parameter in self._tuned.items():
                parameter.copy_(state[name])
