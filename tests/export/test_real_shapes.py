"""Encoders of the sizes that are released, with random weights.

Widths, heads and front ends are the real ones, where rounding and large
tensors go wrong first. Of the layers, which are all alike, there are two;
`benchmarks/export.py` exports all twelve of wav2vec2-base.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from subnetworks import ALL_SHAPES, LARGE, make_encoder, make_subnetwork
from transformers import (
    Data2VecAudioConfig,
    HubertConfig,
    PretrainedConfig,
    Wav2Vec2Config,
    WavLMConfig,
)

from s3router.export.bundle import make_bundle
from s3router.export.probes import probe_signal
from s3router.formats.bundle import BACKBONE
from s3router.formats.subnetwork import Subnetwork
from s3router.runtime.recognizer import Recognizer

BASE = {"num_hidden_layers": 2}
WIDE = {
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "num_hidden_layers": 2,
}


@dataclass(frozen=True)
class Shape:
    """A released size, and how it is exported here."""

    config: Callable[[], PretrainedConfig]
    layout: str = "shared"
    profile: str = "s3router"


SHAPES = {
    "wav2vec2-base": Shape(
        lambda: Wav2Vec2Config(**BASE), profile="sherpa-onnx"
    ),
    "hubert-base": Shape(lambda: HubertConfig(**BASE)),
    "wavlm-base": Shape(lambda: WavLMConfig(**BASE)),
    "data2vec-base": Shape(lambda: Data2VecAudioConfig(**BASE)),
    "wav2vec2-large": Shape(lambda: Wav2Vec2Config(**WIDE)),
    "xls-r-300m": Shape(
        lambda: Wav2Vec2Config(**WIDE, **LARGE), "standalone", "onnx-asr"
    ),
    "hubert-large": Shape(lambda: HubertConfig(**WIDE, **LARGE)),
    "wavlm-large": Shape(lambda: WavLMConfig(**WIDE, **LARGE), "standalone"),
    "data2vec-large": Shape(lambda: Data2VecAudioConfig(**WIDE)),
}


#: What is tried where S3ROUTER_ALL_SHAPES is not set.
FEW = ("wav2vec2-base", "wavlm-base", "data2vec-large", "xls-r-300m")


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES if ALL_SHAPES else FEW)
def test_a_bundle_of_a_released_size(name, tmp_path):
    shape = SHAPES[name]
    encoder = make_encoder(tmp_path / "encoder", shape.config())
    paths = [make_subnetwork(tmp_path / "es", encoder, "es", 0.3)]
    if name == "wavlm-base":
        who = {"task": "classification", "seed": 1}
        paths.append(make_subnetwork(tmp_path / "who", encoder, "who", **who))
    for path in paths:
        # Logits of a few, as trained heads give.
        subnetwork = Subnetwork.load(path)
        subnetwork.head["weight"] *= 0.1
        subnetwork.save(path)
    folder = tmp_path / "bundle"
    report = make_bundle(
        paths, folder, layout=shape.layout, profile=shape.profile
    )
    for numbers in report["languages"].values():
        assert numbers["parity"]["max_error"] < 1e-4
        assert numbers["parity"]["max_error_padded"] < 1e-4
        assert numbers["parity"]["rounding"] is None
        assert numbers["parity"]["max_logit"] > 1
    client = report["languages"]["es"]["parity"]["client"]
    assert shape.profile == "s3router" or shape.profile in client
    if shape.layout == "standalone":
        return
    subnetwork = Subnetwork.load(paths[0])
    bits = sum(mask.size for mask in subnetwork.masks.values()) / 8
    # A graph has a million bytes of nodes and names at most.
    assert report["languages"]["es"]["bytes"] < bits + 1_000_000
    weights = sum(mask.size for mask in subnetwork.masks.values()) * 4
    assert (folder / BACKBONE).stat().st_size > weights
    clip = probe_signal(20000, 4)
    lean = Recognizer(folder, "es", "cpu", mode="lean").transcribe(clip).text
    assert lean == Recognizer(folder, "es", "cpu").transcribe(clip).text
