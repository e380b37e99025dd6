"""The CTC probe: how the states of a layer reach it."""

import encoder_ctc_probe
import torch
from encoder_ctc_probe import CTCProbe


def test_states_are_scaled_by_one_number_and_not_shifted(monkeypatch):
    """Centred, words are heard in the pauses of speakers unseen."""
    generator = torch.Generator().manual_seed(0)
    train, dev = (5 + torch.randn(2, 30, 4, generator=generator)).unbind()
    states = {3: [[train.half()], [dev.half()]]}
    monkeypatch.setattr(
        encoder_ctc_probe, "frame_states", lambda *_: states.items()
    )
    splits = {"train": [], "dev": []}
    probe = CTCProbe(None, "char", splits, splits, None)
    ((layer, scaled),) = probe._states([3], ("train", "dev"))
    assert layer == 3
    scale = train.square().mean().sqrt()
    for name, raw in (("train", train), ("dev", dev)):
        torch.testing.assert_close(
            scaled[name][0].float(), raw / scale, atol=2e-3, rtol=2e-3
        )
