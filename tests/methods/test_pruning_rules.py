"""Pruning methods against a plain numpy statement of each rule."""

import numpy as np
import pytest
import torch
from method_encoders import make_encoder, save, train

from s3router.errors import MismatchError, SettingError
from s3router.formats.subnetwork import Subnetwork
from s3router.methods.registry import build_method


def formula_encoder():
    """Return an encoder whose linear weights follow from a formula."""
    encoder = make_encoder()
    for number, (name, module) in enumerate(encoder.named_modules()):
        if isinstance(module, torch.nn.Linear) and "layers" in name:
            size = module.weight.numel()
            values = np.sin(np.arange(size) * 1.37 + number) * (1 + number % 5)
            with torch.no_grad():
                module.weight.copy_(
                    torch.from_numpy(values).view_as(module.weight)
                )
    return encoder


def weights_of(encoder, names):
    return {
        n: encoder.get_submodule(n).weight.detach().numpy().copy()
        for n in names
    }


def smallest_removed(values, share):
    """Return the masks of arrays that are ranked together."""
    flat = np.concatenate([np.abs(v).ravel() for v in values.values()])
    keep = np.ones(flat.size, bool)
    keep[np.argsort(flat, kind="stable")[: round(share * flat.size)]] = False
    sizes = np.cumsum([v.size for v in values.values()])[:-1]
    parts = np.split(keep, sizes)
    return {
        name: part.reshape(values[name].shape)
        for name, part in zip(values, parts, strict=True)
    }


def each_alone(values, share):
    return {
        name: smallest_removed({name: v}, share)[name]
        for name, v in values.items()
    }


RULES = {"layer": each_alone, "global": smallest_removed}


def assert_masks(method, expected):
    found = method.masks()
    assert list(found) == list(expected)
    for name, mask in found.items():
        np.testing.assert_array_equal(mask.numpy(), expected[name])


# -- magnitude --------------------------------------------------------------


@pytest.mark.parametrize("scope", RULES)
@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.77])
def test_magnitude_removes_the_smallest_weights(scope, share):
    encoder = formula_encoder()
    method = build_method("magnitude", sparsity=share, scope=scope)
    names = [
        n
        for n, m in encoder.named_modules()
        if n.endswith(("proj", "dense")) and "layers" in n
    ]
    before = weights_of(encoder, names)
    method.prepare(encoder)
    expected = RULES[scope](before, share)
    assert_masks(method, expected)
    for name, weight in weights_of(encoder, names).items():
        np.testing.assert_array_equal(weight, before[name] * expected[name])


def test_kept_weights_train_and_removed_ones_stay_zero():
    encoder = make_encoder()
    method = build_method("magnitude", sparsity=0.6)
    method.prepare(encoder)
    before = {n: w.clone() for n, w in method.weights().items()}
    train(encoder, method, steps=4)
    after = method.weights()
    for owner, mask in method.masks().items():
        weight, old = after[f"{owner}.weight"], before[f"{owner}.weight"]
        assert not weight[~mask].any()
        assert (weight[mask] != old[mask]).float().mean() > 0.9


def test_without_training_weights_only_the_mask_is_stored(tmp_path):
    encoder = make_encoder()
    method = build_method("magnitude", sparsity=0.6, train_weights=False)
    method.prepare(encoder)
    assert method.parameter_groups() == {}
    train(encoder, method)
    loaded = Subnetwork.load(save(method, tmp_path / "xx"))
    assert loaded.weights == {}
    assert loaded.config["measured_sparsity"] == pytest.approx(0.6, abs=1e-3)


