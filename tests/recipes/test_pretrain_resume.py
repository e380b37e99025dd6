"""Killed anywhere, run again: the same encoder as of an uninterrupted run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from pretrain_runs import (
    arguments,
    die,
    error_line,
    make_recordings,
    run_fork,
)
from safetensors.torch import load_file

from s3router.brains import (
    checkpoints,
    pretrain_audio,
    pretrain_decode,
    pretrain_snapshots,
    pretrain_stages,
    pretrain_units,
)
from s3router.data import ragged
from s3router.formats.files import read_json


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("audio"))


def words_of(recordings, output, **changes):
    return arguments(
        recordings, output, epoch_steps=3, snapshot_hours="[0.0001]", **changes
    )


@pytest.fixture(scope="module")
def whole(recordings, tmp_path_factory):
    """The folder of an uninterrupted run."""
    root = tmp_path_factory.mktemp("whole")
    code, text = run_fork(root / "log", words_of(recordings, root / "run"))
    assert code == 0, text
    return root / "run"


def die_while_writing(name):
    """Die when two clips of a cache are on the disk."""

    def dying(path, arrays, dtype):
        def some():
            for number, array in enumerate(arrays):
                if number == 2:
                    die()
                yield array

        write(path, some() if Path(path).name == name else arrays, dtype)

    write = ragged.write_ragged
    for module in (pretrain_audio, pretrain_decode, pretrain_units):
        module.write_ragged = dying


def die_before_index(name):
    """Die between a cache's values and the index that vouches for them."""
    atomic_file = ragged.atomic_file

    def dying(path):
        if Path(path).name == f"{name}.index.npy":
            die()
        return atomic_file(path)

    ragged.atomic_file = dying


def die_before_json(name):
    """Die before what is noted about a file of units or of samples."""
    for module in (pretrain_audio, pretrain_decode, pretrain_units):
        write_json = module.write_json

        def dying(path, value, write_json=write_json):
            if Path(path).name == name:
                die()
            write_json(path, value)

        module.write_json = dying


def die_naming_checkpoint(count):
    """Die when a checkpoint's files are there, but not its name."""
    replace = checkpoints.os.replace
    left = [count]

    class Dying:
        def __getattr__(self, name):
            return getattr(real, name)

        @staticmethod
        def replace(*paths):
            left[0] -= 1
            if left[0] == 0:
                die()
            replace(*paths)

    real = checkpoints.os
    checkpoints.os = Dying()


def die_after_checkpoint(count):
    """Die behind a checkpoint, before old ones are deleted."""
    save = checkpoints.WholeCheckpointer.save_checkpoint
    left = [count]

    def dying(self, *args, **kwargs):
        save(self, *args, **kwargs)
        left[0] -= 1
        if left[0] == 0:
            die()

    checkpoints.WholeCheckpointer.save_checkpoint = dying


def die_exporting(module, name):
    """Die when an encoder's configuration is written, but not its weights."""

    def dying(encoder, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / "config.json").write_text("{")
        die()

    setattr(module, name, dying)


POINTS = {
    "decoding": (die_while_writing, "audio.i16"),
    "behind the samples": (die_before_json, "audio.i16.items.json"),
    "caching": (die_while_writing, "features_1.f16"),
    "before an index": (die_before_index, "features_2.f16"),
    "labelling": (die_while_writing, "units_2.u16"),
    "behind the units": (die_before_json, "units_1.u16.json"),
    # The warm-up saves one, each iteration one an epoch.
    "naming the warm-up's checkpoint": (die_naming_checkpoint, 1),
    "naming the third checkpoint": (die_naming_checkpoint, 3),
    "behind the second checkpoint": (die_after_checkpoint, 2),
    "behind the last checkpoint": (die_after_checkpoint, 5),
    "exporting": (die_exporting, pretrain_stages, "save_encoder"),
    "taking a snapshot": (die_exporting, pretrain_snapshots, "save_encoder"),
}
# Those that differ most; the others take turns in the slow tests.
QUICK = ("caching", "behind the units", "naming the third checkpoint")


