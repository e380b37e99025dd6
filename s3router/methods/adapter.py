"""Bottleneck adapters: the other way to add a language to a frozen encoder.

    y = b(x) + W_up relu(W_down norm(b(x))),  W_up and W_down trained

behind each transformer block b, as MMS adds languages (Pratap et al., 2023,
section 5.3), and much as the baselines of S3-Router and S3Net, which put them
behind the feed-forward part; see `s3router.models.bottleneck`. The adapters
are stored as weights of their own, since they cannot be merged into others.
"""

import torch
from torch import Tensor, nn

from s3router.errors import whole_number
from s3router.methods.base import Method, freeze
from s3router.methods.tunable import restore_weights
from s3router.models.bottleneck import attach_bottlenecks


class Adapter(Method):
    """Train adapters behind every block; all else is frozen.

    They are the group `weights`, so that a YAML's `lr_weights` is their rate.

    Arguments
    ---------
    adapter_width : int
        Of the bottlenecks; 256 in S3-Router's baselines on encoders 768
        wide, 16 in MMS.
    seed : int
        Of what goes down; what comes up starts at zero.
    """

    name = "adapter"
    changes_weights = True

    def __init__(self, adapter_width: int = 64, seed: int = 0):
        self.width = whole_number("adapter_width", adapter_width)
        self.seed = whole_number("seed", seed, least=0)
        self._tuned: dict[str, nn.Parameter] = {}

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the encoder and put adapters into its blocks."""
        freeze(encoder)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self._tuned = attach_bottlenecks(encoder, self.width)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the adapters as the one group `weights`."""
        return {"weights": list(self._tuned.values())}

    def weights(self) -> dict[str, Tensor]:
        """Return the adapters' weights by the names that they have."""
        return {n: p.detach() for n, p in self._tuned.items()}

    def describe(self) -> dict:
        """Return the method, the width, and bytes of the adapters in fp16."""
        return {
            "method": self.name,
            "adapter_width": self.width,
            "adapter_bytes": 2 * sum(p.numel() for p in self._tuned.values()),
            "seed": self.seed,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the adapters' weights."""
        return self.weights()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the adapters; names and shapes must be the same."""
        restore_weights(self._tuned, state)