def test_one_shot_ranks_a_fine_tuned_models_weights(tmp_path):
    tuned_encoder = make_encoder()
    full = build_method("full")
    full.prepare(tuned_encoder)
    train(tuned_encoder, full, steps=5)
    folder = save(full, tmp_path / "full")

    encoder = make_encoder()
    names = list(build_and_prepare("magnitude", encoder).masks())
    original = weights_of(make_encoder(), names)
    tuned = weights_of(tuned_encoder, names)
    encoder = make_encoder()
    method = build_and_prepare(
        "magnitude", encoder, sparsity=0.5, start_mask=str(folder)
    )
    expected = each_alone(tuned, 0.5)
    assert_masks(method, expected)
    assert any(
        (expected[n] != m).any() for n, m in each_alone(original, 0.5).items()
    )
    # The weights are rewound: kept ones are the pre-trained ones.
    for name, weight in weights_of(encoder, names).items():
        np.testing.assert_array_equal(weight, original[name] * expected[name])


def test_rounds_of_magnitude_pruning_are_the_lottery_ticket(tmp_path):
    """Each round ranks what the last one trained; nothing comes back."""
    masks, start = [], None
    for number, share in enumerate((0.2, 0.4, 0.6)):
        encoder = make_encoder()
        method = build_and_prepare(
            "magnitude", encoder, sparsity=share, start_mask=start
        )
        masks.append({n: m.numpy().copy() for n, m in method.masks().items()})
        train(encoder, method, steps=4)
        trained = weights_of(encoder, masks[-1])
        start = str(save(method, tmp_path / str(number)))
        following = each_alone(trained, share + 0.2)
        if number < 2:
            expected = following
        if number:
            for name, mask in masks[-1].items():
                assert not (mask & ~masks[-2][name]).any()
    for name, mask in masks[-1].items():
        np.testing.assert_array_equal(mask, expected[name])


def build_and_prepare(name, encoder, targets="all", **settings):
    method = build_method(name, targets=targets, **settings)
    method.prepare(encoder)
    return method


def tuned_by_formula(tmp_path):
    """Return a fine-tuned subnetwork, and what it made of the weights."""
    encoder = formula_encoder()
    full = build_and_prepare("full", encoder)
    names = list(build_and_prepare("random", formula_encoder()).masks())
    pretend_to_train(encoder, names, step=1)
    folder = save(full, tmp_path / "full", encoder=formula_encoder())
    return str(folder), weights_of(encoder, names)


@pytest.mark.parametrize("scope", RULES)
def test_extraction_lays_the_tuned_models_mask_on_the_original(scope, tmp_path):
    start, tuned = tuned_by_formula(tmp_path)
    encoder = formula_encoder()
    method = build_and_prepare(
        "magnitude",
        encoder,
        sparsity=0.4,
        scope=scope,
        start_mask=start,
        train_weights=False,
    )
    train(encoder, method, steps=3)
    expected = RULES[scope](tuned, 0.4)
    assert_masks(method, expected)
    original = weights_of(formula_encoder(), tuned)
    for name, weight in weights_of(encoder, tuned).items():
        np.testing.assert_array_equal(weight, original[name] * expected[name])
    assert any(
        (mask != expected[name]).any()
        for name, mask in RULES[scope](original, 0.4).items()
    )


def test_parp_starts_from_a_fine_tuned_models_mask(tmp_path):
    start, tuned = tuned_by_formula(tmp_path)
    encoder = formula_encoder()
    method = build_and_prepare(
        "parp", encoder, sparsity=0.4, reprune_every=2, start_mask=start
    )
    method.plan(4)
    expected = smallest_removed(tuned, 0.4)
    original = weights_of(formula_encoder(), tuned)
    now = {name: original[name] * expected[name] for name in tuned}
    for name, weight in weights_of(encoder, tuned).items():
        np.testing.assert_array_equal(weight, now[name])
    other = formula_encoder()
    with torch.no_grad():
        for name, weight in now.items():
            other.get_submodule(name).weight.copy_(torch.from_numpy(weight))
    for step in (1, 2):
        for one in (encoder, other):
            pretend_to_train(one, tuned, step)
        method.after_step(step)
    assert_masks(method, smallest_removed(weights_of(other, tuned), 0.4))


# -- random -----------------------------------------------------------------


