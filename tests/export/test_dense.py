"""The dense export beside which bundles are measured."""

import numpy as np
import onnx
import pytest
import torch
from subnetworks import make_encoder
from transformers import AutoModel

from s3router.errors import NotFoundError
from s3router.export.dense import DENSE, make_dense_bundle
from s3router.export.probes import probe_signal
from s3router.formats.bundle import Bundle
from s3router.runtime.recognizer import Recognizer


@pytest.mark.parametrize("family", ["wav2vec2-base", "wav2vec2-large"])
def test_it_is_the_whole_encoder_under_some_head(family, tmp_path):
    encoder = make_encoder(tmp_path / "encoder", family)
    made = make_dense_bundle(str(encoder), tmp_path / "dense", 23)
    loaded = Bundle.load(tmp_path / "dense")
    loaded.verify()
    assert made.files == loaded.files and loaded.hop == 320
    recognizer = Recognizer(tmp_path / "dense", DENSE, "cpu")
    clip = probe_signal(9000, 3)
    got = recognizer.logits(clip)
    graph = onnx.load(loaded.path(loaded.languages[DENSE].model))
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in graph.graph.initializer
    }
    samples = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    model = AutoModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        hidden = model(torch.from_numpy(samples[None])).last_hidden_state[0]
    weight = stored["head.weight"]
    weight = weight if len(weight) == 32 else weight.T
    expected = hidden.numpy() @ weight + stored.get("head.bias", 0)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert got.shape[1] == 23


def test_no_encoder_no_export(tmp_path):
    with pytest.raises(NotFoundError):
        make_dense_bundle(str(tmp_path / "none"), tmp_path / "dense", 23)
