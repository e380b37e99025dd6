"""Full tuning: every weight behind the convolutional front end is trained.

    W <- W - rate * Adam(d loss / d W),  for all W but the front end's

The dense baseline. As in the weight tuning of S3-Router and unlike PARP's own
baselines, nothing is held frozen at the start; the front end stays frozen, as
in all methods here and in the fine-tuning of wav2vec 2.0 (Baevski et al.,
2020, section 4.2).
"""

from torch import Tensor, nn

from s3router.methods.base import Method
from s3router.methods.tunable import free_weights, restore_weights


class FullTuning(Method):
    """Train all encoder weights but the front end's."""

    name = "full"
    changes_weights = True

    def __init__(self) -> None:
        self._tuned: dict[str, nn.Parameter] = {}

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the front end, free everything behind it."""
        self._tuned = free_weights(encoder)

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
        restore_weights(self._tuned, state)
