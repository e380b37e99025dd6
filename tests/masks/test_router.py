"""What a router promises, on every family of encoders."""

import numpy as np
import pytest
import torch
from speech_models import FAMILIES, make_audio, make_encoder, output, train
from torch import nn

from s3router.errors import MismatchError, SettingError, VerificationError
from s3router.masks.router import Router, apply_masks


def copies(masks: dict) -> dict:
    return {name: mask.clone() for name, mask in masks.items()}


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(
        torch.equal(one[name], two[name]) for name in one
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_sparsity_zero_is_the_base_model_bit_for_bit(family):
    encoder, audio = make_encoder(family), make_audio()
    base = output(encoder, audio)
    router = Router(encoder, "all", 0.0)
    assert torch.equal(output(encoder, audio), base)
    assert router.sparsity() == 0 and all(
        row["removed"] == 0 for row in router.report()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_are_in_the_output(family):
    encoder, audio = make_encoder(family), make_audio()
    base = output(encoder, audio)
    Router(encoder, "all", 0.3)
    masked = output(encoder, audio)
    other = make_encoder(family)
    with torch.no_grad():
        for name in encoder.state_dict():
            if name.endswith("parametrizations.weight.0.mask"):
                owner = name.removesuffix(".parametrizations.weight.0.mask")
                weight = other.get_submodule(owner).weight
                weight[~encoder.state_dict()[name]] = 0
    assert torch.equal(masked, output(other, audio))
    assert (masked - base).abs().max() > 0.05


@pytest.mark.parametrize("family", FAMILIES)
def test_every_score_gets_a_gradient_and_nothing_else_does(family):
    encoder = make_encoder(family).train()
    router = Router(encoder, "all", 0.3)
    output(encoder, make_audio()).square().sum().backward()
    scores = {id(score) for score in router.scores().values()}
    assert len(scores) == 18
    for name, parameter in encoder.named_parameters():
        if id(parameter) in scores:
            alive = (parameter.grad != 0).float().mean()
            assert alive > 0.9, name
        else:
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name


def test_training_changes_only_scores_and_masks():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    before = copies(encoder.state_dict())
    flips = train(router, encoder, 3)
    assert all(0 < share < 1 for share in flips)
    after = encoder.state_dict()
    changed = {
        name for name in after if not torch.equal(after[name], before[name])
    }
    assert len(changed) == 36
    assert all(n.endswith(("0.scores", "0.mask")) for n in changed)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.1, 0.333, 0.9])
def test_counts_stay_exact_in_training(scope, sparsity):
    encoder = make_encoder()
    router = Router(encoder, "all", sparsity, scope=scope)
    train(router, encoder, 2)
    rows = router.report()
    masks = router.masks()
    for row in rows:
        mask = masks[row["name"]]
        assert row["removed"] == int((~mask).sum())
        assert row["total"] == mask.numel()
        assert row["sparsity"] == row["removed"] / row["total"]
        if scope == "layer":
            assert row["removed"] == round(sparsity * row["total"])
    total = sum(row["total"] for row in rows)
    removed = sum(row["removed"] for row in rows)
    assert removed / total == router.sparsity()
    if scope == "global":
        assert removed == round(sparsity * total)
        assert len({row["sparsity"] for row in rows}) > 1


def test_the_start_is_the_magnitude_mask():
    encoder = make_encoder()
    weights = {
        name: module.weight.detach().clone()
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear)
    }
    router = Router(encoder, "all", 0.25)
    for name, mask in router.masks().items():
        magnitude = weights[name].abs()
        assert magnitude[mask].min() >= magnitude[~mask].max()


def test_masks_follow_the_scores():
    encoder = make_encoder()
    router = Router(encoder, "feed_forward", 0.25)
    score = next(iter(router.scores().values()))
    mask = next(iter(router.masks().values()))
    with torch.no_grad():
        score.fill_(1.0)
        score[:16] = -2.0
        score[40:56] = 0.5
    assert router.refresh() > 0
    assert not mask[40:56].any()
    assert mask[:40].all() and mask[56:].all()
    assert router.refresh() == 0.0


def test_buffers_are_the_same_tensors_for_ever():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    before = {n: (id(m), m.data_ptr()) for n, m in router.masks().items()}
    train(router, encoder, 2)
    router.activate({n: ~m for n, m in copies(router.masks()).items()})
    router.load_state_dict(copies(router.state_dict()))
    after = {n: (id(m), m.data_ptr()) for n, m in router.masks().items()}
    assert before == after


