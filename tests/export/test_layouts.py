"""Which languages of a shared bundle have a smaller graph, and which whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from structured import make_structured
from subnetworks import make_subnetwork

from s3router.export.bundle import make_bundle
from s3router.export.verification import check_bundle
from s3router.formats.bundle import Bundle
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer

FC1 = "encoder.layers.0.feed_forward.intermediate_dense"
FC2 = "encoder.layers.0.feed_forward.output_dense"


def without_channels(path: Path, number: int) -> Path:
    """Remove the first feed-forward channels of a subnetwork's first block."""
    made = Subnetwork.load(path)
    made.masks[FC1][:number] = False
    made.masks[FC2][:, :number] = False
    return made.save(path)


def test_one_dead_channel_leaves_the_whole_graph(encoder_folder, tmp_path):
    # Two blocks of 4 x 32 x 32 and 2 x 32 x 64: 12 channels are 4.7 %.
    paths = [
        without_channels(
            make_subnetwork(tmp_path / code, encoder_folder, code, 0.3), number
        )
        for code, number in [("aa", 1), ("bb", 12), ("cc", 13)]
    ]
    make_bundle(paths, tmp_path / "bundle")
    languages = Bundle.load(tmp_path / "bundle").languages
    assert "form" not in languages["aa"].details
    assert "form" not in languages["bb"].details
    assert languages["cc"].details["channels_kept"] == [51, 64]
    check_bundle(tmp_path / "bundle")
    switched = Recognizer(tmp_path / "bundle", "aa", "cpu", mode="switch")
    clip = np.random.default_rng(0).standard_normal(9000).astype(np.float32)
    for code in ("aa", "bb"):
        switched.switch(code)
        plain = Recognizer(tmp_path / "bundle", code, "cpu").logits(clip)
        np.testing.assert_allclose(switched.logits(clip), plain, atol=1e-4)


@pytest.mark.parametrize("zeros", [False, True])
def test_bytes_that_cannot_be_told_apart_leave_the_whole_graph(
    encoder_folder, tmp_path, zeros
):
    """What is kept is equal, and scales need not be, or all is zero."""
    made = Subnetwork.load(
        make_structured(tmp_path / "s", encoder_folder, "aa", [2, 4], [64, 64])
    )
    encoder = load_encoder(str(encoder_folder)).model
    layer = "encoder.layers.0.attention.{}_proj"
    query = encoder.get_submodule(layer.format("q")).weight
    key = encoder.get_submodule(layer.format("k")).weight
    rows = torch.from_numpy(made.masks[layer.format("q")].all(1))
    with torch.no_grad():
        query[rows] = 0 if zeros else key[rows]
        if zeros:
            key[rows] = 0
    shutil.copytree(encoder_folder, tmp_path / "encoder")
    encoder.save_pretrained(tmp_path / "encoder")
    path = make_structured(
        tmp_path / "aa", tmp_path / "encoder", "aa", [2, 4], [64, 64]
    )
    lines: list[str] = []
    make_bundle(
        [path],
        tmp_path / "bundle",
        layout="shared",
        precision="int8",
        log=lines.append,
    )
    details = Bundle.load(tmp_path / "bundle").languages["aa"].details
    assert "form" not in details
    (said,) = (line for line in lines if "whole shape" in line)
    assert said.startswith("aa: ") and "is equal to another weight" in said
    assert details["whole_graph"] in said
    check_bundle(tmp_path / "bundle")
