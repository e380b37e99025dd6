"""Under autocast the states that blocks add up to stay float32."""

import torch
from model_factory import pad, random_model, save_folder

from s3router.models.encoder import load_encoder


def hidden_states(encoder, clips, enabled=True):
    """Return the states of clips of several lengths, in one batch."""
    wavs = pad(clips)
    relative = torch.tensor([len(c) / wavs.shape[1] for c in clips])
    lengths = (relative * wavs.shape[1]).round().long()
    with torch.no_grad():
        features, frames = encoder.front_end(wavs, lengths)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return encoder.hidden_states(features, frames)


def test_blocks_add_to_float32(family, clips, tmp_path):
    encoder = load_encoder(str(save_folder(random_model(family), tmp_path)))
    states = hidden_states(encoder.freeze(), clips)
    inner = [state.dtype for state in states[:-1]]
    assert inner == [torch.float32] * len(inner) and len(inner) >= 3


def test_autocast_computes_the_same_but_for_rounding(family, clips, tmp_path):
    """Positional convolutions of 8 channels a group are wrong in bfloat16."""
    encoder = load_encoder(str(save_folder(random_model(family), tmp_path)))
    rounded = hidden_states(encoder.freeze(), clips)
    exact = hidden_states(encoder, clips, enabled=False)
    for one, other in zip(rounded, exact, strict=True):
        error = (one.float() - other).norm() / other.norm()
        assert error < 0.03
