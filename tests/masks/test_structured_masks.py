"""Channels and heads: what a group is, that it trains, that it can be cut."""

import pytest
import torch
from speech_models import make_audio, make_encoder, output, train
from torch import nn

from s3router.masks.router import Router, apply_masks
from s3router.masks.targets import find_blocks

HEADS, HEAD = 4, 8


def structured(family="wavlm", sparsity=0.25, **options):
    encoder = make_encoder(family)
    options = {"pattern": "structured", "targets": "all", **options}
    return encoder, Router(encoder, sparsity=sparsity, **options)


def test_scores_are_one_for_each_channel_and_head():
    _, router = structured()
    shapes = {n: tuple(s.shape) for n, s in router.scores().items()}
    assert shapes == {
        f"encoder.layers.{i}.{part}": shape
        for i in range(3)
        for part, shape in (("attention", (4,)), ("feed_forward", (64,)))
    }


def test_masks_are_whole_rows_and_columns_that_agree():
    encoder, router = structured()
    train(router, encoder, 3, lr=0.05)
    masks = router.masks()
    for block in find_blocks(encoder):
        fc1, fc2 = (masks[n] for n in block.feed_forward.values())
        channels = fc1.all(1)
        assert torch.equal(fc1, channels[:, None].expand(64, 32))
        assert torch.equal(fc2, channels[None, :].expand(32, 64))
        assert (~channels).sum() == 16
        heads = masks[block.attention["q"]].view(HEADS, -1).all(1)
        assert (~heads).sum() == 1
        wide = heads.repeat_interleave(HEAD)
        for role in ("q", "k", "v"):
            expected = wide[:, None].expand(32, 32)
            assert torch.equal(masks[block.attention[role]], expected)
        expected = wide[None, :].expand(32, 32)
        assert torch.equal(masks[block.attention["out"]], expected)


def test_group_scores_train_and_move_the_masks():
    # In the original the structured classes fail or turn into plain ones.
    encoder, router = structured("wav2vec2", init="kaiming_uniform")
    before = {n: s.detach().clone() for n, s in router.scores().items()}
    flips = train(router, encoder, 10, lr=0.05)
    assert max(flips) > 0
    for name, score in router.scores().items():
        assert (score != before[name]).all()


def gate_gradients(encoder, masks, audio):
    """Return d loss / d gate, a gate on each channel and head's output."""
    gates, found = [], {}
    for block in find_blocks(encoder):
        for name, groups in (
            (block.attention["out"], HEADS),
            (block.feed_forward["fc2"], 64),
        ):
            keep = masks[name].t().reshape(groups, -1).all(1)
            gate = keep.float().requires_grad_()
            linear = encoder.get_submodule(name)

            def scale(module, inputs, gate=gate):
                wide = inputs[0].shape[-1] // gate.numel()
                return (inputs[0] * gate.repeat_interleave(wide),)

            gates.append(linear.register_forward_pre_hook(scale))
            part = name.rsplit(".", 1)[0]
            found[part] = gate
    output(encoder, audio).square().sum().backward()
    for hook in gates:
        hook.remove()
    return {name: gate.grad for name, gate in found.items()}


def test_gradient_is_that_of_a_gate_on_each_group():
    # Also for removed groups: what they would add if they came back.
    encoder, router = structured("wav2vec2", 0.5)
    audio = make_audio()
    output(encoder, audio).square().sum().backward()
    expected = gate_gradients(make_encoder("wav2vec2"), router.masks(), audio)
    assert expected.keys() == router.scores().keys()
    for name, score in router.scores().items():
        torch.testing.assert_close(
            score.grad,
            expected[name] * score.detach().sign(),
            rtol=1e-3,
            atol=1e-3,
        )
        assert (score.grad != 0).all()


def test_rows_are_masked_where_masks_do_not_agree():
    # A mask of another form is obeyed to the letter.
    encoder, router = structured("wav2vec2")
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(mask.shape, generator=generator) > 0.3
        for name, mask in router.masks().items()
    }
    router.activate(masks)
    plain = make_encoder("wav2vec2")
    apply_masks(plain, masks)
    audio = make_audio()
    assert torch.equal(output(encoder, audio), output(plain, audio))
    router.refresh()
    groups = {n: m.clone() for n, m in router.masks().items()}
    first = output(encoder, audio)
    router.activate(masks)
    router.activate(groups)
    assert torch.equal(output(encoder, audio), first)
    assert all(
        encoder.get_submodule(n).parametrizations.weight[0].follows
        == (not n.endswith(("out_proj", "output_dense")))
        for n in masks
    )


