"""Front-end features of clips, computed once an encoder and kept on disk.

Train clips have faster, degraded copies beside the clean one. Files are
memory-mapped, so that all processes share them. They hang on the front end's
weights, not on the transformer's: encoders with one front end share them too.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from encoder_data import Clip
from torch import Tensor, nn

from s3router.data.augment import DegradedClips, copy_id, with_copies
from s3router.data.ragged import Ragged, write_ragged
from s3router.formats.fingerprint import fingerprint
from s3router.models.front_end_cache import LARGEST_HALF, FrontEndCache
from s3router.models.ssl_encoder import SSLEncoder

#: To be raised when the making of features or copies changes.
VERSION = 1


class Features:
    """Features of clips and of their copies.

    Arguments
    ---------
    path : pathlib.Path
        What `FeatureStore.build` wrote.
    ids : sequence of str
        In its order, copies as `s3router.data.augment.copy_id` names them.
    """

    def __init__(self, path: Path, ids: Sequence[str]) -> None:
        self._values = Ragged(path, "float16")
        self._places = {identifier: i for i, identifier in enumerate(ids)}

    def get(self, clip: str, copy: int = 0) -> Tensor:
        """Return (time, channels) float16."""
        place = self._places[copy_id(clip, copy)]
        return torch.from_numpy(np.array(self._values[place]))


class FeatureStore:
    """Makes and finds the features of one encoder's front end.

    Arguments
    ---------
    encoder : SSLEncoder
        With a frozen front end.
    folder : pathlib.Path
        Where files are kept, for all front ends.
    """

    def __init__(self, encoder: SSLEncoder, folder: Path) -> None:
        self.encoder = encoder
        self.folder = folder / front_end_key(encoder)

    def build(
        self,
        name: str,
        clips: Sequence[Clip],
        copies: int = 0,
        talkers: Sequence[Clip] = (),
        crop: float | None = None,
    ) -> Features:
        """Compute the features, unless they are there.

        Arguments
        ---------
        name : str
            What the file begins with.
        clips : sequence of Clip
            Each once.
        copies : int
            Degraded copies of each.
        talkers : sequence of Clip
            Clips that may talk in the background of copies, `clips` among
            them; only for copies.
        crop : float, optional
            Take so many seconds of each, from the middle.

        Returns
        -------
        Features
            Of these clips.
        """
        ids = with_copies([clip.id for clip in clips], copies)
        heard = [clip.id for clip in talkers] if copies else []
        parts = [VERSION, crop, ids, heard]
        digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
        path = self.folder / f"{name}-{digest}.f16"
        if not Ragged.exists(path):
            read = self._reader(talkers or clips, crop)
            write_ragged(path, self._features(ids, read), "float16")
        return Features(path, ids)

    def _features(
        self, ids: Sequence[str], samples: Callable[[str], Tensor]
    ) -> Iterator[np.ndarray]:
        shortest = self.encoder.min_samples
        for identifier in ids:
            wave = samples(identifier)
            # Padded and not left out: sets stay equal for all encoders.
            wave = nn.functional.pad(wave, (0, max(0, shortest - len(wave))))
            cache = FrontEndCache(self.encoder)
            cache.add([(identifier, lambda w=wave: w)], show_progress=False)
            values = cache.get(identifier).numpy()
            yield np.clip(values, -LARGEST_HALF, LARGEST_HALF)

    def _reader(
        self, clips: Sequence[Clip], crop: float | None
    ) -> Callable[[str], Tensor]:
        read = DegradedClips(
            {clip.id: clip.wav for clip in clips},
            self.encoder.sample_rate,
            self.encoder.min_samples,
        )
        if crop is None:
            return read
        size = int(crop * self.encoder.sample_rate)

        def cropped(identifier: str) -> Tensor:
            wave = read(identifier)
            start = max(0, (len(wave) - size) // 2)
            return wave[start : start + size]

        return cropped


def front_end_key(encoder: SSLEncoder) -> str:
    """Return a short hash of all that decides the front end's output."""
    model = encoder.model
    weights = {
        name: value.detach().float().cpu().numpy()
        for name, value in model.feature_extractor.state_dict().items()
    }
    settings = [
        encoder.normalize_input,
        *(list(getattr(model.config, n)) for n in ("conv_stride", "conv_dim")),
        model.config.feat_extract_activation,
    ]
    text = f"{fingerprint(weights)} {settings}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def encoder_key(encoder: SSLEncoder) -> str:
    """Return a short hash of an encoder: every weight, and its front end."""
    weights = {
        name: value.detach().float().cpu().numpy()
        for name, value in encoder.model.state_dict().items()
    }
    text = f"{fingerprint(weights)} {front_end_key(encoder)}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]
