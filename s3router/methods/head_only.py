"""Head only: the frozen encoder as it is; the floor that others must beat.

    logits = V h(x) + b,  with the last layer h fixed, V and b trained

A linear probe, as in SUPERB (Yang et al., Interspeech 2021, section 2), but of
the last layer alone, since that is what other methods change.
"""

from torch import Tensor, nn

from s3router.methods.base import Method, freeze


class HeadOnly(Method):
    """Train nothing but the head on the last layer of the frozen encoder."""

    name = "head_only"

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the encoder."""
        freeze(encoder)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return no group: the head is the Brain's."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the encoder never changes."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take nothing back."""
