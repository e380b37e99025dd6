"""The pre-training recipe through its real command, on noise and tones."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pretrain_runs import (
    CLASSIC,
    arguments,
    error_line,
    make_recordings,
    run_command,
    run_fork,
)
from safetensors.torch import load_file

from s3router.data.crops import UNKNOWN
from s3router.data.ragged import Ragged
from s3router.formats.files import read_json

SCRIPT = ["recipes/pretrain/train.py"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("audio"))


@pytest.fixture(scope="module")
def finished(recordings, tmp_path_factory):
    output = tmp_path_factory.mktemp("pretrain") / "run"
    words = arguments(recordings, output, snapshot_hours="[0.001, 0.005, 9]")
    code, text = run_command(SCRIPT, *words)
    assert code == 0, text
    return output


def test_the_encoder_loads_in_plain_transformers(finished):
    from transformers import AutoFeatureExtractor, HubertModel

    folder = finished / "encoder"
    model = HubertModel.from_pretrained(folder)
    assert model.config.num_hidden_layers == 2
    assert model.config.layerdrop == 0.0
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    assert extractor.do_normalize and extractor.sampling_rate == 16000
    out = model(torch.randn(1, 16000)).last_hidden_state
    assert out.shape == (1, 24, 16)  # every 40 ms
    assert torch.isfinite(out).all()


def test_the_encoder_loads_in_ours(finished):
    from s3router.models.encoder import load_encoder

    encoder = load_encoder(str(finished / "encoder"))
    assert encoder.normalize_input
    assert encoder.hidden_size == 16


def test_curves_and_card_tell_what_was_done(finished):
    for number in (1, 2):
        curve = read_json(finished / "curves" / f"iteration_{number}.json")
        steps = [entry["step"] for entry in curve["entries"]]
        assert steps == [6, 12]
        last = curve["entries"][-1]
        assert 0 < last["valid_masked_loss"] < 5
        assert last["train_hours"] == pytest.approx(6 * 2 / 3600, rel=0.25)
    card = (finished / "encoder" / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card
    assert "8 units of MFCCs" in card
    assert "6 units of layer 1" in card
    assert "xx yy" in card
    assert "Not measured yet." in card
    assert "one vector every 40 ms" in card
    assert "band-pass filters" in card
    assert "Phones of people" not in card  # none were there
    assert "not purely unsupervised" not in card  # no directions were used
    assert "2 degraded copies" in card
    assert str(finished) not in card
    for name in ("0.001h", "0.005h"):
        hours = read_json(finished / "snapshots" / name / "snapshot.json")
        assert f"{name} ({hours['hours_seen']:.1f})" in card
    assert not (finished / "snapshots" / "9h").exists()


def test_what_was_left_out_is_listed(finished):
    record = read_json(finished / "work" / "pool.json")
    left_out = {
        reason: [Path(name).name for name in names]
        for reason, names in record["skipped"].items()
    }
    assert left_out["undecodable"] == ["broken.wav"]
    assert left_out["too short"] == ["short.wav"]
    assert record["sources"][0]["clips"] == 7


def test_the_front_end_is_frozen_after_its_warm_up(finished):
    saved = next((finished / "work" / "warmup").glob("CKPT*"))
    warm = torch.load(saved / "model.ckpt", weights_only=True)
    final = load_file(finished / "encoder" / "model.safetensors")
    name = "conv_layers.3.conv.weight"
    torch.testing.assert_close(
        final[f"feature_extractor.{name}"], warm[f"front_end.{name}"].half()
    )
    assert not torch.equal(
        final["feature_projection.projection.weight"],
        warm["projection.projection.weight"].half(),
    )


def test_the_contrastive_objective_makes_a_wav2vec2_folder(
    recordings, tmp_path
):
    from transformers import AutoModel, Wav2Vec2Model

    from s3router.models.encoder import load_encoder

    output = tmp_path / "run"
    words = arguments(
        recordings,
        output,
        objective="wav2vec2",
        precision="bf16",
        num_workers=1,
        snapshot_hours="[0.001]",
        encoder_config=CLASSIC,
    )
    code, text = run_fork(tmp_path / "log", words)
    assert code == 0, text
    model = AutoModel.from_pretrained(output / "encoder")
    assert isinstance(model, Wav2Vec2Model)
    wave = torch.randn(1, 16000)
    found = model.eval()(wave).last_hidden_state
    ours = load_encoder(str(output / "encoder"))
    assert ours.family == "wav2vec2" and ours.normalize_input
    assert ours.hidden_size == found.shape[-1] == 16
    curve = read_json(output / "curves" / "contrastive.json")["entries"]
    assert [entry["step"] for entry in curve] == [6, 12]
    last = curve[-1]
    for name in ("accuracy", "chance", "loss"):
        assert 0 < last[f"valid_contrastive_{name}"] < 5
    assert 2 <= last["valid_code_perplexity"] <= 16
    assert (output / "snapshots" / "0.001h" / "config.json").is_file()
    card = (output / "encoder" / "README.md").read_text(encoding="utf-8")
    assert "wav2vec 2.0" in card and "Wav2Vec2Model" in card
    assert "band-pass filters" not in card  # its kernels are too short
    assert f"{last['valid_contrastive_accuracy']:.3f}" in card


def test_units_in_directions_of_phones_are_said_in_the_card(
    recordings, tmp_path
):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("babel")
    output = tmp_path / "run"
    words = arguments(
        recordings,
        output,
        iterations="[{units: 8, epochs: 1, of: mfcc}, "
        "{units: 6, epochs: 1, of: auto}]",
        phone_directions=5,
        known_sentences=6,
        epoch_steps=2,
    )
    code, text = run_fork(tmp_path / "log", words)
    assert code == 0, text
    layers = read_json(output / "curves" / "layers_2.json")
    assert len(layers["phone_information"]) == 3
    record = read_json(output / "work" / "units_2.u16.json")
    assert record["phone_directions"] == 5 and record["units"] == 6
    card = (output / "encoder" / "README.md").read_text(encoding="utf-8")
    assert "not purely unsupervised" in card
    assert "5 directions" in card and "6 made-up sentences" in " ".join(
        card.split()
    )
    chosen = layers["chosen"]
    # The best of the blocks; 0, their input, is measured but never taken.
    assert chosen == 1 + int(np.argmax(layers["phone_information"][1:]))
    row = f"| 6 units of layer {chosen} | "
    assert f"{row}{layers['phone_information'][chosen]:.2f} |" in card


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    """A run on synthetic speech alone, whose phones are the first targets.

    Its clips, labelled as a pack is, are measured at the end.
    """
    pytest.importorskip("espeakng_loader", reason="no eSpeak NG")
    pytest.importorskip("babel", reason="no words for eSpeak NG")
    folder = tmp_path_factory.mktemp("seeded")
    packs = labelled_pack(folder / "packs")
    words = arguments(
        packs,
        folder / "run",
        synthetic_hours=0.06,
        synthetic_languages="[sw]",
        held_out_share=0.1,
        iterations="[{of: phones, epochs: 1}, {of: auto, units: 6, epochs: 1}]",
        known_sentences=6,
        phone_labels="[{name: toy, manifests: [toy/dev.csv]}, "
        "{name: away, manifests: [away/dev.csv]}]",
    )
    code, text = run_command(SCRIPT, *words)
    assert code == 0, text
    return folder / "run", text


def test_phones_of_synthetic_speech_are_targets(seeded):
    output, _ = seeded
    record = read_json(output / "work" / "units_1.u16.json")
    assert record["of"] == "phones" and len(record["names"]) >= 2
    assert "a" in record["names"]
    units = Ragged(output / "work" / "units_1.u16", "uint16")
    known = np.concatenate(list(units))
    assert set(known.tolist()) <= {*range(len(record["names"])), UNKNOWN}
    curve = read_json(output / "curves" / "iteration_1.json")["entries"]
    assert 0 < curve[-1]["valid_unmasked_loss"] < 5
    layers = read_json(output / "curves" / "layers_2.json")
    assert len(layers["phone_information"]) == 3
    card = (output / "encoder" / "README.md").read_text(encoding="utf-8")
    assert f"| {len(record['names'])} units of phones of synthetic" in card
    assert f"| 6 units of layer {layers['chosen']} | " in card
    assert "not\npurely unsupervised" in card


def test_phones_of_people_are_measured_at_the_end(seeded):
    output, text = seeded
    found = read_json(output / "curves" / "phones.json")
    assert list(found["packs"]) == ["toy"]
    assert len([x for x in text.splitlines() if "phones of away" in x]) == 1
    toy = found["packs"]["toy"]
    card = (output / "encoder" / "README.md").read_text(encoding="utf-8")
    for name, of in (("encoder", "layer 2"), ("mfcc", "MFCCs")):
        assert 0 < toy[name]["pnmi_by_chance"] < toy[name]["pnmi"] <= 1
        assert f"| toy | {of} | {toy[name]['pnmi']:.3f} | " in card
    assert (output / "work" / "phones_toy.json").is_file()
    copied = read_json(output / "encoder" / "curves.json")
    assert copied["phones"] == found


def test_an_encoder_is_measured_on_its_own(seeded):
    output, _ = seeded
    code, text = run_command(
        ["recipes/pretrain/measure_phones.py"],
        str(output / "encoder"),
        f"--data_folder={output.parent / 'packs'}",
        f"--settings={output / 'hyperparams.yaml'}",
        f"--memory_folder={output / 'work'}",
        f"--output={output / 'again.json'}",
        "--seed=1986",
    )
    assert code == 0, text
    again = read_json(output / "again.json")
    assert again["packs"] == read_json(output / "curves/phones.json")["packs"]
    assert '"pnmi_by_chance"' in text


def labelled_pack(root):
    """Write clips of three tones, told apart by ear, with their names."""
    folder = root / "toy"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows, extra = ["ID,wav,speaker,text"], ["ID,phones"]
    times = np.arange(3200) / 16000
    for number in range(16):
        tones = generator.integers(3, size=6)
        wave = np.concatenate(
            [np.sin(2 * np.pi * (300, 900, 2500)[t] * times) for t in tones]
        )
        wave = 0.3 * wave + 0.02 * generator.standard_normal(wave.size)
        soundfile.write(folder / f"{number}.wav", wave, 16000)
        rows.append(f"c{number},{number}.wav,s{number % 2},x")
        extra.append(f"c{number}," + " ".join("ABC"[tone] for tone in tones))
    (folder / "dev.csv").write_text("\n".join(rows))
    (folder / "extra.csv").write_text("\n".join(extra))
    return root


def test_a_fault_is_one_line(tmp_path):
    words = arguments("nowhere", tmp_path / "run")
    line = error_line(*run_fork(tmp_path / "log", words))
    assert line == "s3router: error: no such data folder: nowhere"


def folder_of(root, clips):
    """Write clips, by name, as 16 kHz wav files."""
    for name, wave in clips.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, 16000)
    return root


NOISE = 0.1 * np.random.default_rng(0).standard_normal(16000)


@pytest.mark.parametrize(
    ("clips", "changes", "parts"),
    [
        ({}, {}, ["no usable audio", "no audio file found"]),
        (
            {"a.wav": NOISE[:700], "b.wav": 0 * NOISE},
            {"min_seconds": 0.001},
            ["no clip of the pool", "silent", "1056 samples", "66 ms"],
        ),
        ({"a.wav": NOISE}, {}, ["two clips or more"]),
        (
            {"a.wav": NOISE, "b.wav": NOISE[::-1]},
            {"iterations": "[{units: 60, epochs: 1, of: mfcc}]"},
            ["48 frames cannot make 60 units", "fewer units"],
        ),
        (
            {"a.wav": NOISE},
            {"data_folder": "null"},
            ["nothing to hear", "synthetic_hours"],
        ),
        (
            {"a.wav": NOISE},
            {"encoder_config": "{num_attention_heads: 7}"},
            ["encoder_config", "num_heads"],
        ),
        (
            {"a.wav": NOISE},
            {"encoder_config": "{conv_dim: [8, 8]}"},
            ["encoder_config", "convolutional layers"],
        ),
        (
            {"a.wav": NOISE},
            {"encoder_config": "{conv_dim: [9, 8, 8, 16]}"},
            ["filter bank", "even number", "not 9", "conv_dim"],
        ),
        (
            {"a.wav": NOISE, "b.wav": NOISE[::-1]},
            {"iterations": "[{of: phones, epochs: 1}]"},
            ["units of phones need synthetic speech", "synthetic_hours"],
        ),
        (
            {"a.wav": NOISE},
            {"phone_labels": "[{name: a}]"},
            ["phone_labels", "name and manifests"],
        ),
        ({"a.wav": NOISE}, {"objective": "hubertt"}, ["did you mean 'hubert'"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, clips, changes, parts):
    (tmp_path / "data").mkdir()
    data = folder_of(tmp_path / "data", clips)
    words = arguments(data, tmp_path / "run", **changes)
    line = error_line(*run_fork(tmp_path / "log", words))
    for part in parts:
        assert part in line
    assert not (tmp_path / "run" / "curves").exists(), "trained before it said"


def test_one_language_and_clips_shorter_than_a_frame(tmp_path):
    data = folder_of(
        tmp_path / "data",
        {
            "xx/a.wav": NOISE,
            "xx/b.wav": NOISE[::-1],
            "xx/c.wav": NOISE[:1060],
            "xx/d.wav": NOISE[:1050],
        },
    )
    words = arguments(
        data,
        tmp_path / "run",
        min_seconds=0.01,
        iterations="[{units: 4, epochs: 1, of: mfcc}]",
    )
    code, text = run_fork(tmp_path / "log", words)
    assert code == 0, text
    assert "1 clips are silent or shorter than one frame" in text
    items = read_json(tmp_path / "run/work/audio.i16.items.json")["items"]
    assert len(items) == 3
