"""fairseq checkpoints give the same encoder as the Hugging Face model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq_writer import (
    encoder_state,
    fake_package,
    model_options,
    namespace,
    omega,
    save,
)
from model_factory import random_model
from transformers import PreTrainedModel

from s3router.errors import FormatError, NotFoundError
from s3router.models.encoder import load_encoder

# Its name in fairseq, and the family here.
CHECKPOINTS = {
    "wav2vec2-base": ("wav2vec2", "wav2vec2"),
    "wav2vec2-large": ("wav2vec2", "wav2vec2"),
    "hubert-large": ("hubert", "hubert"),
    # Group norm with pre-norm blocks: only the settings tell.
    "hubert-tiny": ("hubert", "hubert"),
    "hubert-batch-norm": ("hubert", "hubert"),
    "data2vec": ("data2vec_audio", "data2vec-audio"),
}
QUANTIZER = {
    "quantizer.vars": (1, 64, 8),
    "quantizer.weight_proj.weight": (64, 16),
    "quantizer.weight_proj.bias": (64,),
    "project_q.weight": (16, 16),
    "project_q.bias": (16,),
    "final_proj.weight": (16, 32),
    "final_proj.bias": (16,),
}


def losses(name: str) -> dict[str, Any]:
    """Weights of the pre-training loss, which are not the encoder's."""
    if name == "wav2vec2":
        return {key: torch.randn(shape) for key, shape in QUANTIZER.items()}
    if name == "hubert":
        return {
            "label_embs_concat": torch.randn(504, 16),
            "final_proj.weight": torch.randn(16, 32),
            "final_proj.bias": torch.randn(16),
        }
    return {
        "final_proj.0.weight": torch.randn(32, 32),
        "final_proj.0.bias": torch.randn(32),
        "_ema": {"layers.0.fc1.weight": torch.randn(64, 32)},
    }


def model_of(family: str) -> PreTrainedModel:
    """The Hugging Face model that the checkpoint is made from."""
    return random_model(family, feat_proj_layer_norm=True)


