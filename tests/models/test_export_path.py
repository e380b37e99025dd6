"""forward_unpadded can be captured as one graph of free batch and length."""

import pytest
import torch
from model_factory import random_model, save_folder
from torch.export import Dim

from s3router.models.encoder import SSLEncoder, load_encoder


class Unpadded(torch.nn.Module):
    """The encoder by its export path."""

    def __init__(self, encoder: SSLEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, wavs: torch.Tensor) -> torch.Tensor:
        """Return the hidden states."""
        return self.encoder.forward_unpadded(wavs)


@pytest.mark.slow
def test_one_graph_for_all_sizes(family, tmp_path):
    folder = save_folder(random_model(family), tmp_path)
    encoder = load_encoder(str(folder)).freeze()
    sizes = {"wavs": {0: Dim("batch", min=1, max=64), 1: Dim.DYNAMIC}}
    example = torch.randn(2, 8000)
    graph = torch.export.export(
        Unpadded(encoder), (example,), dynamic_shapes=sizes
    ).module()
    # From two frames on: for one, torch.export asks for a graph of its own
    # (the ONNX graph made from this one has no such limit).
    for batch, samples in ((1, 720), (1, 16001), (3, 5000)):
        wavs = torch.randn(batch, samples)
        torch.testing.assert_close(
            graph(wavs), encoder.forward_unpadded(wavs), atol=1e-5, rtol=1e-4
        )