def test_activate_there_and_back():
    encoder, audio = make_encoder(), make_audio()
    router = Router(encoder, "all", 0.2)
    first, masks = output(encoder, audio), copies(router.masks())
    train(router, encoder, 3)
    second, others = output(encoder, audio), copies(router.masks())
    assert not torch.equal(first, second)
    router.activate(masks)
    assert torch.equal(output(encoder, audio), first)
    router.activate({n: m.numpy() for n, m in others.items()})
    assert torch.equal(output(encoder, audio), second)
    router.activate(masks)
    assert torch.equal(output(encoder, audio), first)
    assert same(router.masks(), masks)


def test_activate_counts_what_it_got():
    encoder = make_encoder()
    router = Router(encoder, "*.q_proj", 0.2)
    name = router.targets[0]
    masks = {n: torch.ones_like(m) for n, m in router.masks().items()}
    masks[name][0] = False
    router.activate(masks)
    assert router.report()[0]["removed"] == 32
    assert router.sparsity() == 32 / (3 * 32 * 32)


@pytest.mark.parametrize("way", ["missing", "unknown", "shape", "dtype"])
def test_activate_is_strict_and_whole(way):
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    before = copies(router.masks())
    masks = {n: ~m for n, m in before.items()}
    last = router.targets[-1]
    if way == "missing":
        del masks[last]
    elif way == "unknown":
        masks[last + "s"] = masks[last]
    elif way == "shape":
        masks[last] = masks[last].t()
    else:
        masks[last] = masks[last].float()
    with pytest.raises(MismatchError, match=last.replace(".", r"\.")):
        router.activate(masks)
    assert same(router.masks(), before)


def test_frozen_masks_stay():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    masks = {n: ~m for n, m in copies(router.masks()).items()}
    router.activate(masks)
    router.frozen = True
    assert not any(s.requires_grad for s in router.scores().values())
    assert router.refresh() == 0.0 and same(router.masks(), masks)
    router.frozen = False
    assert all(s.requires_grad for s in router.scores().values())
    assert router.refresh() > 0.0 and not same(router.masks(), masks)


def test_fold_equals_masked_and_leaves_a_plain_model():
    encoder, audio = make_encoder(), make_audio()
    plain = set(encoder.state_dict())
    router = Router(encoder, "all", 0.4)
    masked, masks = output(encoder, audio), router.masks()
    router.fold()
    assert torch.equal(output(encoder, audio), masked)
    assert set(encoder.state_dict()) == plain
    for name, mask in masks.items():
        linear = encoder.get_submodule(name)
        assert type(linear) is nn.Linear
        assert (linear.weight[~mask] == 0).all()
    # What was found can still be asked for, but no longer changed.
    assert router.sparsity() == pytest.approx(0.4, abs=0.001)
    assert same(router.masks(), masks)
    for call in (router.refresh, router.fold, router.remove):
        with pytest.raises(SettingError, match="folded or removed"):
            call()
    with pytest.raises(SettingError, match="folded or removed"):
        router.activate(masks)


def test_remove_gives_the_base_model_back():
    encoder, audio = make_encoder(), make_audio()
    base, before = output(encoder, audio), copies(encoder.state_dict())
    router = Router(encoder, "all", 0.4)
    train(router, encoder, 1)
    router.remove()
    assert same(encoder.state_dict(), before)
    assert torch.equal(output(encoder, audio), base)
    Router(encoder, "all", 0.4)


def test_apply_masks_equals_fold():
    encoder, other, audio = make_encoder(), make_encoder(), make_audio()
    router = Router(encoder, "all", 0.4)
    masks = {n: m.numpy() for n, m in router.masks().items()}
    apply_masks(other, masks)
    assert torch.equal(output(encoder, audio), output(other, audio))


def test_apply_masks_is_strict_and_whole():
    encoder = make_encoder()
    before = copies(encoder.state_dict())
    good = {"encoder.layers.0.attention.q_proj": np.zeros((32, 32), bool)}
    for name, mask, text in (
        ("encoder.layers.0.attention.q_prj", np.ones((32, 32), bool), "q_proj"),
        ("encoder.layers.0.attention.k_proj", np.ones((32, 9), bool), "shape"),
        ("encoder.layers.0.attention.k_proj", np.ones((32, 32)), "float64"),
    ):
        with pytest.raises(MismatchError, match=text):
            apply_masks(encoder, {**good, name: mask})
        assert same(encoder.state_dict(), before)
    Router(encoder, "all", 0.1)
    with pytest.raises(SettingError, match="already has a parametrization"):
        apply_masks(encoder, good)


