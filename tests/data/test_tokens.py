"""Tokens: blank, unknown and space keep their places; loading is strict."""

import csv
import logging

import pytest

from s3router.data.text import normalize_text
from s3router.data.tokens import (
    CharTokens,
    SentencePieceTokens,
    load_tokens,
    read_tokens,
    report_unknown,
)
from s3router.errors import (
    DataError,
    FormatError,
    NotFoundError,
    S3RouterError,
    SettingError,
)

TEXTS = [
    "the cat sat on the mat and sang",
    "a dog ate the hat of the man",
    "that singing cat is fat and sitting",
    "on sunday the sun shines on the sand",
    "hens and oxen stand in the shade",
    "she sees the ships and the sea and the shore",
] * 3
CHINESE = ["数字北京数字北京", "北京背景上海商行", "复旦饭店关闭数字"] * 5


def make(kind, texts=TEXTS):
    if kind == "char":
        return CharTokens.from_texts(texts)
    chinese = texts is CHINESE
    return SentencePieceTokens.from_texts(
        texts, 20 if chinese else 24, model_type=kind, spaceless=chinese
    )


def device_text(symbols, ids):
    """Decode as an ONNX runtime does that knows nothing of this package."""
    return "".join(symbols[i] for i in ids).replace("▁", " ").strip()


@pytest.mark.parametrize("kind", ["char", "unigram", "bpe"])
@pytest.mark.parametrize("texts", [TEXTS, CHINESE])
def test_round_trip(kind, texts):
    tokens = make(kind, texts)
    assert tokens.symbols[:2] == ["<blk>", "<unk>"]
    assert (tokens.blank_index, tokens.unk_index) == (0, 1)
    for text in texts:
        ids = tokens.encode(text)
        assert 0 not in ids and 1 not in ids
        assert tokens.decode(ids) == text
        assert device_text(tokens.symbols, ids) == text


@pytest.mark.parametrize("kind", ["char", "unigram", "bpe"])
def test_unknown_characters(kind, caplog):
    tokens = make(kind)
    text = "the żółw sat 字"
    ids = tokens.encode(text)
    assert 1 in ids and 0 not in ids
    assert tokens.decode(ids) == "the sat"
    # Unknown never shows, so that it can never be counted as right.
    assert "unk" not in tokens.decode(ids) and "ż" not in tokens.decode(ids)
    assert tokens.decode([1, 0, 1]) == ""
    counts = tokens.unknown([text, "żż", "the cat"])
    assert counts == {"ż": 3, "ó": 1, "ł": 1, "w": 1, "字": 1}
    with caplog.at_level(logging.WARNING):
        assert report_unknown(tokens, [text, "żż"], "dev") == 7
        assert report_unknown(tokens, TEXTS, "train") == 0
    [record] = caplog.records
    message = record.getMessage()
    assert "dev: 7 characters (5 different)" in message and "'ż'" in message
    assert "\n" not in message


def test_a_space_that_training_never_saw_is_unknown():
    tokens = CharTokens.from_texts(CHINESE)
    assert tokens.encode("北 京")[1] == 1
    assert tokens.unknown(["北 京"]) == {"▁": 1}


def test_characters_are_single_code_points_in_order():
    tokens = CharTokens.from_texts(["b a", "സമ്പ"])
    assert tokens.symbols[2:] == sorted(set("b▁aസമ്പ"))
    assert CharTokens.from_texts(["സമ്പ", "a b"]).symbols == tokens.symbols
    rare = CharTokens.from_texts(["aab"], min_count=2)
    assert rare.symbols[2:] == ["a"] and rare.encode("ab") == [2, 1]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_pieces_are_deterministic_and_of_the_given_number(kind):
    first, second = make(kind), make(kind)
    assert first.tokenizer_model == second.tokenizer_model
    assert len(first) == 24
    # Pieces, not characters: text gets shorter.
    assert len(first.encode(TEXTS[0])) < len(TEXTS[0])


def test_pieces_do_not_normalise_again():
    # SentencePiece's own rules would fold these to others.
    text = "ﬁ ① ｆ é"
    tokens = SentencePieceTokens.from_texts([text] * 3, 8)
    assert tokens.decode(tokens.encode(text)) == text


