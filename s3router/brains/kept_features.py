"""Front-end features in files that all runs on the same clips share.

Files are memory-mapped, so that processes at one time share memory too. They
hang on the front end's weights, not on the transformer's: encoders with one
front end share them.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import NotFoundError
from s3router.models.encoder_key import front_end_key
from s3router.models.front_end_cache import LARGEST_HALF, FrontEndCache
from s3router.models.ssl_encoder import SSLEncoder

#: To be raised when the making of features or copies changes.
VERSION = 1


class KeptFeatures:
    """Reads what `keep_features` wrote.

    Arguments
    ---------
    path : pathlib.Path
        The file.
    ids : sequence of str
        Of its clips, in its order.
    """

    def __init__(self, path: Path, ids: Sequence[str]) -> None:
        self.path = path
        self._values = Ragged(path, "float16")
        self._places = {identifier: i for i, identifier in enumerate(ids)}

    def __contains__(self, identifier: str) -> bool:
        """Return whether a clip is there."""
        return identifier in self._places

    def get(
        self, identifier: str, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the (time, channels) features of a clip.

        Raises
        ------
        NotFoundError
            If the file has no such clip.
        """
        if identifier not in self._places:
            raise NotFoundError(f"{self.path} has no clip {identifier!r}")
        value = np.array(self._values[self._places[identifier]])
        return torch.from_numpy(value).to(dtype)


def features_path(
    encoder: SSLEncoder, folder: Path, name: str, depends_on: Sequence[object]
) -> Path:
    """Return where features are kept.

    Arguments
    ---------
    encoder : SSLEncoder
        Its front end makes them.
    folder : pathlib.Path
        Of all that is kept.
    name : str
        What the file begins with.
    depends_on : sequence
        All that decides what is in the file, beside the front end; values
        whose `repr` tells them apart.
    """
    parts = [VERSION, *depends_on]
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return folder / front_end_key(encoder) / f"{name}-{digest}.f16"


def keep_features(
    encoder: SSLEncoder,
    path: Path,
    ids: Sequence[str],
    samples: Callable[[str], Tensor],
    progress: bool = True,
) -> None:
    """Compute the features of clips, unless the file is there.

    Arguments
    ---------
    encoder : SSLEncoder
        With a frozen front end, on the device that computes.
    path : pathlib.Path
        Of `features_path`. Written whole or not at all.
    ids : sequence of str
        Of the clips.
    samples : callable
        ID to its waveform, (S,) float32 at 16 kHz.
    progress : bool
        Show a progress bar.

    Raises
    ------
    DataError
        If a clip is too short for one frame; named by its ID.
    """
    if not Ragged.exists(path):
        bar = tqdm(ids, desc="front end", unit="clip", disable=not progress)
        write_ragged(path, _features(encoder, bar, samples), "float16")


def _features(
    encoder: SSLEncoder,
    ids: Sequence[str],
    samples: Callable[[str], Tensor],
) -> Iterator[np.ndarray]:
    cache = FrontEndCache(encoder)
    for identifier in ids:
        cache.add([(identifier, partial(samples, identifier))], "", False)
        values = cache.get(identifier).numpy()
        yield np.clip(values, -LARGEST_HALF, LARGEST_HALF)
        cache.clear()