def test_fold_writes_the_zeros_of_rows_and_columns():
    encoder, router = structured("wavlm")
    audio = make_audio()
    masked = output(encoder, audio)
    router.fold()
    for name, mask in router.masks().items():
        assert (encoder.get_submodule(name).weight[~mask] == 0).all()
    torch.testing.assert_close(
        output(encoder, audio), masked, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_cutting_the_channels_equals_masking_them(family):
    encoder, router = structured(family, 0.5, targets="feed_forward")
    audio = make_audio()
    masked = output(encoder, audio)
    masks = {n: m.clone() for n, m in router.masks().items()}
    router.remove()
    for block in find_blocks(encoder):
        fc1, fc2 = (
            encoder.get_submodule(n) for n in block.feed_forward.values()
        )
        keep = masks[block.feed_forward["fc1"]].any(1)
        fc1.weight = nn.Parameter(fc1.weight[keep])
        fc1.bias = nn.Parameter(fc1.bias[keep])
        fc2.weight = nn.Parameter(fc2.weight[:, keep])
    torch.testing.assert_close(
        output(encoder, audio), masked, rtol=1e-5, atol=1e-5
    )


def test_cutting_the_heads_equals_masking_them():
    encoder, router = structured("wav2vec2", 0.5, targets="attention")
    audio = make_audio()
    masked = output(encoder, audio)
    masks = {n: m.clone() for n, m in router.masks().items()}
    router.remove()
    for index, block in enumerate(find_blocks(encoder)):
        keep = masks[block.attention["q"]].any(1)
        assert keep.sum() == 16
        attention = encoder.encoder.layers[index].attention
        for role in ("q_proj", "k_proj", "v_proj"):
            linear = getattr(attention, role)
            linear.weight = nn.Parameter(linear.weight[keep])
            linear.bias = nn.Parameter(linear.bias[keep])
        out = attention.out_proj
        out.weight = nn.Parameter(out.weight[:, keep])
        attention.num_heads, attention.embed_dim = 2, 16
    torch.testing.assert_close(
        output(encoder, audio), masked, rtol=1e-5, atol=1e-5
    )


def test_the_start_removes_the_groups_of_smallest_norm():
    plain = make_encoder()
    _, router = structured("wav2vec2", targets="feed_forward")
    block = find_blocks(plain)[0]
    fc1, fc2 = (
        plain.get_submodule(n).weight for n in block.feed_forward.values()
    )
    norm = (fc1.square().sum(1) + fc2.square().sum(0)).sqrt()
    keep = router.masks()[block.feed_forward["fc1"]].any(1)
    assert norm[keep].min() > norm[~keep].max()


def test_global_scope_ranks_channels_and_heads_apart():
    _, router = structured("wav2vec2", 0.25, scope="global")
    with torch.no_grad():
        for name, score in router.scores().items():
            if name.endswith("feed_forward"):
                score.mul_(100)  # in one ranking, all heads would go first
    router.refresh()
    rows = router.report()
    attention = [r for r in rows if ".attention." in r["name"]]
    channels = [r for r in rows if ".intermediate_dense" in r["name"]]
    assert sum(r["removed"] for r in attention) == 3 * 4 * HEAD * 32
    assert sum(r["removed"] for r in channels) == 48 * 32


def test_a_sparsity_that_removes_no_head_is_said():
    with pytest.warns(UserWarning, match="4 groups of .*rounds to none"):
        structured(sparsity=0.1, targets="attention")


def test_sparsity_zero_is_the_base_model():
    plain, audio = make_encoder("wavlm"), make_audio()
    encoder, router = structured(sparsity=0.0)
    for name in router.masks():
        weight = plain.get_submodule(name).weight
        assert torch.equal(encoder.get_submodule(name).weight, weight)
    # Kernels round by where the weights lie in memory, on some processors.
    torch.testing.assert_close(
        output(encoder, audio), output(plain, audio), rtol=0, atol=1e-5
    )
    assert router.sparsity() == 0


def test_any_mask_can_be_activated_and_state_returns():
    encoder, router = structured()
    train(router, encoder, 2)
    saved = {n: t.clone() for n, t in router.state_dict().items()}
    router.activate({n: ~m for n, m in router.masks().items()})
    router.load_state_dict(saved)
    for name, tensor in router.state_dict().items():
        assert torch.equal(tensor, saved[name])


@pytest.mark.parametrize(
    "init",
    [
        "kaiming_uniform",
        "kaiming_normal",
        "xavier_uniform",
        "xavier_normal",
        "uniform",
        "normal",
        "weight_rank",
        "negative_weight_rank",
        "weight_magnitude_with_scale",
    ],
)
def test_every_start_works_on_groups(init):
    encoder, router = structured("wav2vec2", init=init)
    train(router, encoder, 1)
    assert router.sparsity() == 0.25
