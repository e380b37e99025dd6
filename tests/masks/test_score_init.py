"""Starting scores: distributions, ranks, what is refused, determinism."""

import warnings

import numpy as np
import pytest
import torch

from s3router.errors import SettingError
from s3router.masks.init import ALIASES, INITS, check_init, initial_scores

OUT, IN = 200, 300
QUIET = [
    name
    for name in INITS
    if name not in ("zero", "one") and not name.endswith("weight_magnitude")
]


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(OUT, IN, generator=generator) * 0.05


def scores(init, weight=None, seed=3, **options):
    weight = weights() if weight is None else weight
    generator = torch.Generator().manual_seed(seed)
    return initial_scores(init, weight, (IN, OUT), generator, **options)


@pytest.mark.parametrize("init", [name for name in INITS if name != "zero"])
def test_shape_dtype_and_seed(init):
    first = scores(init, sparsity=0.1)
    assert first.shape == (OUT, IN) and first.dtype == torch.float32
    assert torch.equal(first, scores(init, sparsity=0.1))
    drawn = init in (
        "kaiming_uniform",
        "kaiming_normal",
        "xavier_uniform",
        "xavier_normal",
        "uniform",
        "normal",
        "weight_rank",
        "negative_weight_rank",
    )
    assert torch.equal(first, scores(init, seed=4, sparsity=0.1)) != drawn


@pytest.mark.parametrize(
    "init, bound",
    [
        ("kaiming_uniform", IN**-0.5),
        ("xavier_uniform", (6 / (IN + OUT)) ** 0.5),
    ],
)
def test_uniform_within_its_bound(init, bound):
    drawn = scores(init)
    assert drawn.abs().max() <= bound and drawn.abs().max() > 0.99 * bound
    assert abs(drawn.std().item() - bound / 3**0.5) < 0.01 * bound


@pytest.mark.parametrize(
    "init, deviation",
    [
        ("kaiming_normal", (3 * IN) ** -0.5),
        ("xavier_normal", (2 / (IN + OUT)) ** 0.5),
        ("normal", 1.0),
    ],
)
def test_normal_is_truly_normal(init, deviation):
    drawn = scores(init) / deviation
    assert abs(drawn.std().item() - 1) < 0.02
    # A uniform distribution of this deviation ends at 1.73; the original's
    # xavier_normal is one.
    assert drawn.abs().max() > 3.5


def test_agrees_with_torch_nn_init():
    torch.manual_seed(0)
    theirs = torch.empty(OUT, IN)
    torch.nn.init.kaiming_uniform_(theirs, a=5**0.5)
    assert abs(theirs.std() / scores("kaiming_uniform").std() - 1) < 0.02
    torch.nn.init.xavier_normal_(theirs)
    assert abs(theirs.std() / scores("xavier_normal").std() - 1) < 0.02
    torch.nn.init.kaiming_normal_(theirs, a=5**0.5)
    assert abs(theirs.std() / scores("kaiming_normal").std() - 1) < 0.02


def test_uniform_and_one():
    drawn = scores("uniform")
    assert 0 <= drawn.min() and drawn.max() < 1
    assert (scores("one") == 1).all()


def test_weight_rank_ranks_as_the_weights():
    weight = weights()
    drawn = scores("weight_rank", weight)
    by_score = np.argsort(drawn.abs().numpy().reshape(-1), kind="stable")
    by_weight = np.argsort(weight.abs().numpy().reshape(-1), kind="stable")
    # Equal |draws| may change places; everything else is in the same order.
    magnitude = drawn.abs().numpy().reshape(-1)
    assert np.array_equal(magnitude[by_score], magnitude[by_weight])
    # The values themselves stay on the kaiming scale.
    plain = scores("kaiming_uniform", weight)
    assert torch.equal(
        drawn.flatten().sort().values, plain.flatten().sort().values
    )


def test_negative_weight_rank_is_the_other_way_round():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randperm(OUT * IN, generator=generator).float()
    weight = weight.view(OUT, IN)  # all different
    drawn = scores("negative_weight_rank", weight).abs().numpy().reshape(-1)
    order = np.argsort(-weight.abs().numpy().reshape(-1), kind="stable")
    assert (np.diff(drawn[order]) >= 0).all()


def test_equal_weights_rank_by_position():
    weight = torch.full((4, 5), 0.5)
    drawn = scores("weight_rank", weight).abs().flatten()
    assert (drawn.diff() >= 0).all()


def test_magnitude_with_scale_is_the_signed_weight():
    weight = weights()
    assert torch.equal(scores("weight_magnitude_with_scale", weight), weight)
    halved = scores("weight_magnitude_with_scale", weight, scale=2.0)
    assert torch.equal(halved, weight / 2)


@pytest.mark.parametrize("negative", [False, True])
def test_binary_starts_are_the_magnitude_mask(negative):
    weight = weights()
    prefix = "negative_" if negative else ""
    drawn = scores(f"{prefix}weight_magnitude", weight, sparsity=0.25)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert (drawn == 0).sum() == OUT * IN // 4
    gone, kept = weight.abs()[drawn == 0], weight.abs()[drawn == 1]
    if negative:
        assert gone.min() >= kept.max()
    else:
        assert gone.max() <= kept.min()


def test_zero_is_refused():
    with pytest.raises(SettingError, match="zero cannot train"):
        check_init("zero")


@pytest.mark.parametrize(
    "init, text",
    [
        ("weight_magnitude", "0 has no gradient"),
        ("negative_weight_magnitude", "0 has no gradient"),
        ("one", "first weights"),
        ("constant", "first weights"),
    ],
)
def test_starts_that_cannot_move_are_warned_about(init, text):
    with pytest.warns(UserWarning, match=text):
        check_init(init)


@pytest.mark.parametrize("init", QUIET)
def test_the_others_pass_in_silence(init):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_init(init) == init


def test_aliases_unknown_names_and_scales():
    assert {ALIASES["kaiming"], ALIASES["constant"]} <= set(INITS)
    with pytest.raises(SettingError, match="did you mean 'weight_rank'"):
        check_init("weight_ranks")
    with pytest.raises(SettingError, match="weight_magnitude_with_scale only"):
        check_init("weight_rank", 2.0)
    for scale in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(SettingError, match="positive"):
            check_init("weight_magnitude_with_scale", scale)
