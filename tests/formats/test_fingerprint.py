"""The fingerprint tells weights apart, and nothing else."""

import hashlib
import struct

import numpy as np
import pytest

from s3router.errors import SettingError
from s3router.formats.fingerprint import fingerprint


def weights():
    values = np.arange(6, dtype=np.float32).reshape(2, 3) / 8
    return {"b": values, "a": np.array([1.5], np.float32)}


def test_against_a_restatement_by_hand():
    digest = hashlib.sha256()
    digest.update(b'["a", 1]' + struct.pack("<f", 1.5))
    digest.update(
        b'["b", 2, 3]' + struct.pack("<6f", *(i / 8 for i in range(6)))
    )
    assert fingerprint(weights()) == f"sha256:{digest.hexdigest()}"


def test_order_dtype_and_memory_layout_play_no_part():
    made, expected = weights(), fingerprint(weights())
    assert fingerprint(dict(reversed(made.items()))) == expected
    assert (
        fingerprint({k: v.astype(">f4") for k, v in made.items()}) == expected
    )
    assert fingerprint({k: v.astype("f8") for k, v in made.items()}) == expected
    assert fingerprint({k: v.astype("f2") for k, v in made.items()}) == expected
    turned = {**made, "b": np.asfortranarray(made["b"])}
    assert fingerprint(turned) == expected


def test_names_shapes_and_values_do():
    made = weights()
    last_bit = made["b"].copy()
    last_bit[1, 2] = np.nextafter(last_bit[1, 2], np.float32(2))
    found = {
        fingerprint(made),
        fingerprint({**made, "b": last_bit}),
        fingerprint({**made, "b": made["b"].reshape(3, 2)}),
        fingerprint({"c": made["b"], "a": made["a"]}),
        fingerprint({"b": made["b"]}),
        fingerprint({**made, "c": np.zeros(0)}),
    }
    assert len(found) == 6


def test_nothing_has_no_fingerprint():
    with pytest.raises(SettingError):
        fingerprint({})
