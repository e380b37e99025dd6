"""The bundle's manifest: strict about versions, hashes and paths."""

import json
from pathlib import Path

import pytest

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats import bundle as module
from s3router.formats.bundle import Bundle, BundleLanguage
from s3router.formats.files import sha256_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a bundle of two languages with made-up files."""
    languages = {}
    for code in ("zh-CN", "es"):
        (tmp_path / "b" / code).mkdir(parents=True)
        files = [f"{code}/model.onnx", f"{code}/tokens.txt"]
        for name in files:
            (tmp_path / "b" / name).write_text(f"content of {name}")
        languages[code] = BundleLanguage(*files, files, sparsity=0.25)
    bundle = Bundle(languages, {}, encoder={"name": "e"}, min_samples=123)
    bundle.parity = {"es": {"max_error": 1.5e-6}}
    bundle.save(tmp_path / "b")
    return tmp_path / "b"


def rewrite(folder: Path, change, seal: bool = True) -> None:
    """Change a manifest, with a checksum that is right unless not sealed."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    if seal:
        content["checksum"] = module._checksum(content)
    path.write_text(json.dumps(content))


def test_round_trip(folder: Path):
    loaded = Bundle.load(folder)
    assert list(loaded.languages) == ["zh-CN", "es"]
    assert loaded.languages["es"].sparsity == 0.25
    assert loaded.min_samples == 123
    assert loaded.parity == {"es": {"max_error": 1.5e-6}}
    assert loaded.folder == folder
    loaded.verify()
    first = (folder / "manifest.json").read_bytes()
    loaded.save(folder)
    assert (folder / "manifest.json").read_bytes() == first


def test_every_file_is_listed_with_its_hash(folder: Path):
    stated = json.loads((folder / "manifest.json").read_text())["files"]
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.*")
        if path.name != "manifest.json"
    }
    assert set(stated) == present
    for name, entry in stated.items():
        assert entry["sha256"] == sha256_file(folder / name)
        assert entry["bytes"] == (folder / name).stat().st_size


def test_files_measured_before_are_not_hashed_again(folder: Path, monkeypatch):
    bundle = Bundle.load(folder)
    hashed = []
    monkeypatch.setattr(
        module,
        "sha256_file",
        lambda path: hashed.append(path.name) or sha256_file(path),
    )
    bundle.save(folder, measured=bundle.files)
    assert hashed == []


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove"])
def test_a_damaged_file_is_named(folder: Path, damage: str):
    path = folder / "es" / "model.onnx"
    if damage == "truncate":
        path.write_text("content")
        words, kind = "truncated or altered: it has 7 bytes", FormatError
    elif damage == "alter":
        path.write_text("CONTENT of es/model.onnx")
        words, kind = "altered", FormatError
    else:
        path.unlink()
        words, kind = "lacks a file", NotFoundError
    bundle = Bundle.load(folder)
    bundle.verify(["zh-CN/model.onnx"])
    with pytest.raises(kind, match=words) as caught:
        bundle.verify()
    assert str(path) in str(caught.value)


def test_no_bundle(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no such bundle folder"):
        Bundle.load(tmp_path / "nothing")
    with pytest.raises(NotFoundError, match="not a bundle.*s3router export"):
        Bundle.load(tmp_path)


def test_truncated_manifest(folder: Path):
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match="manifest.json is not valid JSON"):
        Bundle.load(folder)


def test_altered_manifest(folder: Path):
    def other_blank(content):
        content["languages"]["es"]["blank"] = 1

    rewrite(folder, other_blank, seal=False)
    with pytest.raises(FormatError, match="altered.*checksum"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format_version", 3, "format version 3.*install the s3router"),
        ("layout", "woven", "layout 'woven' is not known"),
        ("precision", "int3", "precision 'int3' is not known"),
        ("languages", {}, "lists no languages"),
        ("languages", [1], "not a manifest"),
        ("languages", {"es": {"model": 1}}, "not a manifest"),
    ],
)
def test_content_of_another_kind(folder: Path, key, value, words: str):
    rewrite(folder, lambda content: content.update({key: value}))
    with pytest.raises(FormatError, match=words):
        Bundle.load(folder)


def test_a_list_is_no_manifest(folder: Path):
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(FormatError, match="not a manifest"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..\\x", ""])
def test_paths_stay_inside(folder: Path, name: str):
    def lead_out(content):
        content["files"][name] = {"bytes": 1, "sha256": "0"}

    rewrite(folder, lead_out)
    with pytest.raises(FormatError, match="outside the bundle"):
        Bundle.load(folder)


def test_a_language_may_only_open_listed_files(folder: Path):
    def secret(content):
        content["languages"]["es"]["tokens"] = "../secret.txt"

    rewrite(folder, secret)
    with pytest.raises(FormatError, match="which the list of files lacks"):
        Bundle.load(folder)


def test_language_codes_cannot_be_paths(folder: Path):
    def rename(content):
        content["languages"]["../es"] = content["languages"].pop("es")

    rewrite(folder, rename)
    with pytest.raises(FormatError, match="no language code"):
        Bundle.load(folder)


def test_nothing_is_saved_with_a_missing_file(tmp_path: Path):
    entry = BundleLanguage("es/m", "es/t", ["es/m", "es/t"])
    with pytest.raises(NotFoundError, match="es/m"):
        Bundle({"es": entry}, {}).save(tmp_path)
    assert not (tmp_path / "manifest.json").exists()


def test_loose_language_names(folder: Path):
    bundle = Bundle.load(folder)
    assert bundle.language("zh") == "zh-CN"
    assert bundle.language("zh_cn") == "zh-CN"
    assert bundle.language("ES") == "es"
    with pytest.raises(SettingError, match="did you mean 'es'.*zh-CN, es"):
        bundle.language("ess")
    with pytest.raises(SettingError, match="say which"):
        bundle.language()