def check_the_same(first, second):
    for name in ("features_1.f16", "features_2.f16", "units_2.u16"):
        assert (first / "work" / name).read_bytes() == (
            second / "work" / name
        ).read_bytes(), name
    for name in ("encoder", "snapshots/0.0001h"):
        weights = [
            load_file(run / name / "model.safetensors")
            for run in (first, second)
        ]
        assert weights[0].keys() == weights[1].keys()
        for key, tensor in weights[0].items():
            assert tensor.equal(weights[1][key]), key
    for number in (1, 2):
        curves = [
            read_json(run / "curves" / f"iteration_{number}.json")["entries"]
            for run in (first, second)
        ]
        for entries in zip(*curves, strict=True):
            ours, theirs = (
                {k: v for k, v in e.items() if not k.endswith("_seconds")}
                for e in entries
            )
            assert ours == theirs


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(p, marks=() if p in QUICK else pytest.mark.slow)
        for p in POINTS
    ],
)
def test_killed_and_run_again(recordings, whole, tmp_path, point):
    how, *where = POINTS[point]
    output = tmp_path / "run"
    words = words_of(recordings, output)
    code, text = run_fork(tmp_path / "log", words, lambda: how(*where))
    assert code == -9, text
    assert not (output / "encoder" / "README.md").exists()
    code, text = run_fork(tmp_path / "log", words)
    assert code == 0, text
    check_the_same(whole, output)
    assert not [
        p for p in output.rglob(".*") if p.name[:5] in (".tmp-", ".old-")
    ]


@pytest.fixture
def copy(whole, tmp_path):
    """The folder of a finished run, to be changed."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_finished_run_changes_nothing(recordings, whole, copy, tmp_path):
    code, text = run_fork(tmp_path / "log", words_of(recordings, copy))
    assert code == 0, text
    check_the_same(whole, copy)


def test_caches_from_before_they_had_records_are_taken(
    recordings, whole, copy, tmp_path
):
    for record in (copy / "work").glob("features_*.json"):
        record.unlink()
    for path in (copy / "work").glob("units_*.json"):
        plain = {
            key: value
            for key, value in read_json(path).items()
            if key in ("unigram_entropy", "unigram_accuracy", "used")
        }
        path.write_text(str(plain).replace("'", '"'))
    for number in (1, 2):
        shutil.rmtree(copy / "work" / f"iteration_{number}")
    shutil.rmtree(copy / "encoder")
    code, text = run_fork(tmp_path / "log", words_of(recordings, copy))
    assert code == 0, text
    check_the_same(whole, copy)


TWENTY = (
    "{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, "
    "num_attention_heads: 2, num_conv_pos_embeddings: 8, "
    "num_conv_pos_embedding_groups: 4, "
    "conv_dim: [8, 8, 8, 8, 8, 8, 16], conv_stride: [5, 2, 2, 2, 2, 2, 2], "
    "conv_kernel: [10, 3, 3, 3, 3, 2, 2]}"
)


@pytest.mark.parametrize(
    ("removed", "changes", "parts"),
    [
        # Another number of units, in a folder that has units already.
        (
            [],
            {
                "iterations": "[{units: 9, epochs: 2, of: mfcc}, "
                "{units: 6, epochs: 2, of: 1}]"
            },
            ["units_1.u16", "units 8, now it is 9", "delete"],
        ),
        (
            ["work/units_1.u16", "work/units_2.u16"],
            {
                "iterations": "[{units: 9, epochs: 2, of: mfcc}, "
                "{units: 6, epochs: 2, of: 1}]"
            },
            ["iteration_1", "read_out", "(8,)", "(9,)", "delete"],
        ),
        # Another shape: the warm-up's checkpoint is the first to differ.
        (
            [],
            {"encoder_config": TWENTY},
            ["work/warmup", "encoder_config", "delete"],
        ),
        (
            ["work/warmup", "work/features_0.f16"],
            {"encoder_config": TWENTY},
            ["features_1.f16", "window 1056, now it is 400", "delete"],
        ),
        # The same shape, trained to other weights.
        (
            ["work/warmup"],
            {"warmup_lr": 0.1},
            ["features_0.f16", "front_end sha256:", "delete"],
        ),
        (
            [],
            {"seed": 7},
            ["features_1.f16", "seed 1987, now it is 8", "delete"],
        ),
    ],
)
def test_what_another_encoder_left_is_one_line(
    recordings, copy, tmp_path, removed, changes, parts
):
    for name in removed:
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = (copy / "encoder" / "model.safetensors").read_bytes()
    words = words_of(recordings, copy, **changes)
    line = error_line(*run_fork(tmp_path / "log", words))
    for part in [*parts, "--output_folder"]:
        assert part in line
    assert (copy / "encoder" / "model.safetensors").read_bytes() == before


def test_audio_decoded_for_shorter_frames_is_one_line(
    recordings, copy, tmp_path
):
    work = copy / "work"
    clips = [np.ones(n, np.int16) for n in (16000, 500)]
    ragged.write_ragged(work / "audio.i16", clips, "int16")
    words = words_of(recordings, copy)
    line = error_line(*run_fork(tmp_path / "log", words))
    assert "audio.i16 was decoded for an encoder with shorter frames" in line
