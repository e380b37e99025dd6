"""Precision "auto", and the attention that goes with it."""

import pytest
import torch
from model_factory import random_model

from s3router.models import precision
from s3router.models.precision import choose_attention, resolve_precision


@pytest.mark.parametrize(
    ("fast", "expected"), [(True, "bf16"), (False, "fp32")]
)
def test_auto_is_what_the_device_does_fast(monkeypatch, fast, expected):
    monkeypatch.setattr(precision, "bfloat16_is_fast", lambda device: fast)
    assert resolve_precision("auto", "cpu") == expected
    assert resolve_precision("fp16", "cpu") == "fp16"


def test_plain_attention_is_for_bf16_on_a_cpu_and_tells_the_same():
    model = random_model("hubert-base")
    wave = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        fused = model(wave).last_hidden_state
    for device, kind in (("cuda:0", "bf16"), ("cpu", "fp32")):
        choose_attention(model, device, kind)
        assert model.config._attn_implementation == "sdpa"
    choose_attention(model, "cpu", "bf16")
    assert model.config._attn_implementation == "eager"
    with torch.no_grad():
        plain = model(wave).last_hidden_state
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-4)
