"""tokens.txt there and back, and what it cannot hold."""

import pytest

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.tokens_file import load_tokens, save_tokens


def test_there_and_back(tmp_path):
    tokens = ["<blk>", "<unk>", "▁", "a", "'", "中", "é", "#", "12", "▁the"]
    path = tmp_path / "tokens.txt"
    save_tokens(path, tokens)
    assert load_tokens(path) == tokens
    lines = path.read_bytes().decode().split("\n")
    assert lines[0] == "<blk> 0" and lines[8] == "12 8" and lines[-1] == ""


def test_none_at_all(tmp_path):
    save_tokens(tmp_path / "t", [])
    assert load_tokens(tmp_path / "t") == []


@pytest.mark.parametrize(
    "token", ["", " ", "a b", "\n", "\t", "\u3000", "\u2028", "\x85", "\xa0"]
)
def test_tokens_that_would_break_a_line(tmp_path, token):
    with pytest.raises(SettingError, match="token 1 is"):
        save_tokens(tmp_path / "t", ["a", token])


def test_a_token_twice(tmp_path):
    with pytest.raises(SettingError, match="token 2, 'a', is there twice"):
        save_tokens(tmp_path / "t", ["a", "b", "a"])


@pytest.mark.parametrize(
    "data, text",
    [
        (b"a 0\nb 2\n", "line 2"),
        (b"a 0\nb\n", "line 2"),
        (b"a 0\n\nb 1\n", "line 2"),
        (b"0\n", "line 1"),
        (b"a 0\nb 1", "truncated"),
        (b"a 0\nb", "truncated"),
        (b"a 0\n\xff 1\n", "not UTF-8"),
        (b"a 0\r\nb 1\r\n", "line 1"),
    ],
)
def test_broken_files_name_the_line(tmp_path, data, text):
    path = tmp_path / "tokens.txt"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=rf"tokens\.txt.*{text}"):
        load_tokens(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        load_tokens(tmp_path / "tokens.txt")
