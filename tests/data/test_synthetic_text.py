"""Sentences: distinct, in the language's script, of a small vocabulary."""

import re
from itertools import islice

import pytest

from s3router.data.synthetic_text import TABLES, sentences
from s3router.errors import SettingError

SCRIPTS = {"zh": r"[一-鿿，。零]+", "ru": r"[а-яё ,.]+"}
LATIN = r"[a-zà-öø-ÿāēīōūığşœ ,.]+"


def words_of(language, texts):
    text = "".join(texts) if language == "zh" else " ".join(texts).lower()
    found = list(text) if language == "zh" else re.findall(r"[^\s,.]+", text)
    return set(found)


@pytest.mark.parametrize("language", sorted(TABLES))
def test_sentences_are_distinct_and_written_in_words(language):
    texts = list(islice(sentences(language, 5), 500))
    assert len(set(texts)) == 500
    pattern = re.compile(SCRIPTS.get(language, LATIN))
    for text in texts:
        assert pattern.fullmatch(text.lower()), text
        assert "{" not in text


@pytest.mark.parametrize("language", sorted(TABLES))
def test_sixty_sentences_have_all_words_of_the_next_ones(language):
    stream = sentences(language, 1986)
    train = words_of(language, islice(stream, 60))
    test = words_of(language, islice(stream, 60))
    assert test <= train
    assert len(train) < 70


def test_a_name_is_never_paired_with_itself():
    table = TABLES["en"]
    for text in islice(sentences("en", 2), 400):
        names = [w for w in re.findall(r"\w+", text) if w in table.names]
        capital = [n for n in names if n in table.names.split()]
        assert len(capital) == len(set(capital)), text


def test_seeds_and_regions():
    first = list(islice(sentences("zh-CN", 1), 20))
    assert first == list(islice(sentences("zh", 1), 20))
    assert first != list(islice(sentences("zh", 2), 20))


def test_tables_are_complete():
    for language, table in TABLES.items():
        assert len(table.digits.split()) == 10, language
        assert len(table.ordinals.split()) in (0, 9), language
        assert len(table.days.split("/")) == 7, language
        assert len(table.months.split("/")) == 12, language
        assert len(set(table.names.split())) >= 6, language


def test_an_unknown_language_is_said():
    with pytest.raises(SettingError, match="unknown language"):
        sentences("xx", 0)
