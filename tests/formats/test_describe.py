"""`describe`: what a folder is, without torch."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from s3router.errors import FormatError, NotFoundError
from s3router.formats.describe import (
    by_layer,
    describe,
    format_description,
)
from s3router.formats.encoder_folder import encoder_fingerprint
from s3router.formats.subnetwork import Subnetwork


@pytest.fixture
def subnetwork(tmp_path: Path) -> Path:
    """Return a subnetwork folder with masks of two layers."""
    masks = {}
    for layer, kept in ((0, 3), (1, 1)):
        for name in ("attention.q_proj", "feed_forward.output_dense"):
            mask = np.zeros((2, 2), dtype=bool)
            mask.flat[:kept] = True
            masks[f"encoder.layers.{layer}.{name}"] = mask
    config = {
        "method": "mask_tuning",
        "language": "zh-CN",
        "task": "ctc",
        "encoder": "tiny",
        "fingerprint": "sha256:12",
        "sample_rate": 16000,
        "versions": {"torch": "2.11.0"},
    }
    head = {"weight": np.zeros((3, 4), np.float32)}
    return Subnetwork(config, masks, head, ["<blk>", "<unk>", "你"]).save(
        tmp_path / "zh"
    )


def test_subnetwork(subnetwork: Path):
    info = describe(subnetwork)
    json.dumps(info)
    assert info["kind"] == "subnetwork"
    assert info["language"] == "zh-CN"
    assert (info["removed_weights"], info["maskable_weights"]) == (8, 16)
    assert info["measured_sparsity"] == 0.5
    assert info["sparsity_by_layer"] == {
        f"encoder.layers.{layer}": dict.fromkeys(
            ("attention", "feed_forward", "all"), share
        )
        for layer, share in ((0, 0.25), (1, 0.75))
    }
    assert info["bytes"] == sum(f.stat().st_size for f in subnetwork.iterdir())
    text = format_description(info)
    for words in ("zh-CN", "sha256:12", "75.00%", "torch 2.11.0"):
        assert words in text


def test_damaged_subnetwork(subnetwork: Path):
    path = subnetwork / "mask.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="mask.safetensors is truncated"):
        describe(subnetwork)


def test_layers_are_weighted_by_size():
    counts = {
        "a.0.attention.q": (1, 2),
        "a.0.feed_forward.x": (0, 6),
        "z": (1, 1),
    }
    assert by_layer(counts) == {
        "a.0": {"attention": 0.5, "feed_forward": 0.0, "all": 0.125},
        "z": {"all": 1.0},
    }


def test_nothing_known(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no such file"):
        describe(tmp_path / "x")
    with pytest.raises(FormatError, match="nothing that s3router knows"):
        describe(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}')
    with pytest.raises(FormatError, match="nothing that s3router knows"):
        describe(tmp_path)


def save_encoder(folder: Path, family: str = "hubert-base") -> Path:
    from subnetworks import make_encoder

    return make_encoder(folder, family)


@pytest.fixture
def encoder(tmp_path: Path, monkeypatch) -> Path:
    """Return a random encoder folder."""
    pytest.importorskip("transformers")
    tests = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(tests / "export")
    return save_encoder(tmp_path / "encoder")


def test_encoder(encoder: Path):
    from s3router.models.encoder import load_encoder

    info = describe(encoder)
    loaded = load_encoder(str(encoder))
    assert info["kind"] == "encoder"
    assert info["family"] == "hubert"
    assert (info["layers"], info["hidden_size"]) == (2, 32)
    assert info["weights"] == loaded.num_parameters
    weights = loaded.maskable_weights()
    assert info["maskable_weights"] == sum(w.size for w in weights.values())
    assert info["fingerprint"] == loaded.fingerprint()
    assert info["normalize"] is True
    assert "hubert" in format_description(info)


def test_fingerprint_of_half_precision_and_of_a_model_with_a_head(
    encoder: Path,
):
    from s3router.models.encoder import load_encoder

    path = encoder / "model.safetensors"
    weights = load_file(path)
    save_file(
        {
            **{f"hubert.{k}": v.astype(np.float16) for k, v in weights.items()},
            "lm_head.weight": np.ones((4, 32), np.float16),
        },
        path,
        {"format": "pt"},
    )
    expected = load_encoder(str(encoder)).fingerprint()
    assert encoder_fingerprint(encoder) == expected
    assert describe(encoder)["dtypes"] == ["F16"]


def test_shards(encoder: Path):
    before = describe(encoder)
    path = encoder / "model.safetensors"
    weights = load_file(path)
    names = sorted(weights)
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({n: weights[n] for n in part}, encoder / file)
        index |= dict.fromkeys(part, file)
    path.unlink()
    (encoder / f"{path.name}.index.json").write_text(
        json.dumps({"weight_map": index})
    )
    after = describe(encoder)
    assert after["fingerprint"] == before["fingerprint"]
    (encoder / "model-1.safetensors").unlink()
    with pytest.raises(NotFoundError, match="model-1.safetensors is missing"):
        describe(encoder)


def test_truncated_weights(encoder: Path):
    path = encoder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match="model.safetensors.*truncated"):
        describe(encoder)


def test_encoder_without_safetensors(encoder: Path):
    (encoder / "model.safetensors").unlink()
    info = describe(encoder)
    assert info["fingerprint"] is None
    assert info["family"] == "hubert"
