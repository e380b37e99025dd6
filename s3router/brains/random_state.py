"""Random number generators as a part of a checkpoint.

SpeechBrain's checkpoints leave them out, so that a resumed run draws other
spans to mask than an uninterrupted one. With them, both are the same.
"""

import random
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import main_process_only


@register_checkpoint_hooks
class RandomState:
    """Keeps the state of all generators; `apply` puts a loaded one in place.

    Loading only remembers, because a data loader draws from the generator
    when its iteration starts: a state saved at the end of an epoch belongs
    before that, one saved within an epoch behind it.
    """

    def __init__(self) -> None:
        self._pending: dict | None = None
        self._end_of_epoch = False

    def apply(self, end_of_epoch: bool) -> None:
        """Set the generators to a loaded state of this kind, once.

        Arguments
        ---------
        end_of_epoch : bool
            True before the loader's iteration starts, False at its first
            batch.
        """
        if self._pending is None or self._end_of_epoch != end_of_epoch:
            return
        state, self._pending = self._pending, None
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda"])
        version, words, gauss = state["python"]
        random.setstate((version, tuple(words), gauss))
        name, keys, position, has_gauss, cached = state["numpy"]
        np.random.set_state(
            (name, keys.numpy().astype(np.uint32), position, has_gauss, cached)
        )

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        cuda = torch.cuda.is_available()
        version, words, gauss = random.getstate()
        name, keys, position, has_gauss, cached = np.random.get_state()
        state = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if cuda else [],
            "python": (version, list(words), gauss),
            # As int64, since torch has no full uint32.
            "numpy": (
                name,
                torch.from_numpy(keys.astype(np.int64)),
                position,
                has_gauss,
                cached,
            ),
        }
        torch.save(state, path)

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        self._pending = torch.load(path, weights_only=True)
        self._end_of_epoch = end_of_epoch
