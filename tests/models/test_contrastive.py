"""wav2vec 2.0's quantiser and loss, against a re-statement in plain numpy."""

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2Config

from s3router.errors import SettingError
from s3router.models.contrastive import (
    ContrastivePredictor,
    ProductQuantiser,
    contrastive_loss,
    gumbel_noise,
)
from s3router.models.encoder_folder import build_encoder

BOOKS, CODES, WIDTH, CHANNELS = 2, 5, 6, 7


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def numpy_quantised(quantiser, features, noise, temperature):
    """Return vectors, codes and shares, one frame and codebook at a time."""
    weight, bias, entries = (
        tensor.detach().double().numpy()
        for tensor in (
            quantiser.choice.weight,
            quantiser.choice.bias,
            quantiser.entries,
        )
    )
    vectors, codes, shares = [], [], np.zeros((BOOKS, CODES))
    for number, frame in enumerate(features.double().numpy()):
        normal = (frame - frame.mean()) / np.sqrt(frame.var() + 1e-5)
        logits = (weight @ normal + bias).reshape(BOOKS, CODES)
        disturbed = logits if noise is None else logits + noise[number]
        chosen = softmax(disturbed / temperature).argmax(-1)
        codes.append(chosen)
        vectors.append(
            np.concatenate([entries[b, chosen[b]] for b in range(BOOKS)])
        )
        shares += softmax(logits) / len(features)
    return np.array(vectors), np.array(codes), shares


def numpy_loss(contexts, candidates, codes, shares, distractors, temperature):
    """Equations 3 and 4 of the paper, frame by frame."""

    def similarity(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    losses, right, counted, chance = [], 0, 0, 0.0
    for own, others in enumerate(distractors):
        kept = [n for n in others if n >= 0 and (codes[n] != codes[own]).any()]
        scores = np.array(
            [similarity(contexts[own], candidates[n]) for n in [own, *kept]]
        )
        scores = scores / temperature
        losses.append(-np.log(softmax(scores)[0]))
        if kept:
            counted += 1
            right += scores[0] > scores[1:].max()
            chance += 1 / (1 + len(kept))
    perplexity = sum(
        np.exp(-sum(p * np.log(p) for p in book if p > 0)) for book in shares
    )
    total = BOOKS * CODES
    diversity = (total - perplexity) / total
    return np.mean(losses), diversity, right, counted, chance, perplexity


@pytest.fixture
def frames():
    torch.manual_seed(0)
    return 3 * torch.randn(9, CHANNELS) + 1


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("temperature", [2.0, 0.5])
def test_quantised_frames_are_those_of_numpy(frames, noisy, temperature):
    quantiser = ProductQuantiser(CHANNELS, BOOKS, CODES, WIDTH)
    noise = gumbel_noise((9, BOOKS, CODES), 3, "cpu") if noisy else None
    found = quantiser(frames, temperature, noise)
    vectors, codes, shares = numpy_quantised(
        quantiser,
        frames,
        noise.double().numpy() if noisy else None,
        temperature,
    )
    np.testing.assert_array_equal(found.codes.numpy(), codes)
    np.testing.assert_allclose(found.vectors.detach(), vectors, atol=1e-6)
    np.testing.assert_allclose(found.shares.detach(), shares, atol=1e-6)


def test_the_gradient_is_that_of_the_soft_choice(frames):
    """Straight through: the value is hard, the slope is the softmax's."""
    quantiser = ProductQuantiser(CHANNELS, BOOKS, CODES, WIDTH).double()
    # Soft enough that every entry has a slope.
    torch.nn.init.normal_(quantiser.choice.weight, std=0.2)
    frames = frames.double()
    noise = gumbel_noise((9, BOOKS, CODES), 3, "cpu").double()
    target = torch.randn(9, WIDTH, dtype=torch.float64)
    (quantiser(frames, 0.7, noise).vectors * target).sum().backward()

    weight = quantiser.choice.weight.detach().clone().requires_grad_(True)
    normal = torch.nn.functional.layer_norm(frames, (CHANNELS,))
    logits = (normal @ weight.T).unflatten(-1, (BOOKS, CODES))
    soft = ((logits + noise) / 0.7).softmax(-1)
    entries = quantiser.entries.detach()
    vectors = torch.einsum("fbc,bcw->fbw", soft, entries).flatten(1)
    (vectors * target).sum().backward()
    torch.testing.assert_close(quantiser.choice.weight.grad, weight.grad)
    # Entries that were chosen get the gradient, the others none.
    codes = quantiser(frames, 0.7, noise).codes
    for book in range(BOOKS):
        used = set(codes[:, book].tolist())
        moved = quantiser.entries.grad[book].abs().sum(-1) > 0
        assert {n for n in range(CODES) if moved[n]} == used


@pytest.fixture
def predictor():
    torch.manual_seed(1)
    config = Wav2Vec2Config(
        conv_dim=(CHANNELS,),
        conv_stride=(320,),
        conv_kernel=(400,),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
    )
    encoder = build_encoder(config, "wav2vec2")
    return ContrastivePredictor(encoder, BOOKS, CODES, WIDTH)


def batch(frames):
    """Two clips of 6 frames; hidden are 3 and 4 of them, and a lone one."""
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[0, :3] = hidden[1, 1:5] = True
    hidden[2, 5] = True
    chosen = hidden.flatten().nonzero()[:, 0]
    distractors = torch.tensor(
        [[1, 2, 1], [0, 2, 2], [0, 1, 0]]
        + [[4, 5, 6], [3, 5, 6], [3, 4, 6], [3, 5, 4]]
        + [[-1, -1, -1]]
    )
    features = torch.randn(3, 6, CHANNELS)
    lengths = torch.tensor([6, 6, 6])
    return features, lengths, hidden, chosen, frames[:8], distractors


def test_the_loss_is_that_of_numpy(predictor, frames):
    features, lengths, hidden, chosen, targets, distractors = batch(frames)
    # Two targets of one clip are alike: one is no distractor of the other.
    targets = targets.clone()
    targets[4] = targets[3]
    noise = gumbel_noise((8, BOOKS, CODES), 4, "cpu")
    noise[4] = noise[3]
    contexts, candidates, quantised = predictor(
        features, lengths, hidden, chosen, targets, 0.9, noise
    )
    found = contrastive_loss(
        contexts, candidates, quantised, distractors, temperature=0.1
    )

    states = predictor.states(features, lengths, hidden).detach()
    rows = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 3), (1, 4), (2, 5)]
    states = np.array([states[row].double().numpy() for row in rows])
    project = [
        (layer.weight.detach().double().numpy(), layer.bias.detach().numpy())
        for layer in (predictor.project_context, predictor.project_target)
    ]
    vectors, codes, shares = numpy_quantised(
        predictor.quantiser, targets, noise.double().numpy(), 0.9
    )
    assert (codes[3] == codes[4]).all()
    expected = numpy_loss(
        states @ project[0][0].T + project[0][1],
        vectors @ project[1][0].T + project[1][1],
        codes,
        shares,
        distractors.numpy(),
        0.1,
    )
    ours = [part.item() for part in found]
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-6)
    assert found.counted == 7  # the lone frame has no distractor


