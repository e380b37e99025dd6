"""Layers measured on known phones: a toy whose answer is known."""

import numpy as np
import pytest
import torch
from pretrain_toys import CHANNELS, settings, small_encoder

from s3router.brains.pretrain_layers import (
    SpokenLayers,
    layer_information,
    spoken_phones,
)
from s3router.brains.pretrain_units import LayerFrames
from s3router.data.ragged import Ragged, write_ragged
from s3router.models.frame_grid import FrameGrid
from s3router.models.pretrain_head import UnitPredictor

PHONES = np.array(["a", "i", "s", "m", ""])


class ToyFrames:
    """Three layers: noise, talkers over phones, and phones alone."""

    def __init__(self, clips):
        self.features = clips

    def __len__(self):
        return len(self.features)

    def layers(self, clip):
        which, talker = clip[:, 0].astype(int), clip[:, 1]
        generator = np.random.default_rng(int(1000 * abs(talker[0])))
        noise = generator.standard_normal((3, len(clip), 6)).astype("f4")
        phone = np.eye(6, dtype="f4")[which]
        loud = np.eye(6, dtype="f4")[5] * 40 * talker[:, None]
        talkers = phone + 0.1 * noise[1] + loud
        return [noise[0], talkers, 2 * phone + noise[2]]


def clips(seed, count=60, frames=40):
    generator = np.random.default_rng(seed)
    return [
        np.stack(
            [
                generator.integers(len(PHONES), size=frames).astype("f4"),
                np.full(frames, generator.standard_normal(), dtype="f4"),
            ],
            axis=1,
        )
        for _ in range(count)
    ]


class SameClip(torch.nn.Module):
    """A front end that gives back the features it is handed as samples."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, wave):
        return wave.unflatten(1, (-1, 2)).transpose(1, 2)


@pytest.fixture(scope="module")
def known():
    spoken = [
        (clip.ravel(), PHONES[clip[:, 0].astype(int)]) for clip in clips(1)
    ]
    return SpokenLayers(ToyFrames(clips(2)), SameClip(), spoken)


def test_pauses_are_left_out_and_halves_are_whole_sentences(known):
    assert "" not in known.phones
    assert len(known.phones) == len(known.fitted) == len(known.layers[0])
    assert 0.4 < known.fitted.mean() < 0.6
    # A change of half is a change of sentence: far fewer than frames.
    assert np.abs(np.diff(known.fitted.astype(int))).sum() == 59


def test_directions_are_fitted_on_one_half_or_on_all(known):
    assert known.directions(1, 0) is None
    half = known.directions(1, 3, everything=False)
    whole = known.directions(1, 3)
    np.testing.assert_allclose(
        half.mean, known.layers[1][known.fitted].mean(0), rtol=1e-4
    )
    np.testing.assert_allclose(whole.mean, known.layers[1].mean(0), rtol=1e-4)


def test_the_measure_finds_the_layer_with_the_phones(known):
    frames = ToyFrames(clips(2))
    plain = layer_information(frames, known, 0, seed=0)
    guided = layer_information(frames, known, 3, seed=0)
    assert len(plain) == len(guided) == 3
    # Talkers hide the phones of layer 1 from k-means, not from directions.
    assert np.argmax(plain) == 2
    assert np.argmax(guided) == 1
    assert guided[1] > 0.9 > plain[1] + 0.2
    assert guided[0] < 0.35


def test_layers_are_those_of_the_network(tmp_path):
    generator = np.random.default_rng(0)
    stored = [generator.standard_normal((n, CHANNELS)) for n in (9, 30, 14)]
    write_ragged(tmp_path / "f", stored, "float16")
    features = Ragged(tmp_path / "f", "float16")
    model = UnitPredictor(small_encoder(), 4)
    frames = LayerFrames(model, features, 2)
    for index in range(3):
        clip = torch.from_numpy(np.asarray(features[index], "f4"))[None]
        with torch.no_grad():
            expected = model.layers(clip, torch.tensor([clip.shape[1]]), 2)
        found = frames.layers(features[index])
        assert len(found) == 3
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs[0], atol=1e-5)
        np.testing.assert_array_equal(frames(index), found[-1])
    project = known_projection(frames)
    guided = LayerFrames(model, features, 2, directions=project)
    np.testing.assert_allclose(
        guided(1), (frames(1) - project.mean) @ project.matrix, atol=1e-5
    )


def test_clips_in_batches_are_as_clips_alone(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 60, 40)
    stored = [generator.standard_normal((n, CHANNELS)) for n in lengths]
    write_ragged(tmp_path / "f", stored, "float16")
    features = Ragged(tmp_path / "f", "float16")
    model = UnitPredictor(small_encoder(), 4)
    frames = LayerFrames(model, features, 2)
    alone = [frames(index) for index in range(40)]
    sizes = []
    inside = model.layers

    def counted(features, lengths, layer):
        sizes.append(features.shape[0] * int(lengths.max()))
        return inside(features, lengths, layer)

    monkeypatch.setattr(model, "layers", counted)
    monkeypatch.setattr("s3router.brains.pretrain_units.BATCH_FRAMES", 200)
    order = generator.permutation(40).tolist()
    together = frames.many(order)
    assert 100 < max(sizes) <= 200 and len(sizes) < 15
    for index, found in zip(order, together, strict=True):
        np.testing.assert_allclose(found, alone[index], atol=1e-5)


def known_projection(frames):
    states = np.concatenate([frames(index) for index in range(3)])
    labels = PHONES[np.arange(len(states)) % 3]
    from s3router.models.phone_directions import fit_phone_directions

    return fit_phone_directions(states, labels, 2)


def test_spoken_phones_lie_on_the_grid(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("babel")
    grid = FrameGrid.of(settings(tmp_path)["encoder_config"])
    spoken = spoken_phones(3, seed=0, grid=grid)
    encoder = small_encoder()
    for samples, labels in spoken:
        assert samples.dtype == np.float32
        frames = encoder.feature_extractor(torch.from_numpy(samples)[None])
        assert len(labels) == frames.shape[-1]
        assert len(set(labels.tolist())) > 5
    again = spoken_phones(3, seed=0, grid=grid)
    for first, second in zip(spoken, again, strict=True):
        np.testing.assert_array_equal(first[0], second[0])
