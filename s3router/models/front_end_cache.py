"""Keeps the frozen front end's output, so that it is computed once a clip.

In every method the conv front end is frozen, and it is a large part of the
cost of a short clip on a CPU. Clips go through it one at a time, without
padding; float16 halves the memory.
"""

from collections.abc import Callable, Iterable, Sized

import torch
from torch import Tensor
from tqdm import tqdm

from s3router.errors import DataError, NotFoundError, SettingError
from s3router.models.encoder import SSLEncoder

Item = tuple[str, Callable[[], Tensor]]
# float16 ends here; conv features of known encoders stay far below.
LARGEST_HALF = 65504.0


class FrontEndCache:
    """Conv features of many clips, in memory.

    Arguments
    ---------
    encoder : SSLEncoder
        With a frozen front end.
    max_megabytes : float
        Limit for all features together; 1 MB = 10^6 bytes. A second of speech
        takes 51 kB with 512 channels.

    Raises
    ------
    SettingError
        If the front end is not frozen: what is cached would not be what it
        computes later.
    """

    def __init__(self, encoder: SSLEncoder, max_megabytes: float = 2000.0):
        extractor = encoder.model.feature_extractor
        if any(p.requires_grad for p in extractor.parameters()):
            raise SettingError(
                "the front end trains, so its output cannot be cached; set "
                "freeze_front_end=True or switch the cache off"
            )
        self.encoder = encoder
        self.max_megabytes = max_megabytes
        self._features: dict[str, Tensor] = {}
        self._bytes = 0

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self._features)

    def __contains__(self, identifier: str) -> bool:
        """Return whether a clip is there."""
        return identifier in self._features

    @property
    def megabytes(self) -> float:
        """Size of the features, in 10^6 bytes."""
        return self._bytes / 1e6

    @torch.no_grad()
    def add(
        self,
        items: Iterable[Item],
        description: str = "front end",
        show_progress: bool = True,
    ) -> None:
        """Compute and keep the features of clips that are not there yet.

        Arguments
        ---------
        items : iterable of (str, callable)
            ID of a clip, and a function that returns its waveform (S,)
            float32 at 16 kHz. It is called only if the clip is needed.
        description : str
            What the progress bar says.
        show_progress : bool
            Whether there is one.

        Raises
        ------
        SettingError
            If the limit would be exceeded; what fitted is kept.
        DataError
            If a clip is too short for one frame; named by its ID.
        """
        total = len(items) if isinstance(items, Sized) else None
        bar = tqdm(
            items,
            desc=description,
            total=total,
            unit="clip",
            disable=not show_progress,
        )
        for identifier, load in bar:
            if identifier not in self._features:
                self._store(identifier, self._compute(identifier, load()))

    def get(
        self, identifier: str, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Return the features of a clip.

        Arguments
        ---------
        identifier : str
            As given to `add`.
        dtype : torch.dtype
            Of the result.

        Returns
        -------
        torch.Tensor, (T, C)
            On the CPU. Rounded to float16 once, relative error 2^-11.

        Raises
        ------
        NotFoundError
            If the clip was never added.
        """
        if identifier not in self._features:
            raise NotFoundError(
                f"clip {identifier!r} is not in the front-end cache "
                f"({len(self)} clips)"
            )
        return self._features[identifier].to(dtype)

    def clear(self) -> None:
        """Forget all clips."""
        self._features.clear()
        self._bytes = 0

    def _compute(self, identifier: str, wav: Tensor) -> Tensor:
        """Run one clip, alone and whole."""
        device = next(self.encoder.parameters()).device
        try:
            features, _ = self.encoder.front_end(wav[None].to(device))
        except DataError as error:
            raise DataError(f"clip {identifier!r}: {error}") from error
        features = features[0].cpu()
        # A value beyond float16 would become infinite: keep such a clip as
        # it is.
        if features.abs().max() > LARGEST_HALF:
            return features.float()
        return features.half()

    def _store(self, identifier: str, features: Tensor) -> None:
        """Keep one clip within the limit."""
        size = features.numel() * features.element_size()
        if self._bytes + size > self.max_megabytes * 1e6:
            raise SettingError(
                f"the front-end cache is full: {len(self)} clips take "
                f"{self.megabytes:.4g} MB of {self.max_megabytes:.4g} MB. "
                f"Raise the limit or switch the cache off"
            )
        self._features[identifier] = features
        self._bytes += size
