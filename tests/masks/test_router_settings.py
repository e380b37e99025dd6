"""What each setting of a router does, and which are refused."""

import pytest
import torch
from speech_models import (
    copies,
    make_audio,
    make_encoder,
    output,
    same,
    train,
)

from s3router.errors import SettingError, VerificationError
from s3router.masks.router import Router


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
    # As JSON has it, which knows no numbers for keys.
    same = Router(make_encoder(), "all", {"0": 0.1, "1": 0.0, "2": 0.5})
    assert same.report() == router.report()


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
        ({"refresh_every": "abc"}, "refresh_every is 'abc'"),
        ({"init_scale": "abc"}, "init_scale is 'abc'"),
        ({"seed": "abc"}, "seed is 'abc'"),
        ({"targets": 3}, "3 is not a name or a list"),
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


@pytest.mark.parametrize("value", ["no", "off", "yes", 0, None])
def test_frozen_is_true_or_false(value):
    router = Router(make_encoder(), "all", 0.5)
    with pytest.raises(SettingError, match="write true or false"):
        router.frozen = value
    assert not router.frozen
    assert all(s.requires_grad for s in router.scores().values())


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