def test_state_returns_bit_for_bit():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    train(router, encoder, 2)
    saved = copies(router.state_dict())
    train(router, encoder, 1)
    assert not same(router.state_dict(), saved)
    router.load_state_dict(saved)
    assert same(router.state_dict(), saved)
    fresh = make_encoder()
    other = Router(fresh, "all", 0.2, seed=7)
    other.load_state_dict(saved)
    audio = make_audio()
    assert torch.equal(output(fresh, audio), output(encoder, audio))
    assert other.report() == router.report()


def test_training_goes_on_from_a_state_as_if_never_stopped():
    def optimizer_of(router):
        return torch.optim.Adam(router.scores().values(), lr=0.02)

    def step(router, encoder, optimizer):
        optimizer.zero_grad()
        output(encoder, make_audio()).square().mean().backward()
        optimizer.step()
        router.refresh()

    encoder = make_encoder()
    router = Router(encoder, "all", 0.2)
    optimizer = optimizer_of(router)
    for _ in range(2):
        step(router, encoder, optimizer)
    saved = copies(router.state_dict())
    import copy

    moments = copy.deepcopy(optimizer.state_dict())
    step(router, encoder, optimizer)

    again = make_encoder()
    resumed = Router(again, "all", 0.2)
    resumed.load_state_dict(saved)
    optimizer = optimizer_of(resumed)
    optimizer.load_state_dict(moments)
    step(resumed, again, optimizer)
    assert same(router.state_dict(), resumed.state_dict())


def test_a_foreign_state_is_refused():
    router = Router(make_encoder(), "all", 0.2)
    other = Router(make_encoder(), "attention", 0.2)
    before = copies(router.state_dict())
    with pytest.raises(MismatchError, match="router state .* is missing"):
        router.load_state_dict(other.state_dict())
    with pytest.raises(MismatchError, match="has no place here"):
        other.load_state_dict(before)
    assert same(router.state_dict(), before)


