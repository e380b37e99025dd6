"""Short hashes that tell whether what was computed with an encoder still holds.

For the names of files that runs share. A subnetwork is tied to its encoder by
`SSLEncoder.fingerprint`, which looks at the maskable weights only.
"""

import hashlib
from collections.abc import Mapping

from torch import Tensor

from s3router.formats.fingerprint import fingerprint
from s3router.models.ssl_encoder import SSLEncoder


def front_end_key(encoder: SSLEncoder) -> str:
    """Return a short hash of all that decides the front end's output."""
    model = encoder.model
    settings = [
        encoder.normalize_input,
        *(list(getattr(model.config, n)) for n in ("conv_stride", "conv_dim")),
        model.config.feat_extract_activation,
    ]
    weights = _hash(model.feature_extractor.state_dict())
    return _short(f"{weights} {settings}")


def encoder_key(encoder: SSLEncoder) -> str:
    """Return a short hash of an encoder: every weight, and its front end."""
    weights = _hash(encoder.model.state_dict())
    return _short(f"{weights} {front_end_key(encoder)}")


def _hash(state: Mapping[str, Tensor]) -> str:
    return fingerprint(
        {
            name: value.detach().float().cpu().numpy()
            for name, value in state.items()
        }
    )


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
