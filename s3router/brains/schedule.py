"""Learning-rate factors as functions of training progress.

They hold no state: the Brain knows its step and the total, so a resumed run
has the rates of an uninterrupted one.
"""

import math
from collections.abc import Mapping

from s3router.errors import positive_number, whole_number


def tri_stage(
    progress: float,
    warmup: float = 0.1,
    hold: float = 0.4,
    initial: float = 0.01,
    final: float = 0.05,
) -> float:
    """Rise linearly, hold, then fall exponentially.

    Source: the schedule of wav2vec 2.0 fine-tuning (Baevski et al., 2020,
    section 4.2), which S3-Router and PARP keep: 10 / 40 / 50 %.

    Arguments
    ---------
    progress : float
        Share of all optimizer steps done, in [0, 1]; clipped.
    warmup, hold : float
        Shares of the steps for the rise and for the plateau.
    initial, final : float
        Factor at the start and at the end.

    Returns
    -------
    float
        Factor on the peak learning rate.

    Example
    -------
    >>> [round(tri_stage(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
    [0.01, 1.0, 1.0, 0.05]
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return initial + (1.0 - initial) * progress / warmup
    if progress < warmup + hold:
        return 1.0
    decay = 1.0 - warmup - hold
    done = (progress - warmup - hold) / decay if decay > 0 else 1.0
    return math.exp(math.log(final) * done)


def warmup_cosine(
    progress: float, warmup: float = 0.1, final: float = 0.0
) -> float:
    """Rise linearly, then fall along half a cosine.

    Arguments
    ---------
    progress : float
        Share of all optimizer steps done, in [0, 1]; clipped.
    warmup : float
        Share of the steps for the rise.
    final : float
        Factor at the end.

    Returns
    -------
    float
        Factor on the peak learning rate.

    Example
    -------
    >>> [round(warmup_cosine(p), 3) for p in (0.0, 0.1, 0.55, 1.0)]
    [0.0, 1.0, 0.5, 0.0]
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return progress / warmup
    done = (progress - warmup) / max(1.0 - warmup, 1e-9)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * done))


def check_schedule(settings: Mapping) -> None:
    """Refuse epochs and rates that no training can have.

    Arguments
    ---------
    settings : mapping
        Of a run. Looked at are `number_of_epochs`, `validate_every` (epochs)
        and the rates, all that begins with `lr_`; what is not there is not
        missed.

    Raises
    ------
    SettingError
        If epochs are no whole number from 1, or a rate is not above 0.

    Example
    -------
    >>> check_schedule({"number_of_epochs": 30, "lr_head": 5.0e-5})
    """
    for setting, value in settings.items():
        if setting in ("number_of_epochs", "validate_every"):
            whole_number(setting, value)
        elif str(setting).startswith("lr_"):
            positive_number(setting, value)
