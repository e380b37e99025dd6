"""Front-end features of clips, computed once an encoder and kept on disk.

Train clips have faster, degraded copies beside the clean one. Files are
memory-mapped, so that all processes share them. They hang on the front end's
weights, not on the transformer's: encoders with one front end share them too.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from encoder_data import Clip
from torch import Tensor, nn

from s3router.brains.kept_features import (
    KeptFeatures,
    features_path,
    keep_features,
)
from s3router.data.augment import DegradedClips, copy_id, with_copies
from s3router.models.ssl_encoder import SSLEncoder


class Features(KeptFeatures):
    """Features of clips and of their copies."""

    def of(self, clip: str, copy: int = 0) -> Tensor:
        """Return (time, channels) float16."""
        return self.get(copy_id(clip, copy), torch.float16)


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
        self.folder = folder

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
        path = features_path(
            self.encoder, self.folder, name, [crop, ids, heard]
        )
        read = self._reader(talkers or clips, crop)
        keep_features(self.encoder, path, ids, read, progress=False)
        return Features(path, ids)

    def _reader(
        self, clips: Sequence[Clip], crop: float | None
    ) -> Callable[[str], Tensor]:
        read = DegradedClips(
            {clip.id: clip.wav for clip in clips},
            self.encoder.sample_rate,
            self.encoder.min_samples,
        )
        shortest = self.encoder.min_samples
        size = None if crop is None else int(crop * self.encoder.sample_rate)

        def padded(identifier: str) -> Tensor:
            wave = read(identifier)
            if size is not None:
                start = max(0, (len(wave) - size) // 2)
                wave = wave[start : start + size]
            # Padded and not left out: sets stay equal for all encoders.
            return nn.functional.pad(wave, (0, max(0, shortest - len(wave))))

        return padded