def test_pieces_of_spaceless_text_have_no_word_start():
    with_start = SentencePieceTokens.from_texts(CHINESE, 20)
    without = SentencePieceTokens.from_texts(CHINESE, 20, spaceless=True)
    assert any("▁" in s for s in with_start.symbols)
    assert not any("▁" in s for s in without.symbols)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (5000, r"at most \d+"),
        (5, "must exceed the number of characters"),
        (-1, "vocabulary_size -1"),
        (None, "whole number"),
        (True, "whole number"),
    ],
)
def test_impossible_vocabulary_sizes(size, text):
    with pytest.raises(SettingError, match=text) as caught:
        SentencePieceTokens.from_texts(TEXTS, size)
    assert "\n" not in str(caught.value)


def test_the_largest_size_that_the_error_names_does_work():
    with pytest.raises(SettingError) as caught:
        SentencePieceTokens.from_texts(TEXTS, 5000)
    most = int(str(caught.value).split()[-1])
    assert len(SentencePieceTokens.from_texts(TEXTS, most)) == most


def test_no_text_and_unknown_kind():
    with pytest.raises(DataError):
        CharTokens.from_texts(["", " "])
    with pytest.raises(DataError):
        SentencePieceTokens.from_texts(["", " "], 10)
    with pytest.raises(SettingError, match="unigram"):
        SentencePieceTokens.from_texts(TEXTS, 24, model_type="unigramm")


@pytest.mark.parametrize("kind", ["char", "unigram"])
def test_save_and_load(tmp_path, kind):
    tokens = make(kind)
    tokens.save(tmp_path / "new")
    lines = (tmp_path / "new/tokens.txt").read_text("utf-8").split("\n")
    assert lines[:2] == ["<blk> 0", "<unk> 1"] and lines[-1] == ""
    assert len(lines) == len(tokens) + 1
    again = read_tokens(tmp_path / "new")
    assert type(again) is type(tokens) and again.symbols == tokens.symbols
    assert again.encode(TEXTS[0]) == tokens.encode(TEXTS[0])
    direct = load_tokens(tokens.symbols, tokens.tokenizer_model)
    assert direct.encode(TEXTS[1]) == tokens.encode(TEXTS[1])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<blk> 0\n<unk> 1\n",
        "<unk> 0\n<blk> 1\na 2\n",
        "<blk> 0\n<unk> 1\na 3\n",
        "<blk> 0\n<unk> 1\na\n",
        "<blk> 0\n<unk> 1\na 2\na 3\n",
        "<blk> 0\n<unk> 1\n\nb 3\n",
        "<blk> 0\n<unk> 1\n  2\n",
        "<blk> 0\n<unk> 1\nab 2\n",
        "<blk> 0\n<unk> 1\na 2",
    ],
)
def test_tampered_tables_are_refused(tmp_path, content):
    path = tmp_path / "tokens.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FormatError):
        read_tokens(tmp_path)


def test_strange_files_are_refused(tmp_path):
    with pytest.raises(NotFoundError, match=r"tokens\.txt"):
        read_tokens(tmp_path)
    (tmp_path / "tokens.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="UTF-8"):
        read_tokens(tmp_path)
    model = make("unigram").tokenizer_model
    for bad in (b"", b"junk", model[: len(model) // 2]):
        with pytest.raises(S3RouterError):
            SentencePieceTokens(bad)


def test_table_and_model_must_belong_together():
    tokens = make("unigram")
    symbols = list(tokens.symbols)
    symbols[5], symbols[6] = symbols[6], symbols[5]
    with pytest.raises(FormatError, match="token 5"):
        load_tokens(symbols, tokens.tokenizer_model)
    with pytest.raises(FormatError, match="23 and 24"):
        load_tokens(tokens.symbols[:-1], tokens.tokenizer_model)


@pytest.mark.parametrize("pack", ["zh_dsp20", "is_samromur"])
def test_real_transcripts(shared_data, pack):
    texts = {}
    for split in ("train", "test"):
        path = shared_data / pack / f"{split}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        texts[split] = [normalize_text(r["text"], r["language"]) for r in rows]
    tokens = CharTokens.from_texts(texts["train"])
    for text in texts["train"] + texts["test"]:
        assert tokens.decode(tokens.encode(text)) == text
    assert not tokens.unknown(texts["test"])
