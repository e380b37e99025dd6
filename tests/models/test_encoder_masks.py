"""Encoder and masks together: every score of every family learns."""

import torch
from model_factory import random_model, save_folder

from s3router.masks.router import Router
from s3router.models.encoder import load_encoder


def test_every_score_gets_a_gradient(family, tmp_path):
    encoder = load_encoder(str(save_folder(random_model(family), tmp_path)))
    names = set(encoder.maskable_weights())
    fingerprint = encoder.fingerprint()
    size = encoder.num_parameters
    router = Router(encoder.model, targets="all", sparsity=0.5)
    assert set(router.scores()) == names
    encoder.train()
    hidden, _ = encoder(torch.randn(2, 8000), torch.tensor([1.0, 0.5]))
    hidden.square().sum().backward()
    for name, scores in router.scores().items():
        assert scores.grad is not None, name
        assert scores.grad.any(), name
    weights = dict(encoder.model.named_parameters())
    learnt = {name for name, p in weights.items() if p.grad is not None}
    assert all(name.endswith(".scores") for name in learnt)
    assert encoder.fingerprint() == fingerprint
    assert encoder.num_parameters == size


def test_masks_change_the_output_and_go_away(family, tmp_path, clips):
    encoder = load_encoder(str(save_folder(random_model(family), tmp_path)))
    encoder.freeze()
    before = encoder(clips[2][None])[0]
    router = Router(encoder.model, targets="attention", sparsity=0.5)
    assert not torch.allclose(encoder(clips[2][None])[0], before, atol=1e-4)
    router.remove()
    assert torch.equal(encoder(clips[2][None])[0], before)
