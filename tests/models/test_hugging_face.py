"""Folders and hub names: what loads, and one clear line for what does not."""

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from model_factory import FAMILY_CONFIGS, SIZES, random_model, save_folder
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    HubertForCTC,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    WavLMForCTC,
)

from s3router.errors import FormatError, NotFoundError
from s3router.models import sources
from s3router.models.encoder import load_encoder


@pytest.fixture
def folder(tmp_path) -> Path:
    return save_folder(random_model("wav2vec2-base"), tmp_path / "enc")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps(values))


def one_line(caught: pytest.ExceptionInfo) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("family", "head", "prefix"),
    [
        ("wav2vec2-large", Wav2Vec2ForCTC, "wav2vec2"),
        ("wav2vec2-base", Wav2Vec2ForPreTraining, "wav2vec2"),
        ("hubert-base", HubertForCTC, "hubert"),
        ("wavlm-base", WavLMForCTC, "wavlm"),
    ],
)
def test_folders_with_heads_load_quietly(
    family, head, prefix, tmp_path, capfd, caplog
):
    config = FAMILY_CONFIGS[family](**SIZES, codevector_dim=32)
    model = head(config).eval()
    model.save_pretrained(tmp_path)
    capfd.readouterr()
    encoder = load_encoder(str(tmp_path))
    out, err = capfd.readouterr()
    assert out == err == ""
    assert not caplog.records
    wav = torch.randn(1, 5000)
    with torch.no_grad():
        expected = getattr(model, prefix)(wav).last_hidden_state
        torch.testing.assert_close(
            encoder.forward_unpadded(wav), expected, atol=1e-5, rtol=1e-4
        )


def test_half_precision_folders_run_in_float32(folder, family, tmp_path):
    half = random_model(family).half()
    save_folder(half, tmp_path / "half")
    encoder = load_encoder(str(tmp_path / "half"))
    floats = {p.dtype for p in encoder.parameters() if p.is_floating_point()}
    assert floats == {torch.float32}
    assert encoder(torch.randn(1, 4000))[0].dtype == torch.float32


def test_old_names_of_the_weight_norm(folder):
    state = weights_of(folder)
    conv = "encoder.pos_conv_embed.conv."
    modern = conv + "parametrizations.weight.original"
    expected = load_encoder(str(folder)).forward_unpadded(torch.ones(1, 4000))
    state[conv + "weight_g"] = state.pop(modern + "0")
    state[conv + "weight_v"] = state.pop(modern + "1")
    save_file(state, folder / "model.safetensors")
    old = load_encoder(str(folder)).forward_unpadded(torch.ones(1, 4000))
    assert torch.equal(old, expected)


def test_shards(folder):
    state = weights_of(folder)
    expected = load_encoder(str(folder)).fingerprint()
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    index = {}
    for i, part in enumerate((names[:10], names[10:])):
        file = f"model-0000{i + 1}-of-00002.safetensors"
        save_file({name: state[name] for name in part}, folder / file)
        index.update(dict.fromkeys(part, file))
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))
    assert load_encoder(str(folder)).fingerprint() == expected
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(NotFoundError, match="00002-of-00002.* is missing"):
        load_encoder(str(folder))


def test_pickles_of_tensors_load(folder):
    expected = load_encoder(str(folder)).fingerprint()
    torch.save(weights_of(folder), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert load_encoder(str(folder)).fingerprint() == expected


def test_pickles_that_run_code_do_not(folder, tmp_path):
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch {witness}",)

    state = {**weights_of(folder), "evil": Evil()}
    torch.save(state, folder / "pytorch_model.bin")
    # safetensors is preferred where both are there.
    load_encoder(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match="is not loaded") as caught:
        load_encoder(str(folder))
    one_line(caught)
    assert not witness.exists()


def test_mask_embedding_may_be_absent(folder):
    state = weights_of(folder)
    del state["masked_spec_embed"]
    save_file(state, folder / "model.safetensors")
    edit_config(folder, mask_time_prob=0.0)
    encoder = load_encoder(str(folder))
    assert torch.equal(encoder.mask_embedding, torch.zeros(32))


def test_no_config(tmp_path):
    with pytest.raises(NotFoundError, match="no config.json") as caught:
        load_encoder(str(tmp_path))
    assert str(tmp_path) in one_line(caught)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotFoundError, match="has no weights"):
        load_encoder(str(folder))


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(FormatError, match=r"config\.json"):
        load_encoder(str(folder))
    (folder / "config.json").write_text("[1]")
    with pytest.raises(FormatError, match="not a JSON object"):
        load_encoder(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 5},
        {"conv_kernel": [10, 3]},
        {"feat_extract_norm": "batch"},
    ],
)
def test_config_that_makes_no_model(folder, changes):
    edit_config(folder, **changes)
    with pytest.raises(FormatError, match="config") as caught:
        load_encoder(str(folder))
    one_line(caught)


