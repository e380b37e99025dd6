"""IA3 and bottleneck adapters against their formulas."""

import copy

import numpy as np
import pytest
import torch
from method_encoders import loss, make_encoder, output, save, train

from s3router.errors import SettingError
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.targets import find_blocks
from s3router.methods.registry import build_method
from s3router.models.bottleneck import attach_bottlenecks


def prepared(name, **settings):
    encoder = make_encoder()
    method = build_method(name, **settings)
    method.prepare(encoder)
    return encoder, method


@pytest.mark.parametrize("name", ["ia3", "adapter"])
def test_it_starts_at_the_encoder_itself_and_learns(name):
    encoder, method = prepared(name)
    torch.testing.assert_close(
        output(encoder), output(make_encoder()), rtol=0, atol=1e-6
    )
    before = float(loss(encoder).detach())
    train(encoder, method, steps=10)
    assert float(loss(encoder).detach()) < before - 1e-3


def test_ia3_scales_keys_values_and_inner_activations():
    encoder, method = prepared("ia3", targets="all")
    plain = make_encoder()
    scaled = {}
    with torch.no_grad():
        for number, (name, vector) in enumerate(method.factors()):
            values = 1 + 0.5 * torch.sin(torch.arange(vector.numel()) + number)
            vector.copy_(values.view_as(vector))
            scaled[name.removesuffix(".ia3")] = values
    expected = set()
    for block in find_blocks(plain):
        attention, feed_forward = block.attention, block.feed_forward
        expected |= {attention["k"], attention["v"], feed_forward["fc2"]}
    assert set(scaled) == expected
    # What leaves keys and values, and what enters fc2, is scaled.
    for name, values in scaled.items():
        layer = plain.get_submodule(name)
        if name.endswith("output_dense"):
            layer.register_forward_pre_hook(
                lambda _, inputs, values=values: (inputs[0] * values,)
            )
        else:
            layer.register_forward_hook(
                lambda _, __, out, values=values: out * values
            )
    torch.testing.assert_close(
        output(encoder), output(plain), rtol=0, atol=1e-5
    )
    for part, count in (("attention", 4), ("feed_forward", 2)):
        _, some = prepared("ia3", targets=part)
        assert len(dict(some.factors())) == count
    with pytest.raises(SettingError, match="what IA3 scales"):
        prepared("ia3", targets="*.q_proj")


def first_of(output):
    """Return what a block hands on, whether or not more comes with it."""
    return output[0] if isinstance(output, tuple) else output


def test_an_adapter_is_its_formula(tmp_path):
    encoder, method = prepared("adapter", adapter_width=5, seed=3)
    train(encoder, method, steps=5)
    module = encoder.encoder.layers[1]
    hidden = torch.randn(2, 7, 32)
    found = first_of(module(hidden)).detach().numpy()
    block = make_encoder().encoder.layers[1]
    f = first_of(block(hidden)).detach().numpy().astype(np.float64)
    saved = {
        n.rpartition("bottleneck.")[2]: w.numpy().astype(np.float64)
        for n, w in method.weights().items()
        if "layers.1." in n
    }
    mean, variance = f.mean(-1, keepdims=True), f.var(-1, keepdims=True)
    normed = (f - mean) / np.sqrt(variance + 1e-5)
    normed = normed * saved["norm.weight"] + saved["norm.bias"]
    inner = np.maximum(normed @ saved["down.weight"].T + saved["down.bias"], 0)
    expected = f + inner @ saved["up.weight"].T + saved["up.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)

    loaded = Subnetwork.load(save(method, tmp_path / "xx"))
    values = sum(w.size for w in loaded.weights.values())
    assert values == 2 * (2 * 32 + 5 * 32 + 5 + 32 * 5 + 32)
    assert loaded.config["adapter_bytes"] == 2 * values
    assert loaded.config["adapter_width"] == 5


def test_a_copy_of_an_adapted_encoder_has_its_own_adapters():
    encoder, method = prepared("adapter")
    train(encoder, method, steps=5)
    twin = copy.deepcopy(encoder).double()
    before = twin.encoder(torch.ones(1, 4, 32).double()).last_hidden_state
    expected = encoder.encoder(torch.ones(1, 4, 32)).last_hidden_state
    torch.testing.assert_close(before.float(), expected, rtol=0, atol=1e-5)
    train(encoder, method, steps=5)
    after = twin.encoder(torch.ones(1, 4, 32).double()).last_hidden_state
    assert torch.equal(before, after)


def test_adapters_are_refused_where_they_cannot_be():
    with pytest.raises(SettingError, match="adapter_width is 0"):
        build_method("adapter", adapter_width=0)
    encoder, _ = prepared("adapter")
    with pytest.raises(SettingError, match="has an adapter already"):
        attach_bottlenecks(encoder, 4)
    with pytest.raises(SettingError, match="this encoder has none"):
        attach_bottlenecks(torch.nn.Linear(2, 2), 4)