def test_a_random_mask_has_nothing_to_do_with_the_weights():
    masks = [
        build_and_prepare("random", formula_encoder(), sparsity=0.3, seed=s)
        for s in (0, 0, 1)
    ]
    first, again, other = (m.masks() for m in masks)
    weights = weights_of(formula_encoder(), first)
    for name, mask in first.items():
        assert torch.equal(mask, again[name])
        assert not torch.equal(mask, other[name])
        assert int((~mask).sum()) == round(0.3 * mask.numel())
        size = np.abs(weights[name])
        kept, removed = size[mask.numpy()], size[~mask.numpy()]
        error = size.std() * np.sqrt(1 / kept.size + 1 / removed.size)
        assert abs(kept.mean() - removed.mean()) < 4.5 * error


# -- Taylor -----------------------------------------------------------------


@pytest.mark.parametrize("scope", RULES)
def test_taylor_removes_what_the_loss_would_miss_least(scope):
    encoder = formula_encoder()
    method = build_method("taylor", sparsity=0.4, scope=scope, taylor_batches=5)
    method.prepare(encoder)
    names = list(method.masks())
    weights = weights_of(encoder, names)
    batches = [1.0, -2.0, 0.5]

    def slope(name, batch):
        size = weights[name].size
        angle = np.arange(size) * 0.71 + 3 * batch + names.index(name)
        return np.cos(angle).reshape(weights[name].shape).astype(np.float32)

    def batch_loss(batch):
        # Linear in the weights, so that the gradient is the slope.
        return sum(
            (
                encoder.get_submodule(n).weight
                * torch.from_numpy(slope(n, batch))
            ).sum()
            for n in names
        )

    method.before_fit(lambda: iter(batches), batch_loss)
    seen = [*batches, *batches[:2]]  # five batches of epochs of three
    importance = {
        n: sum((slope(n, b) * weights[n]) ** 2 for b in seen) for n in names
    }
    assert_masks(method, RULES[scope](importance, 0.4))
    for name, mask in method.masks().items():
        np.testing.assert_array_equal(
            weights_of(encoder, [name])[name], weights[name] * mask.numpy()
        )


def test_taylor_needs_data():
    method = build_and_prepare("taylor", make_encoder())
    with pytest.raises(SettingError, match="no training batch"):
        method.before_fit(lambda: iter([]), lambda _: None)
    with pytest.raises(SettingError, match="taylor_batches is 0"):
        build_method("taylor", taylor_batches=0)


# -- PARP -------------------------------------------------------------------


def pretend_to_train(encoder, names, step):
    """Change weights by a formula, as an optimizer would."""
    for number, name in enumerate(names):
        weight = encoder.get_submodule(name).weight
        angle = np.arange(weight.numel()) * 0.9 + 7 * step + number
        change = 0.3 * np.cos(angle).astype(np.float32)
        with torch.no_grad():
            weight.add_(torch.from_numpy(change).view_as(weight))


@pytest.mark.parametrize("scope", RULES)
@pytest.mark.parametrize("initial", [None, 0.1])
def test_parp_prunes_adjusts_and_prunes_again(scope, initial):
    share, every, steps = 0.5, 3, 14
    encoder, other = formula_encoder(), formula_encoder()
    method = build_method(
        "parp",
        sparsity=share,
        scope=scope,
        reprune_every=every,
        initial_sparsity=initial,
        ramp_share=0.7,
    )
    method.prepare(encoder)
    method.plan(steps)
    names = list(method.masks())
    rule = RULES[scope]

    def zero(share_now):
        masks = rule(weights_of(other, names), share_now)
        with torch.no_grad():
            for name, mask in masks.items():
                other.get_submodule(name).weight.mul_(torch.from_numpy(mask))

    # Restated: 9 of 14 steps rise (0.7 * 14 = 9.8), three prunings.
    rises = {0: 0.1, 3: 0.1 + 0.4 / 3, 6: 0.1 + 0.8 / 3}
    zero(share if initial is None else rises[0])
    for step in range(1, steps + 1):
        for one in (encoder, other):
            pretend_to_train(one, names, step)
        method.after_step(step)
        if step % every == 0:
            zero(share if initial is None else rises.get(step, share))
        mine, theirs = weights_of(encoder, names), weights_of(other, names)
        for name in names:
            np.testing.assert_array_equal(mine[name], theirs[name])
    grown = sum((w != 0).sum() for w in mine.values())
    total = sum(w.size for w in mine.values())
    assert grown > 0.9 * total, "weights grow back between prunings"
    # Two steps after the last pruning, what is saved is pruned all the same.
    expected = rule(mine, share)
    assert_masks(method, expected)
    removed = sum((~m).sum() for m in expected.values())
    assert removed == (
        round(share * total)
        if scope == "global"
        else sum(round(share * m.size) for m in expected.values())
    )
    saved = method.weights()
    for name, mask in expected.items():
        np.testing.assert_array_equal(
            saved[f"{name}.weight"].numpy(), mine[name] * mask
        )