@pytest.fixture(params=sorted(CHECKPOINTS))
def checkpoint(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Family shape, fairseq's name, our family."""
    return request.param, *CHECKPOINTS[request.param]


def assert_same(path: Path, model: PreTrainedModel, normalize: bool) -> None:
    encoder = load_encoder(str(path))
    assert encoder.normalize_input is normalize
    wav = torch.randn(1, 9000, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model(wav).last_hidden_state
        values = encoder.forward_unpadded(wav)
    assert torch.equal(encoder.mask_embedding, model.masked_spec_embed)
    torch.testing.assert_close(values, expected, atol=1e-6, rtol=1e-5)


def test_pretrained(checkpoint, tmp_path):
    family, name, ours = checkpoint
    model = model_of(family)
    cfg = {
        "model": model_options(model, name),
        "task": {"normalize": True, "sample_rate": 16000},
    }
    weights = encoder_state(model) | losses(name)
    path = save(tmp_path / "pre.pt", args=None, cfg=cfg, model=weights)
    assert_same(path, model, normalize=True)
    assert load_encoder(str(path)).family == ours


@pytest.mark.parametrize("legacy", [False, True])
def test_fine_tuned_with_settings_in_a_namespace(checkpoint, legacy, tmp_path):
    family, name, ours = checkpoint
    model = model_of(family)
    weights = {
        f"w2v_encoder.w2v_model.{key}": value
        for key, value in encoder_state(model).items()
    }
    weights["w2v_encoder.proj.weight"] = torch.randn(30, 32)
    weights["w2v_encoder.proj.bias"] = torch.randn(30)
    inner = namespace(model_options(model, name))
    outer = namespace({"_name": "wav2vec_ctc", "normalize": False})
    outer.w2v_args = inner
    path = save(tmp_path / "ft.pt", legacy, args=outer, model=weights)
    assert_same(path, model, normalize=False)
    assert load_encoder(str(path)).family == ours


def test_settings_in_omegaconf_and_a_pickled_dictionary(checkpoint, tmp_path):
    family, name, ours = checkpoint
    model = model_of(family)
    cfg = {
        "model": {
            "_name": f"{name}_ctc",
            "w2v_path": "???",
            "normalize": "${task.normalize}",
            "w2v_args": {
                "model": model_options(model, name),
                "task": {"normalize": False},
            },
        },
        "task": {"normalize": True},
    }
    weights = {
        f"w2v_encoder.w2v_model.{key}": value
        for key, value in encoder_state(model).items()
    }
    path = tmp_path / "omega.pt"
    with fake_package(
        DictConfig="omegaconf.dictconfig",
        AnyNode="omegaconf.nodes",
        ContainerMetadata="omegaconf.base",
        Dictionary="fairseq.data.dictionary",
    ) as classes:
        letters = classes["Dictionary"]()
        letters.symbols, letters.count = ["<s>", "|"], [1, 1]
        save(
            path,
            cfg=omega(cfg, classes),
            model=weights,
            task_state={"dictionaries": [letters]},
        )
    assert_same(path, model, normalize=True)
    assert load_encoder(str(path)).family == ours


def test_without_settings_the_shapes_tell(tmp_path):
    # Released sizes only: heads follow from the width.
    sizes = {"hidden_size": 768, "num_attention_heads": 12}
    for family in ("wav2vec2-base", "wav2vec2-large", "data2vec"):
        model = random_model(family, **sizes, num_hidden_layers=1)
        path = save(tmp_path / f"{family}.pt", model=encoder_state(model))
        large = family != "wav2vec2-base"
        assert_same(path, model, normalize=large)


def test_equal_widths_have_no_projection(tmp_path):
    model = random_model("wav2vec2-base", conv_dim=(32,) * 7)
    projection = model.feature_projection.projection
    with torch.no_grad():
        projection.weight.copy_(torch.eye(32))
        projection.bias.zero_()
    weights = encoder_state(model)
    del weights["post_extract_proj.weight"], weights["post_extract_proj.bias"]
    cfg = {"model": model_options(model, "wav2vec2"), "task": {}}
    path = save(tmp_path / "x.pt", cfg=cfg, model=weights)
    assert_same(path, model, normalize=False)


def test_half_precision_becomes_float32(tmp_path):
    model = random_model("wav2vec2-base").half().float()
    cfg = {"model": model_options(model, "wav2vec2"), "task": {}}
    weights = {k: v.half() for k, v in encoder_state(model).items()}
    path = save(tmp_path / "half.pt", cfg=cfg, model=weights)
    encoder = load_encoder(str(path))
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert_same(path, model, normalize=False)


def broken(tmp_path: Path, change: dict[str, Any]) -> str:
    """Save a checkpoint with some weights replaced or (None) removed."""
    model = random_model("wav2vec2-base")
    weights = {**encoder_state(model), **change.pop("weights", {})}
    weights = {k: v for k, v in weights.items() if v is not None}
    options = {**model_options(model, "wav2vec2"), **change.pop("options", {})}
    cfg = {"model": options, "task": change.pop("task", {})}
    return str(save(tmp_path / "broken.pt", cfg=cfg, model=weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": {"encoder.layers.1.fc1.weight": None}},
            "lacks 1 .* encoder.layers.1.feed_forward.intermediate_dense",
        ),
        (
            {"weights": {"encoder.layers.1.fc1.weight": torch.zeros(9, 32)}},
            r"layers.1.feed_forward.* has shape \(9, 32\), .* \(64, 32\)",
        ),
        ({"weights": {"encoder.layers.0.moe.gate": torch.ones(1)}}, "moe.gate"),
        ({"weights": {"encoder.layer_norm.weight": None}}, "has no weight"),
        ({"options": {"activation_fn": "swish"}}, "activation_fn 'swish'"),
        ({"options": {"encoder_attention_heads": None}}, "attention heads"),
        (
            {"options": {"conv_feature_layers": "[(1,1,1)]"}},
            "other convs than its weights",
        ),
        (
            {"options": {"conv_feature_layers": "__import__('os').getcwd()"}},
            "cannot read conv_feature_layers",
        ),
        (
            {"options": {"conv_feature_layers": "[(1,2,3)] * 10 ** 9"}},
            "cannot read conv_feature_layers",
        ),
        ({"task": {"sample_rate": 8000}}, "8000 Hz"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path):
    with pytest.raises(FormatError, match=message) as caught:
        load_encoder(broken(tmp_path, dict(change)))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        load_encoder(str(tmp_path / "absent.pt"))
    path = tmp_path / "x.pt"
    path.write_text("<html>404</html>")
    with pytest.raises(FormatError, match="not a fairseq checkpoint"):
        load_encoder(str(path))
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="not a fairseq checkpoint"):
        load_encoder(str(path))
    torch.save({"state_dict": {}}, path)
    with pytest.raises(FormatError, match="no 'model' entry"):
        load_encoder(str(path))


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated(legacy, tmp_path):
    model = random_model("wav2vec2-base")
    path = save(tmp_path / "x.pt", legacy, model=encoder_state(model))
    path.write_bytes(path.read_bytes()[:-20000])
    with pytest.raises(FormatError, match="downloaded to its end"):
        load_encoder(str(path))
