"""Extending YAMLs, profiles, overrides, and what is said when they fail."""

import pytest

from s3router.brains.hparams import flatten_hparams, load_hparams
from s3router.errors import NotFoundError, SettingError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "seed: 1\n"
        "encoder: big\n"
        "data_folder: !PLACEHOLDER\n"
        "rate: 0.5\n"
        "profiles:\n    small: small.yaml\n"
        "settings_for: null\n"
        "double: !apply:operator.mul [!ref <rate>, 2]\n"
        "block:\n    a: 1\n    b: !ref <seed>\n"
    )
    (tmp_path / "small.yaml").write_text("rate: 3.0\n")
    (tmp_path / "child.yaml").write_text("extends: base.yaml\nseed: 7\n")
    (tmp_path / "grandchild.yaml").write_text(
        "extends: child.yaml\nblock:\n    a: 5\n"
    )
    return tmp_path


def test_child_changes_the_parent_and_references_follow(folder):
    hparams = load_hparams(folder / "grandchild.yaml", "data_folder: /x")
    assert hparams["seed"] == 7
    assert hparams["block"] == {"a": 5, "b": 7}
    assert hparams["double"] == 1.0


def test_profile_stands_between_files_and_command_line(folder):
    path = folder / "child.yaml"
    assert load_hparams(path, "data_folder: x")["rate"] == 0.5
    small = load_hparams(path, "data_folder: x\nencoder: small")
    assert (small["rate"], small["double"]) == (3.0, 6.0)
    won = load_hparams(path, "data_folder: x\nencoder: small\nrate: 9.0")
    assert (won["rate"], won["double"]) == (9.0, 18.0)


def test_a_child_adds_to_a_profile(folder):
    path = folder / "method.yaml"
    path.write_text(
        "extends: child.yaml\nrate: 2.0\n"
        "profiles:\n    small: {rate: 4.0, seed: 8}\n"
    )
    last = folder / "last.yaml"
    last.write_text("extends: method.yaml\n")
    for yaml in (path, last):
        big = load_hparams(yaml, "data_folder: x")
        assert (big["rate"], big["seed"]) == (2.0, 7)
        small = load_hparams(yaml, "data_folder: x\nencoder: small")
        assert (small["rate"], small["seed"], small["double"]) == (4, 8, 8)
        won = load_hparams(yaml, "data_folder: x\nencoder: small\nseed: 3")
        assert (won["rate"], won["seed"]) == (4, 3)
    path.write_text("extends: child.yaml\nprofiles:\n    smal: {rate: 4.0}\n")
    with pytest.raises(SettingError, match="did you mean 'small'"):
        load_hparams(path, "data_folder: x")


def test_profile_can_be_asked_for_by_name(folder):
    path = folder / "child.yaml"
    asked = load_hparams(path, "data_folder: x\nsettings_for: small")
    assert (asked["encoder"], asked["rate"]) == ("big", 3.0)
    with pytest.raises(SettingError, match="did you mean 'small'"):
        load_hparams(path, "data_folder: x\nsettings_for: smal")


def test_overrides_can_be_nested(folder):
    hparams = load_hparams(
        folder / "child.yaml", "data_folder: x\nblock: {a: 8}"
    )
    assert hparams["block"] == {"a": 8, "b": 7}


def test_a_block_may_take_the_place_of_a_value(folder):
    path = folder / "child.yaml"
    text = "data_folder: x\ndouble: 0\nrate: {a: 0.1, b: 0.3}"
    assert load_hparams(path, text)["rate"] == {"a": 0.1, "b": 0.3}


def test_flat_text_no_longer_extends(folder):
    text = flatten_hparams(folder / "child.yaml", "data_folder: x")
    assert "extends" not in text and "profiles" not in text
    assert "!ref <seed>" in text


def test_unknown_setting_names_the_near_one(folder):
    with pytest.raises(SettingError, match="did you mean 'rate'"):
        load_hparams(folder / "child.yaml", "data_folder: x\nrat: 1")
    (folder / "bad.yaml").write_text("extends: base.yaml\nseeed: 2\n")
    with pytest.raises(SettingError, match="bad.yaml.*'seeed'.*'seed'"):
        load_hparams(folder / "bad.yaml", "data_folder: x")


def test_missing_value_names_the_option(folder):
    with pytest.raises(SettingError, match="--data_folder="):
        load_hparams(folder / "child.yaml")


def test_missing_file_and_broken_yaml(folder):
    with pytest.raises(NotFoundError, match="no such YAML"):
        load_hparams(folder / "nothing.yaml")
    (folder / "broken.yaml").write_text("a: [1,\n")
    with pytest.raises(SettingError, match="no valid YAML"):
        load_hparams(folder / "broken.yaml")