def test_parp_starts_from_another_languages_subnetwork(tmp_path):
    encoder = make_encoder()
    other = build_and_prepare(
        "mask_tuning", encoder, targets="all", sparsity=0.5
    )
    train(encoder, other, steps=6)
    folder = save(other, tmp_path / "other")
    theirs = {n: m.numpy().copy() for n, m in other.masks().items()}
    encoder = make_encoder()
    original = weights_of(encoder, theirs)
    build_and_prepare(
        "parp", encoder, sparsity=0.5, scope="layer", start_mask=str(folder)
    )
    for name, weight in weights_of(encoder, theirs).items():
        np.testing.assert_array_equal(weight, original[name] * theirs[name])


def test_parp_refuses_what_cannot_be():
    with pytest.raises(SettingError, match="only rises"):
        build_method("parp", sparsity=0.3, initial_sparsity=0.4)
    with pytest.raises(SettingError, match="reprune_every is 0"):
        build_method("parp", reprune_every=0)
    with pytest.raises(SettingError, match="ramp_share is 1.5"):
        build_method("parp", initial_sparsity=0.1, ramp_share=1.5)
    with pytest.raises(SettingError, match="fixes the sparsity"):
        build_method("parp", initial_sparsity=0.1, pattern="2:4")
    method = build_method("parp", initial_sparsity=0.1, reprune_every=50)
    with pytest.raises(SettingError, match="never get there"):
        method.plan(60)


# -- starts -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_of_another_encoder_is_refused(name, tmp_path):
    encoder = make_encoder(seed=1)
    full = build_and_prepare("full", encoder)
    folder = save(full, tmp_path / "other", seed=1)
    with pytest.raises(MismatchError, match="was made for the encoder"):
        build_and_prepare(name, make_encoder(), start_mask=str(folder))


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_that_masks_other_targets_is_refused(name, tmp_path):
    other = build_and_prepare("magnitude", make_encoder(), "attention")
    folder = save(other, tmp_path / "attention")
    with pytest.raises(MismatchError, match="masks other targets"):
        build_and_prepare(name, make_encoder(), start_mask=str(folder))
    # Fewer targets than it masks are there.
    sparse = build_and_prepare("magnitude", make_encoder(), sparsity=0.5)
    folder = save(sparse, tmp_path / "all")
    build_and_prepare(name, make_encoder(), "attention", start_mask=str(folder))


@pytest.mark.parametrize("name", ["magnitude", "parp"])
def test_a_start_sparser_than_asked_for_is_refused(name, tmp_path):
    sparse = build_and_prepare("magnitude", make_encoder(), sparsity=0.5)
    start = str(save(sparse, tmp_path / "half"))
    with pytest.raises(SettingError, match="at least 0.5"):
        build_and_prepare(name, make_encoder(), sparsity=0.4, start_mask=start)
    method = build_and_prepare(
        name, make_encoder(), sparsity=0.6, start_mask=start
    )
    for key, mask in method.masks().items():
        assert not (mask & ~sparse.masks()[key]).any()
