"""A checkpoint that wants to run code is refused, and runs none."""

import builtins
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq_writer import encoder_state, fake_package, save
from model_factory import random_model

from s3router.errors import FormatError
from s3router.models.encoder import load_encoder
from s3router.models.fairseq_pickle import Inert, load_checkpoint, plain


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


def weights() -> dict[str, torch.Tensor]:
    return encoder_state(random_model("wav2vec2-base"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["cfg", "model", "extra_state"])
@pytest.mark.parametrize("name", ["system", "eval", "Popen", "getattr", "open"])
def test_calls_are_refused(name, place, legacy, tmp_path):
    witness = tmp_path / "witness"
    attack = {
        "system": Call(os.system, f"touch {witness}"),
        "eval": Call(builtins.eval, f"open({str(witness)!r}, 'w')"),
        "Popen": Call(subprocess.Popen, ["touch", str(witness)]),
        "getattr": Call(builtins.getattr, "x", "upper"),
        "open": Call(builtins.open, str(witness), "w"),
    }[name]
    content: dict[str, Any] = {"model": weights(), "cfg": {}}
    if place == "model":
        content["model"]["encoder.evil"] = attack
    else:
        content[place] = {"x": attack}
    path = save(tmp_path / "evil.pt", legacy, **content)
    with pytest.raises(FormatError, match="could run code") as caught:
        load_encoder(str(path))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not witness.exists()


def test_names_of_known_packages_are_never_imported(tmp_path):
    # A module that would do harm when imported, under an allowed name.
    with fake_package(run="fairseq.evil") as classes:
        path = save(
            tmp_path / "x.pt",
            model=weights(),
            cfg={"x": Call(classes["run"], "rm")},
        )
    checkpoint = load_checkpoint(path)
    assert type(checkpoint["cfg"]["x"]) is Inert
    import sys

    assert "fairseq" not in sys.modules


def test_newer_pickle_protocols_cannot_hide_names(tmp_path):
    path = tmp_path / "evil.pt"
    witness = tmp_path / "witness"
    torch.save(
        {"model": weights(), "cfg": Call(os.system, f"touch {witness}")},
        path,
        pickle_protocol=4,
    )
    with pytest.raises(FormatError):
        load_checkpoint(path)
    assert not witness.exists()


def test_a_state_cannot_replace_the_stand_ins_methods():
    trick = Inert()
    trick.__setstate__({"__class__": "x", "inert_state": "y", "_val": 3})
    assert type(trick) is Inert
    assert plain(trick) == 3


def test_plain_reads_lists_enums_and_unset_values():
    enum = Inert("layer_norm")
    listed = Inert()
    listed.__setstate__({"_content": [enum, "${model.x}", (1, 2)]})
    assert plain({"a": listed}) == {"a": ["layer_norm", None, [1, 2]]}
    assert plain(Inert()) is None


def test_absent_file(tmp_path: Path):
    with pytest.raises(FormatError):
        load_checkpoint(tmp_path / "absent.pt")