def test_another_kind_of_model(tmp_path):
    config = BertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(FormatError, match="'bert'; known: wav2vec2, hubert"):
        load_encoder(str(tmp_path))


def test_adapter_on_top_is_refused(folder):
    edit_config(folder, add_adapter=True)
    with pytest.raises(FormatError, match="add_adapter"):
        load_encoder(str(folder))


@pytest.mark.parametrize("keep", [0, 5, 100, 20000])
def test_truncated_weights(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match=r"model\.safetensors is damaged"):
        load_encoder(str(folder))


def test_missing_weights_are_named(folder):
    state = weights_of(folder)
    for role in ("q", "k", "v", "out"):
        del state[f"encoder.layers.1.attention.{role}_proj.weight"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(FormatError, match="lacks 4 of the") as caught:
        load_encoder(str(folder))
    assert "encoder.layers.1.attention" in one_line(caught)
    assert "and 1 more" in str(caught.value)


def test_other_shapes_and_surplus_weights_are_named(folder):
    edit_config(folder, intermediate_size=128)
    with pytest.raises(FormatError, match=r"\(64, 32\).*\(128, 32\)"):
        load_encoder(str(folder))
    edit_config(folder, intermediate_size=64, num_hidden_layers=2)
    with pytest.raises(FormatError, match="does not describe.*layers.2"):
        load_encoder(str(folder))


def test_paths_that_are_not_there(tmp_path):
    for source in (str(tmp_path / "x"), "./x", "../x/y", "~/x", "a/b/c"):
        with pytest.raises(NotFoundError, match="no such file") as caught:
            load_encoder(source)
        assert "--encoder=tiny" in one_line(caught)


def test_unreachable_hub_says_what_else_to_do(monkeypatch, tmp_path):
    # Port 9 of this machine refuses at once, on any network.
    monkeypatch.setattr(
        sources,
        "snapshot_download",
        functools.partial(
            sources.snapshot_download, endpoint="http://127.0.0.1:9"
        ),
    )
    with pytest.raises(NotFoundError, match="cannot be reached") as caught:
        load_encoder("facebook/wav2vec2-base", str(tmp_path))
    text = one_line(caught)
    assert "--encoder=tiny" in text
    assert "--encoder=FOLDER" in text
    assert "facebook/wav2vec2-base" in text


def test_names_that_no_hub_has(tmp_path):
    with pytest.raises(NotFoundError, match="no name as hubs have them"):
        load_encoder("two words!", str(tmp_path))


def test_what_is_in_the_cache_needs_no_hub(folder, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    model = cache / "models--some--encoder"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    monkeypatch.setattr(
        sources,
        "snapshot_download",
        functools.partial(sources.snapshot_download, local_files_only=True),
    )
    encoder = load_encoder("some/encoder", str(cache))
    assert encoder.name == "some/encoder"
    assert encoder.fingerprint() == load_encoder(str(folder)).fingerprint()


def test_missing_embedded_encoder(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "ASSETS", tmp_path)
    with pytest.raises(NotFoundError, match="embedded encoder is missing"):
        load_encoder("tiny")


@pytest.mark.skipif(
    not (sources.ASSETS / "tiny" / "config.json").is_file(),
    reason="the embedded encoder is not in this checkout",
)
def test_embedded_encoder():
    encoder = load_encoder("tiny")
    assert encoder.name == "tiny"
    assert 2e6 < encoder.num_parameters < 10e6
    hidden, frames = encoder(torch.randn(1, 16000))
    assert hidden.shape == (1, int(frames[0]), encoder.hidden_size)
    assert hidden.isfinite().all()
