"""A name for a set of weights: which encoder does a mask belong to?

Must not know how weights are found in a model; the caller passes them.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from s3router.errors import SettingError


def fingerprint(weights: Mapping[str, np.ndarray]) -> str:
    """Return a hash of named weights, the same on every machine.

    The hash runs over name, shape and values of each weight, in order of
    name. Values count as little-endian float32, so the same weights kept in
    float16 on disk and float32 in memory have one fingerprint.

    Arguments
    ---------
    weights : mapping of str to numpy.ndarray
        The maskable weights by module name, any float dtype.

    Returns
    -------
    str
        `sha256:` and 64 hexadecimal digits.

    Raises
    ------
    SettingError
        If there is no weight at all: nothing could be told apart.

    Example
    -------
    >>> a = {"x": np.ones((2, 3)), "y": np.zeros(4, np.float32)}
    >>> b = {"y": np.zeros(4), "x": np.ones((2, 3), np.float16)}
    >>> fingerprint(a) == fingerprint(b)
    True
    >>> fingerprint(a) == fingerprint({**a, "y": np.ones(4)})
    False
    """
    if not weights:
        raise SettingError("cannot take a fingerprint of no weights")
    digest = hashlib.sha256()
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name], dtype="<f4")
        # JSON marks where the name ends; raw concatenation would let two
        # different sets of names and shapes have the same bytes.
        digest.update(json.dumps([name, *values.shape]).encode())
        digest.update(values.data if values.size else b"")
    return f"sha256:{digest.hexdigest()}"
