"""Reads the subnetworks that are to share a bundle, and says if they cannot."""

import os
from collections.abc import Sequence
from pathlib import Path

from s3router.errors import MismatchError, SettingError, one_of
from s3router.formats.language_codes import is_language_code
from s3router.formats.subnetwork import Subnetwork
from s3router.models.heads import HEADS


def load_subnetworks(
    paths: Sequence[str | os.PathLike],
) -> dict[str, tuple[Path, Subnetwork]]:
    """Read subnetworks that will share a bundle.

    Arguments
    ---------
    paths : sequence of str or path
        Their folders.

    Returns
    -------
    dict
        Language code to folder and subnetwork.

    Raises
    ------
    SettingError
        If a language or task cannot be in a bundle, or is there twice.
    MismatchError
        If they were made for different encoders.
    """
    loaded: dict[str, tuple[Path, Subnetwork]] = {}
    for path in map(Path, paths):
        subnetwork = Subnetwork.load(path)
        config = subnetwork.config
        code = config["language"]
        if not is_language_code(code):
            raise SettingError(
                f"{path}: its language {code!r} cannot name a folder in a "
                f"bundle; use letters, digits, '-' and '_', as in zh-CN"
            )
        one_of(config["task"], HEADS, f"task of {path}:")
        if code in loaded:
            raise SettingError(
                f"{loaded[code][0]} and {path} are both of language {code}; "
                f"a bundle has one of each"
            )
        loaded[code] = (path, subnetwork)
    for key in ("fingerprint", "sample_rate", "normalize"):
        values = {
            str(path): subnetwork.config.get(key)
            for path, subnetwork in loaded.values()
        }
        if len(set(values.values())) > 1:
            said = ", ".join(f"{v} in {p}" for p, v in values.items())
            raise MismatchError(
                f"these subnetworks cannot share a bundle, their {key} "
                f"differs: {said}"
            )
    return loaded