def test_refresh_every_n_steps():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2, refresh_every=3)
    flips = train(router, encoder, 7)
    assert [share > 0 for share in flips] == [
        False,
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    with torch.no_grad():
        for score in router.scores().values():
            score.copy_(score.flip(0))
    assert router.refresh() > 0


def test_set_sparsity_counts_from_the_next_refresh():
    router = Router(make_encoder(), "all", 0.1)
    router.set_sparsity(0.5)
    assert router.sparsity() == pytest.approx(0.1, abs=0.001)
    router.refresh()
    assert router.sparsity() == 0.5
    with pytest.raises(SettingError):
        router.set_sparsity(1.0)


def test_seeds():
    def masks(**options):
        return copies(Router(make_encoder(), "all", 0.3, **options).masks())

    drawn = {"init": "kaiming_uniform"}
    assert same(masks(**drawn), masks(**drawn))
    assert not same(masks(**drawn), masks(**drawn, seed=1))
    # The global generator plays no part.
    torch.manual_seed(5)
    first = masks(**drawn)
    torch.manual_seed(6)
    assert same(first, masks(**drawn))
    # Nor does what else is masked.
    some = Router(make_encoder(), "attention", 0.3, **drawn).scores()
    every = Router(make_encoder(), "all", 0.3, **drawn).scores()
    assert all(torch.equal(every[name], some[name]) for name in some)


def test_sparsity_by_part():
    shares = {"feed_forward": 0.1, "attention": 0.4}
    router = Router(make_encoder(), "all", shares)
    for row in router.report():
        part = "attention" if ".attention." in row["name"] else "feed_forward"
        assert row["removed"] == round(shares[part] * row["total"])


def test_sparsity_by_part_with_global_scope_ranks_each_part():
    shares = {"feed_forward": 0.1, "attention": 0.4}
    router = Router(make_encoder(), "all", shares, scope="global")
    rows = router.report()
    for part, share in shares.items():
        mine = [row for row in rows if f".{part}." in row["name"]]
        total = sum(row["total"] for row in mine)
        assert sum(row["removed"] for row in mine) == round(share * total)
        assert len({row["removed"] for row in mine}) > 1


def test_sparsity_by_block():
    router = Router(make_encoder(), "all", {0: 0.1, 1: 0.0, 2: 0.5})
    found = [row["removed"] / row["total"] for row in router.report()[::6]]
    assert found == [102 / 1024, 0, 0.5]


@pytest.mark.parametrize(
    "options, text",
    [
        ({"sparsity": 1.0}, r"not in \[0, 1\)"),
        ({"sparsity": -0.1}, r"not in \[0, 1\)"),
        ({"sparsity": "0.1"}, r"not in \[0, 1\)"),
        ({"sparsity": {"feed_forward": 0.1}}, "nothing is given for .*_proj"),
        ({"sparsity": {"ffn": 0.1}}, "'ffn' is no part"),
        ({"sparsity": {"feed_forward": 2, "attention": 0}}, "feed_forward"),
        ({"sparsity": {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.1}}, "3 is no part"),
        ({"sparsity": {}}, "nothing is given"),
        ({"scope": "globl"}, "did you mean 'global'"),
        ({"pattern": "block"}, "unknown pattern"),
        ({"surrogate": "tanh"}, "unknown surrogate"),
        ({"init": "zero"}, "cannot train"),
        ({"refresh_every": 0}, "refresh_every"),
        ({"refresh_every": 1.5}, "refresh_every"),
        ({"targets": "nothing"}, "matches no linear layer"),
        ({"pattern": "2:4", "sparsity": 0.1}, "removes 0.5"),
        ({"pattern": "2:4", "scope": "global"}, "use scope layer"),
        ({"pattern": "3:7", "sparsity": 4 / 7}, "not a multiple of 7"),
        (
            {"pattern": "structured", "targets": "*.q_proj"},
            "together with .*k_proj",
        ),
        (
            {
                "pattern": "structured",
                "targets": ["attention", "feature_projection.projection"],
            },
            "not in a transformer block",
        ),
    ],
)
def test_bad_settings_change_nothing(options, text):
    encoder = make_encoder()
    before = set(encoder.state_dict())
    with pytest.raises(SettingError, match=text):
        Router(encoder, **{"targets": "all", "sparsity": 0.5, **options})
    assert set(encoder.state_dict()) == before
    assert all(p.requires_grad for p in encoder.parameters())


def test_a_second_router_is_refused():
    encoder = make_encoder()
    Router(encoder, "attention", 0.5)
    with pytest.raises(SettingError, match="already has a parametrization"):
        Router(encoder, "all", 0.5)
    Router(encoder, "feed_forward", 0.5)


def test_scores_that_are_nan_or_not_float_stop_the_run():
    encoder = make_encoder()
    router = Router(encoder, "all", 0.5)
    score = router.scores()["encoder.layers.1.attention.k_proj"]
    with torch.no_grad():
        score[3, 3] = float("nan")
    with pytest.raises(
        VerificationError, match=r"layers\.1\.attention\.k_proj"
    ):
        router.refresh()
    encoder.half()
    with pytest.raises(SettingError, match="must stay float32"):
        router.refresh()


def test_half_precision_encoder_has_float_scores():
    encoder = make_encoder().bfloat16()
    router = Router(encoder, "all", 0.5)
    assert {s.dtype for s in router.scores().values()} == {torch.float32}
    output(encoder, make_audio().bfloat16()).float().sum().backward()
    router.refresh()
    grads = [s.grad for s in router.scores().values()]
    assert {g.dtype for g in grads} == {torch.float32}


@pytest.mark.parametrize("pattern", ["1:2", "2:4", "1:4"])
def test_n_of_m_along_the_input(pattern):
    n, m = map(int, pattern.split(":"))
    encoder = make_encoder()
    router = Router(encoder, "all", 1 - n / m, pattern=pattern)
    train(router, encoder, 2)
    for mask in router.masks().values():
        assert (mask.view(len(mask), -1, m).sum(-1) == n).all()
    assert router.sparsity() == 1 - n / m
    score = router.scores()[router.targets[0]].detach().abs()
    kept = router.masks()[router.targets[0]]
    groups, keep = score.view(-1, m), kept.view(-1, m)
    lowest_kept = groups.masked_fill(~keep, float("inf")).min(1).values
    highest_gone = groups.masked_fill(keep, -1).max(1).values
    assert (lowest_kept >= highest_gone).all()


@pytest.mark.parametrize(
    "init", ["weight_rank", "kaiming_uniform", "weight_magnitude_with_scale"]
)
def test_trained_masks_move(init):
    encoder = make_encoder()
    router = Router(encoder, "all", 0.2, init=init)
    assert min(train(router, encoder, 2)) > 0


def test_binary_start_never_moves():
    # Why it is warned about: the scores at 0 have no gradient.
    encoder = make_encoder()
    with pytest.warns(UserWarning, match="the mask stays"):
        router = Router(encoder, "all", 0.2, init="weight_magnitude")
    assert train(router, encoder, 3) == [0.0] * 3


def test_sigmoid_surrogate_trains_otherwise():
    def trained(surrogate):
        encoder = make_encoder()
        router = Router(encoder, "all", 0.2, surrogate=surrogate)
        output(encoder, make_audio()).square().mean().backward()
        return next(iter(router.scores().values()))

    plain, gated = trained("identity"), trained("sigmoid")
    gate = torch.sigmoid(plain.detach().abs())
    torch.testing.assert_close(gated.grad, plain.grad * gate * (1 - gate))
