"""What every method promises; a new method is checked by being registered."""

import pytest
import torch
from method_encoders import make_encoder, output, save, train

from s3router.errors import MismatchError, SettingError
from s3router.export.fold import put_subnetwork
from s3router.formats.subnetwork import Subnetwork
from s3router.methods.registry import METHODS, build_method

# Settings of all methods side by side, as a YAML has them.
SETTINGS = {
    "targets": "all",
    "sparsity": 0.3,
    "scope": "layer",
    "seed": 3,
    "reprune_every": 2,
}
# W x + B (A x) and (W + B A) x are rounded differently; all else is exact.
ROUNDING = {"lora": 1e-5, "ia3": 1e-5}


@pytest.fixture(params=sorted(METHODS))
def name(request):
    return request.param


def prepared(name: str):
    encoder = make_encoder()
    method = build_method(name, **SETTINGS)
    method.prepare(encoder)
    return encoder, method


def test_groups_are_disjoint_and_trainable(name):
    encoder, method = prepared(name)
    tensors = [p for g in method.parameter_groups().values() for p in g]
    assert all(p.requires_grad for p in tensors)
    assert len({id(p) for p in tensors}) == len(tensors)
    trainable = {id(p) for p in encoder.parameters() if p.requires_grad}
    assert trainable == {id(p) for p in tensors}


def test_training_moves_the_groups_and_nothing_else(name):
    encoder, method = prepared(name)
    own = {id(p) for g in method.parameter_groups().values() for p in g}
    before = {n: p.detach().clone() for n, p in encoder.named_parameters()}
    train(encoder, method)
    for parameter_name, parameter in encoder.named_parameters():
        same = torch.equal(before[parameter_name], parameter)
        assert same or id(parameter) in own, parameter_name
    if own:
        changed = [
            n
            for n, p in encoder.named_parameters()
            if not torch.equal(before[n], p)
        ]
        assert len(changed) == len(own)


def test_checkpoint_restores_the_output_bit_for_bit(name):
    encoder, method = prepared(name)
    train(encoder, method)
    other_encoder, other = prepared(name)
    state = {k: v.clone() for k, v in method.state_dict().items()}
    other.load_state_dict(state)
    assert torch.equal(output(encoder), output(other_encoder))


def test_checkpoint_of_another_shape_is_refused(name):
    encoder, method = prepared(name)
    state = {k: v[..., :-1].clone() for k, v in method.state_dict().items()}
    if not state:
        pytest.skip("nothing is saved")
    with pytest.raises(MismatchError):
        method.load_state_dict(state)


def test_checkpoint_continues_as_if_never_stopped(name):
    encoder, method = prepared(name)
    train(encoder, method, steps=2)
    state = {k: v.clone() for k, v in method.state_dict().items()}
    other_encoder, other = prepared(name)
    other.load_state_dict(state)
    # Fresh optimizers on both sides: only the method's state is compared.
    train(encoder, method, steps=2, resumed=True)
    train(other_encoder, other, steps=2, resumed=True)
    assert torch.equal(output(encoder), output(other_encoder))


def test_saved_subnetwork_makes_the_plain_encoder_equal(name, tmp_path):
    encoder, method = prepared(name)
    train(encoder, method)
    save(method, tmp_path / "subnetwork")
    loaded = Subnetwork.load(tmp_path / "subnetwork")
    plain = make_encoder()
    put_subnetwork(plain, loaded)
    with method.evaluated():
        difference = (output(encoder) - output(plain)).abs().max()
    assert difference <= ROUNDING.get(name, 0.0)
    assert bool(loaded.weights) == METHODS[name].changes_weights
    assert loaded.config["method"] == name


def test_masks_have_the_stated_sparsity_exactly(name):
    encoder, method = prepared(name)
    train(encoder, method)
    for owner, mask in method.masks().items():
        assert mask.dtype == torch.bool
        weight = encoder.get_submodule(owner).weight
        assert mask.shape == weight.shape
        assert int((~mask).sum()) == round(0.3 * mask.numel()), owner
    saved = method.weights()
    for owner, mask in method.masks().items():
        if f"{owner}.weight" in saved:
            assert not saved[f"{owner}.weight"][~mask].any(), owner


def test_what_is_evaluated_leaves_training_as_it_was(name):
    encoder, method = prepared(name)
    train(encoder, method)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    trained = output(encoder)
    with method.evaluated():
        inside = {k: v.clone() for k, v in method.state_dict().items()}
    assert torch.equal(output(encoder), trained)
    for key, value in before.items():
        assert torch.equal(value, inside[key]), "a checkpoint would differ"
        assert torch.equal(value, method.state_dict()[key])


def test_same_seed_same_subnetwork(name):
    results = []
    for _ in range(2):
        encoder, method = prepared(name)
        train(encoder, method)
        results.append(method.masks())
    assert results[0].keys() == results[1].keys()
    assert all(torch.equal(results[0][n], results[1][n]) for n in results[0])


def test_unknown_method_and_setting_name_what_exists():
    with pytest.raises(SettingError, match="did you mean 'mask_tuning'"):
        build_method("mask_tunig")
    with pytest.raises(SettingError, match="did you mean 'sparsity'"):
        build_method("full", sparsiti=0.1)
    with pytest.raises(SettingError, match="methods with it: mask_tuning$"):
        build_method("parp", start_weights="a")
    with pytest.raises(SettingError, match="which is False"):
        build_method("full", train_weights=False)
    assert build_method("full", train_weights=None, frozen=False)


def test_full_tuning_leaves_the_front_end():
    encoder, method = prepared("full")
    before = output_front_end(encoder)
    train(encoder, method)
    assert torch.equal(before, output_front_end(encoder))
    assert not any(n.startswith("feature_extractor") for n in method.weights())


def output_front_end(encoder) -> torch.Tensor:
    wav = torch.randn(1, 400, generator=torch.Generator().manual_seed(1))
    return encoder.feature_extractor(wav).detach()
