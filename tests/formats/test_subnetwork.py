"""The subnetwork folder: there and back, damage, and other encoders."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from s3router.errors import (
    FormatError,
    MismatchError,
    NotFoundError,
    SettingError,
    VerificationError,
)
from s3router.formats import subnetwork as module
from s3router.formats.files import read_json, write_json
from s3router.formats.subnetwork import Subnetwork
from s3router.formats.subnetwork_config import checksum

REQUIRED = {"config.json", "mask.safetensors", "head.safetensors", "tokens.txt"}
OPTIONAL = {"tokenizer.model", "weights.safetensors"}


def config(**changes):
    return {
        "method": "mask_tuning",
        "language": "zh",
        "task": "ctc",
        "targets": ["feed_forward"],
        "sparsity": 0.25,
        "scope": "layer",
        "pattern": "unstructured",
        "encoder": "facebook/wav2vec2-base",
        "fingerprint": "sha256:" + "a" * 64,
        "sample_rate": 16000,
        "normalize": True,
        "head": {"type": "ctc", "layer": "last"},
        **changes,
    }


def made(full=False, **changes):
    generator = np.random.default_rng(0)
    masks = {
        "encoder.layers.0.fc1": generator.random((8, 6)) > 0.25,
        "encoder.layers.0.fc2": generator.random((6, 8)) > 0.25,
    }
    head = {
        "weight": generator.normal(size=(4, 6)).astype(np.float32),
        "bias": np.zeros(4, np.float32),
    }
    tokens = ["<blk>", "<unk>", "▁", "中"]
    made = Subnetwork(config(**changes), masks, head, tokens)
    if full:
        made.tokenizer_model = bytes(range(256))
        made.weights = {"encoder.layer_norm.weight": np.ones(6, np.float32)}
    return made


@pytest.mark.parametrize("full", [False, True])
def test_there_and_back(tmp_path, full):
    one = made(full)
    folder = one.save(tmp_path / "zh")
    assert folder == tmp_path / "zh"
    expected = REQUIRED | (OPTIONAL if full else set())
    assert {path.name for path in folder.iterdir()} == expected
    assert [path.name for path in tmp_path.iterdir()] == ["zh"]
    two = Subnetwork.load(folder)
    assert {k: two.config[k] for k in one.config} == one.config
    assert two.config["format_version"] == 1
    assert two.tokens == one.tokens
    assert two.tokenizer_model == one.tokenizer_model
    for part in ("masks", "head", "weights"):
        mine, theirs = getattr(one, part), getattr(two, part)
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            assert np.array_equal(mine[name], theirs[name])
    # And once more, from what was loaded.
    two.save(tmp_path / "again")
    assert Subnetwork.load(tmp_path / "again").difference(two) is None


def test_without_masks(tmp_path):
    one = Subnetwork(config(task="other"))
    two = Subnetwork.load(one.save(tmp_path / "x"))
    assert two.masks == two.head == two.weights == {} and two.tokens == []
    assert two.config["measured_sparsity"] == 0.0 == two.sparsity()


def test_sparsity_is_counted_not_believed(tmp_path):
    one = made(measured_sparsity=0.99)
    removed = {
        name: (int((~mask).sum()), mask.size)
        for name, mask in one.masks.items()
    }
    assert one.sparsity_by_tensor() == removed
    share = sum(r for r, _ in removed.values()) / 96
    assert one.sparsity() == share
    two = Subnetwork.load(one.save(tmp_path / "x"))
    assert two.config["measured_sparsity"] == share


def test_config_says_size_and_hash_of_every_file(tmp_path):
    folder = made(full=True).save(tmp_path / "x")
    files = read_json(folder / "config.json")["files"]
    assert set(files) == (REQUIRED | OPTIONAL) - {"config.json"}
    for name, entry in files.items():
        assert entry["bytes"] == (folder / name).stat().st_size
        assert len(entry["sha256"]) == 64


@pytest.mark.parametrize("name", sorted(REQUIRED | OPTIONAL))
def test_truncation_of_any_file_names_it(tmp_path, name):
    folder = made(full=True).save(tmp_path / "x")
    data = (folder / name).read_bytes()
    for size in sorted({0, 1, len(data) // 3, len(data) // 2, len(data) - 2}):
        (folder / name).write_bytes(data[:size])
        with pytest.raises(FormatError, match=name.replace(".", r"\.")):
            Subnetwork.load(folder)


@pytest.mark.parametrize("name", sorted(REQUIRED | OPTIONAL))
def test_a_changed_byte_in_any_file_names_it(tmp_path, name):
    folder = made(full=True).save(tmp_path / "x")
    data = (folder / name).read_bytes()
    # Not the last byte: of config.json that is the end of the last line.
    for position in np.linspace(0, len(data) - 2, 23).astype(int):
        changed = bytearray(data)
        changed[position] ^= 0x05
        (folder / name).write_bytes(bytes(changed))
        if name == "config.json" and chr(data[position]).isspace():
            continue  # layout, not content
        with pytest.raises(FormatError, match=name.replace(".", r"\.")):
            Subnetwork.load(folder)


@pytest.mark.parametrize("name", sorted(REQUIRED | OPTIONAL))
def test_a_missing_file_is_named(tmp_path, name):
    folder = made(full=True).save(tmp_path / "x")
    (folder / name).unlink()
    with pytest.raises(NotFoundError, match=name.replace(".", r"\.")):
        Subnetwork.load(folder)


def test_files_exchanged_between_subnetworks(tmp_path):
    first = made().save(tmp_path / "a")
    other = made(language="es")
    other.masks["encoder.layers.0.fc1"] ^= True
    second = other.save(tmp_path / "b")
    shutil.copy(second / "mask.safetensors", first / "mask.safetensors")
    with pytest.raises(FormatError, match=r"mask\.safetensors is altered"):
        Subnetwork.load(first)


def test_an_edited_config_is_refused(tmp_path):
    folder = made().save(tmp_path / "x")
    content = read_json(folder / "config.json")
    write_json(folder / "config.json", {**content, "language": "es"})
    with pytest.raises(FormatError, match=r"config\.json .*altered"):
        Subnetwork.load(folder)
    # Layout and order are nobody's business.
    turned = dict(reversed(content.items()))
    (folder / "config.json").write_text(json.dumps(turned))
    assert Subnetwork.load(folder).config["language"] == "zh"


def test_things_that_are_no_subnetwork(tmp_path):
    with pytest.raises(NotFoundError, match="no such subnetwork folder"):
        Subnetwork.load(tmp_path / "none")
    with pytest.raises(NotFoundError, match="not a subnetwork: no config"):
        Subnetwork.load(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "wav2vec2"})
    with pytest.raises(FormatError, match="no format_version"):
        Subnetwork.load(tmp_path)
    write_json(tmp_path / "config.json", {"format_version": 2})
    with pytest.raises(FormatError, match="format_version 2.*reads 1"):
        Subnetwork.load(tmp_path)
    write_json(tmp_path / "config.json", [1])
    with pytest.raises(FormatError, match="no format_version"):
        Subnetwork.load(tmp_path)


@pytest.mark.parametrize(
    "files", [None, [], {}, {"../../etc/passwd": {}}, {"mask.safetensors": {}}]
)
def test_the_list_of_files_is_checked(tmp_path, files):
    folder = made().save(tmp_path / "x")
    content = read_json(folder / "config.json")
    content["files"] = files
    content["checksum"] = checksum(content)
    write_json(folder / "config.json", content)
    with pytest.raises(FormatError, match="list of files"):
        Subnetwork.load(folder)


def test_another_encoder_is_refused_by_both_names():
    one = made()
    one.check_encoder("sha256:" + "a" * 64, "anything")
    with pytest.raises(MismatchError) as caught:
        one.check_encoder("sha256:" + "b" * 64, "my/hubert")
    text = str(caught.value)
    for part in ("facebook/wav2vec2-base", "my/hubert", "a" * 64, "b" * 64):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("key", module.REQUIRED)
def test_a_config_without_a_needed_key(tmp_path, key):
    one = made()
    del one.config[key]
    with pytest.raises(SettingError, match=key):
        one.save(tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_parts_that_cannot_be_stored(tmp_path):
    def broken(**parts):
        one = made()
        for name, value in parts.items():
            setattr(one, name, value)
        return one

    weight = np.ones((4, 6), np.float32)
    for one, error, text in (
        (broken(tokens=["a", "b", "c"]), MismatchError, "4 outputs.* 3 tokens"),
        (broken(tokens=["a", "b", "c", "c"]), SettingError, "twice"),
        (broken(tokens=["a", "b", "c", " "]), SettingError, "white space"),
        (broken(head={"weight": weight * np.nan}), SettingError, "NaN"),
        (broken(head={"weight": weight.astype("f8")}), SettingError, "float64"),
        (broken(weights={"a": weight * np.inf}), SettingError, "infinity"),
        (broken(masks={"a": np.ones(3)}), SettingError, "not bool"),
        (broken(config=config(x=object())), SettingError, "JSON"),
    ):
        with pytest.raises(error, match=text):
            one.save(tmp_path / "x")
        assert not list(tmp_path.iterdir())


def test_a_failed_save_keeps_the_old_one(tmp_path):
    folder = made().save(tmp_path / "x")
    broken = made(language="es")
    broken.tokens = ["a"]
    with pytest.raises(MismatchError):
        broken.save(folder)
    assert Subnetwork.load(folder).config["language"] == "zh"


def test_a_save_replaces_the_old_one_whole(tmp_path):
    folder = made(full=True).save(tmp_path / "x")
    made(language="es").save(folder)
    assert {path.name for path in folder.iterdir()} == REQUIRED
    assert Subnetwork.load(folder).config["language"] == "es"


def test_a_disk_that_lies_is_noticed(tmp_path, monkeypatch):
    def lossy(path, masks):
        module_save(path, {name: mask | True for name, mask in masks.items()})

    module_save = module.save_masks
    folder = made().save(tmp_path / "x")
    monkeypatch.setattr(module, "save_masks", lossy)
    with pytest.raises(VerificationError, match=r"masks\['encoder\.layers\.0"):
        made(language="es").save(folder)
    assert Subnetwork.load(folder).config["language"] == "zh"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_difference_names_the_part():
    one = made(full=True)
    assert one.difference(made(full=True)) is None
    for part, change in (
        ("config", {"a": 1}),
        ("tokens", ["a"]),
        ("tokenizer_model", b""),
        ("masks", {}),
        ("head", {}),
        ("weights", {"encoder.layer_norm.weight": np.zeros(6, np.float32)}),
    ):
        other = made(full=True)
        setattr(other, part, change)
        assert one.difference(other).startswith(part)


def test_no_torch_is_needed(tmp_path):
    folder = made(full=True).save(tmp_path / "x")
    script = """
import sys
for name in ("torch", "speechbrain", "transformers", "onnxruntime"):
    sys.modules[name] = None
import pkgutil, importlib
import s3router.formats
for module in pkgutil.iter_modules(s3router.formats.__path__):
    importlib.import_module(f"s3router.formats.{module.name}")
from s3router.formats.subnetwork import Subnetwork
from s3router.formats.subnetwork_config import checksum
one = Subnetwork.load(sys.argv[1])
one.save(sys.argv[1] + "2")
print(len(one.masks))
"""
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    ran = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "2", ran.stderr