def test_every_weight_gets_a_gradient(predictor, frames):
    features, lengths, hidden, chosen, targets, distractors = batch(frames)
    noise = gumbel_noise((8, BOOKS, CODES), 4, "cpu")
    parts = contrastive_loss(
        *predictor(features, lengths, hidden, chosen, targets, 2.0, noise),
        distractors,
        0.1,
    )
    (parts.contrast + 0.1 * parts.diversity).backward()
    lacking = [
        name
        for name, weight in predictor.named_parameters()
        if weight.grad is None
    ]
    assert not lacking  # distributed training would wait for them


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_under_autocast_the_choice_and_the_loss_are_in_full(
    predictor, frames, kind
):
    features, lengths, hidden, chosen, targets, distractors = batch(frames)
    with torch.autocast("cpu", kind, enabled=kind == torch.bfloat16):
        contexts, candidates, quantised = predictor(
            features, lengths, hidden, chosen, targets, 1.0
        )
        parts = contrastive_loss(
            contexts, candidates, quantised, distractors, 0.1
        )
    assert parts.contrast.dtype == torch.float32
    assert quantised.shares.dtype == torch.float32
    expected = predictor.quantiser(targets).codes
    assert quantised.codes.equal(expected)


def test_alike_entries_have_no_diversity_loss_and_one_entry_has_most():
    contexts = torch.randn(4, WIDTH)
    none = torch.full((4, 1), -1)
    for shares, expected in (
        (torch.full((BOOKS, CODES), 1 / CODES), 0.0),
        (torch.eye(CODES)[:BOOKS], 1 - 1 / CODES),
    ):
        quantised = ProductQuantiser(CHANNELS, BOOKS, CODES, WIDTH)(
            contexts.new_zeros(4, CHANNELS)
        )
        parts = contrastive_loss(
            contexts, contexts, quantised._replace(shares=shares), none, 0.1
        )
        assert parts.diversity.item() == pytest.approx(expected, abs=1e-6)
        assert parts.contrast.item() == 0.0
        assert parts.counted == parts.right == 0


def test_noise_is_gumbel_and_depends_on_its_seed_alone():
    first = gumbel_noise((100, 2, 500), 7, "cpu")
    torch.manual_seed(123)
    assert first.equal(gumbel_noise((100, 2, 500), 7, "cpu"))
    assert not first.equal(gumbel_noise((100, 2, 500), 8, "cpu"))
    assert first.mean().item() == pytest.approx(np.euler_gamma, abs=0.02)
    assert first.var().item() == pytest.approx(np.pi**2 / 6, abs=0.05)


def test_codebooks_must_share_the_width():
    with pytest.raises(SettingError, match="3 codebooks .* width of 8"):
        ProductQuantiser(4, 3, 2, 8)
