"""Graphs that take padded batches: every family, against torch."""

import numpy as np
import onnxruntime
import pytest
import torch
from subnetworks import KINDS, make_encoder, make_subnetwork
from transformers import AutoModel

from s3router.export.fold import fold
from s3router.export.graph import export_graph
from s3router.export.padded import PaddedModel
from s3router.export.probes import probe_signal
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder

LENGTHS = [16000, 9001, 400, 30011, 720]


@pytest.mark.slow
@pytest.mark.parametrize("family", KINDS)
def test_each_clip_gives_what_transformers_gives_it_alone(family, tmp_path):
    encoder = make_encoder(tmp_path / "e", family)
    path = make_subnetwork(tmp_path / "s", encoder, sparsity=0.0)
    subnetwork = Subnetwork.load(path)
    model = PaddedModel(fold(load_encoder(str(encoder)), subnetwork), blank=3)
    export_graph(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    clips = [probe_signal(n, n) for n in LENGTHS]
    batch = np.full((len(clips), max(LENGTHS)), 7.0, np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    feed = {"input_values": batch, "input_lengths": np.array(LENGTHS)}
    plain = AutoModel.from_pretrained(encoder).eval()
    head = subnetwork.head
    for got, clip in zip(session.run(None, feed)[0], clips, strict=True):
        audio = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        with torch.no_grad():
            hidden = plain(torch.from_numpy(audio[None])).last_hidden_state[0]
        logits = hidden.numpy() @ head["weight"].T + head["bias"]
        expected = torch.from_numpy(logits).log_softmax(-1).numpy()
        frames = len(expected)
        # On logits of tens.
        np.testing.assert_allclose(got[:frames], expected, atol=2e-4)
        assert (got[frames:].argmax(-1) == 3).all()
        assert np.isfinite(got).all()


def test_lengths_matter(tmp_path):
    """The same samples read otherwise when they are said to be padding."""
    encoder = make_encoder(tmp_path / "e", "wav2vec2-base")
    path = make_subnetwork(tmp_path / "s", encoder)
    folded = fold(load_encoder(str(encoder)), Subnetwork.load(path))
    model = PaddedModel(folded, blank=0)
    clips = torch.from_numpy(np.stack([probe_signal(8000, 1)] * 2))
    with torch.no_grad():
        rows = model(clips, torch.tensor([8000, 4000]))
        (alone,) = folded.padded([clips[1, :4000]])
    frames = len(alone)
    torch.testing.assert_close(
        rows[1, :frames], alone.log_softmax(-1), atol=1e-4, rtol=0
    )
    assert (rows[0, :frames] - rows[1, :frames]).abs().max() > 0.01
