"""Checkpoints that are complete or not there.

SpeechBrain names a checkpoint in its CKPT.yaml before it writes what the
checkpoint holds: a run killed in between finds a newest checkpoint that cannot
be loaded, and never starts again.
"""

import os
from pathlib import Path

from speechbrain.utils.checkpoints import (
    METAFNAME,
    Checkpoint,
    Checkpointer,
)
from speechbrain.utils.distributed import ddp_barrier

_PART = METAFNAME + ".part"


class WholeCheckpointer(Checkpointer):
    """Gives a checkpoint its name when all of it is written.

    Takes the place of `speechbrain.utils.checkpoints.Checkpointer`.
    """

    def _save_checkpoint_metafile(
        self, fpath: Path, *args, **kwargs
    ) -> dict[str, object]:
        # A folder without METAFNAME is no checkpoint to SpeechBrain.
        part = Path(fpath).with_name(_PART)
        return super()._save_checkpoint_metafile(part, *args, **kwargs)

    def save_checkpoint(self, *args, **kwargs) -> Checkpoint | None:
        """Save as SpeechBrain does; on the main process, name it last.

        Arguments
        ---------
        *args, **kwargs
            Of `Checkpointer.save_checkpoint`.

        Returns
        -------
        Checkpoint or None
            The checkpoint; None on other processes.
        """
        saved = super().save_checkpoint(*args, **kwargs)
        if saved is not None:
            os.replace(saved.path / _PART, saved.path / METAFNAME)
        # All processes list the folder next, to delete what is old; one that
        # looked before the renaming would wait for the others for ever.
        ddp_barrier()
        return saved
