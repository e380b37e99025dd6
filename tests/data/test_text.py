"""Transcripts keep what a language writes and lose what it only sets."""

import random
import sys
import unicodedata

import pytest

from s3router.data.languages import base_language
from s3router.data.text import is_spaceless, normalize_text, selection_unit
from s3router.errors import SettingError

CASES = {
    "zh-CN": [
        ("“你好”，世界！《红楼梦》。", "你好世界红楼梦"),
        ("我 爱 北京、上海？", "我爱北京上海"),
        ("第１２回：ＡＰＰ 很 好", "第12回app很好"),
        ("用 iPhone 15 Pro 拍 照", "用iphone 15 pro拍照"),
        ("二〇〇八年", "二〇〇八年"),
    ],
    "zh-TW": [("「臺灣」，你好！", "臺灣你好")],
    "yue": [("你 食咗飯未呀？", "你食咗飯未呀")],
    "ja": [
        ("「こんにちは」、世界。", "こんにちは世界"),
        ("ラーメン・セット と ｶﾞｲﾄﾞ", "ラーメンセットとガイド"),
        ("人々は 行った", "人々は行った"),
    ],
    "es": [
        ("¿Qué tal, Señor Núñez?", "qué tal señor núñez"),
        ("¡Pingüino, adiós!", "pingüino adiós"),
    ],
    "ru": [
        ("Ёлка — это «дерево»!", "ёлка это дерево"),
        ("Кто-то вышел…", "кто то вышел"),
        ("за́мок и замо́к, йод", "замок и замок йод"),
        ("д'Артаньян", "дартаньян"),
    ],
    "de": [
        ("Die Straße, ÄRGER, Öl!", "die straße ärger öl"),
        ("STRAẞE", "straße"),
        ("„Wie geht’s?“, sagte ‚er‘.", "wie geht's sagte er"),
        ("'s ist schön", "'s ist schön"),
    ],
    "fr": [
        ("L’été, aujourd’hui !", "l'été aujourd'hui"),
        ("« Œuf » : rendez-vous à Noël", "œuf rendez vous à noël"),
        ("Ça, 'voilà', c´est l`ami", "ça voilà c'est l'ami"),
    ],
    "nl": [
        ("’s Morgens zo'n foto's.", "'s morgens zo'n foto's"),
        ("'t Is ‘goed’ zo, ’n beetje", "'t is goed zo 'n beetje"),
        ("IJsland, ĳs, coördinatie", "ijsland ijs coördinatie"),
    ],
    "it": [
        ("Un po’ di caffè: perché?", "un po' di caffè perché"),
        ("L'amico dell’uomo", "l'amico dell'uomo"),
        ("'Città' 'l'amore'", "città l'amore"),
    ],
    "sv-SE": [
        ("Åke äter på ön.", "åke äter på ön"),
        ("E-post till Örjan", "e post till örjan"),
    ],
    "ky": [("Өзүңдү көрдүм: «Үч»!", "өзүңдү көрдүм үч")],
    "tt": [
        ("Әйе, җәй – һава ңгү.", "әйе җәй һава ңгү"),
        ("’Сүз’ өчен", "сүз өчен"),
    ],
    "tr": [
        ("IŞIK, İZMİR!", "ışık izmir"),
        ("İstanbul'da Kâğıt çok ğüöş", "istanbulda kâğıt çok ğüöş"),
        ("I\u0307stanbul", "istanbul"),
    ],
    "en": [
        ("It’s 'quoted', don't!", "it's quoted don't"),
        ("Rock 'n' roll, get 'em", "rock 'n roll get 'em"),
        ("Well-known: 42 café—naïve", "well known 42 café naïve"),
        ("ISTANBUL", "istanbul"),
    ],
    "ar": [
        ("السَّلامُ عليكم، كيف حالك؟", "السَّلامُ عليكم كيف حالك"),
        ("مــرحبا ﻻ", "مرحبا لا"),
    ],
    "is": [("Þetta er „gott“, Æðislegt!", "þetta er gott æðislegt")],
    "ml": [
        ("സമ്പത്ത് കാലം, ആപത്ത്.", "സമ്പത്ത് കാലം ആപത്ത്"),
        # A virama, a joiner: the old way to write the letter chillu n.
        ("അവന്\u200d", "അവൻ"),
        ("ശക്\u200cതി", "ശക്\u200cതി"),
    ],
    "hi": [("हिन्दी में, क्या है?।", "हिन्दी में क्या है")],
    "uk": [("П’ять, п'ять ʼїжак ґава", "п'ять п'ять їжак ґава")],
    "ca": [("Col·lecció d’aigua · ŀl", "col·lecció d'aigua l·l")],
    "th": [("ทำ น้ำ ABC def", "ทำน้ำabc def")],
    "hy-AM": [("Ինչպե՞ս ես։", "ինչպես ես")],
    "fa": [("می‌خواهم كتاب", "می\u200cخواهم کتاب")],
    "ro": [("Şi ţară", "și țară")],
    "pt": [("Copo-d’água", "copo d'água")],
    "mt": [("Ta' l-iskola", "ta' l iskola")],
    "el": [("ΟΔΟΣ καί;", "οδος καί")],
}


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [(name, *pair) for name, pairs in CASES.items() for pair in pairs],
)
def test_language(language, text, expected):
    expected = unicodedata.normalize("NFC", expected)
    assert normalize_text(text, language) == expected
    decomposed = unicodedata.normalize("NFD", text)
    assert normalize_text(decomposed, language) == expected


def test_vowel_marks_are_kept_unless_told():
    text = "السَّلامُ"
    assert normalize_text(text, "ar") == unicodedata.normalize("NFC", text)
    assert normalize_text(text, "ar", strip_tashkeel=True) == "السلام"


@pytest.mark.parametrize("text", ["", "  ", "…!?", "''", "😀❤️", "\u0301", "-—"])
@pytest.mark.parametrize("language", ["en", "zh-CN", "mt"])
def test_nothing_spoken_gives_nothing(text, language):
    assert normalize_text(text, language) == ""


def test_no_letter_is_lost():
    # What str.isalpha calls a letter survives, in its lower case, as the
    # composed form of itself, for a language without rules of its own.
    lost = []
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        if not char.isalpha() or unicodedata.normalize("NFKC", char) != char:
            continue
        if char in "İ\u02b9\u02bb\u02bc\ua78b\ua78c\u0640":
            continue  # dotted I, apostrophes and the Arabic stroke: by rule
        lower = unicodedata.normalize("NFC", char.lower())
        if normalize_text(f"a{char}a", "xx") != f"a{lower}a":
            lost.append(hex(code))
    assert lost == []


def test_no_punctuation_survives():
    marks = "".join(
        chr(c)
        for c in range(sys.maxunicode + 1)
        if unicodedata.category(chr(c))[0] in "PSZC"
        and not 0xD800 <= c < 0xE000
    )
    left = set(normalize_text("a" + "a".join(marks) + "a", "xx")) - set("a ")
    # Apostrophe; Tibetan and Burmese signs; tone letters; compatibility forms
    # of letters (Arabic ligatures) are no punctuation any more.
    allowed = set("'\u0f0b\u104c\u104d\u104e\u104f˥˦˧˨˩")
    left = {c for c in left - allowed if unicodedata.category(c)[0] in "PSZC"}
    assert left == set()


@pytest.mark.parametrize("language", sorted(CASES) + ["uz", "bo", "lt", "he"])
def test_twice_is_once(language):
    draw = random.Random(language)
    common = list("''’·-.. \u200d\u200c\u0301Iİabcé你かन")
    for _ in range(300):
        text = "".join(
            draw.choice(common)
            if draw.random() < 0.6
            else chr(draw.randrange(0x20, 0xD7FF))
            for _ in range(12)
        )
        once = normalize_text(text, language)
        assert normalize_text(once, language) == once
        assert once == " ".join(once.split())


def test_selection_unit():
    for language in ("zh-CN", "zh-TW", "zh-HK", "yue", "ja", "th", "lo"):
        assert selection_unit(language) == "char" and is_spaceless(language)
    for language in ("en", "ko", "vi", "sv-SE", "tt", "zza"):
        assert selection_unit(language) == "word"
        assert not is_spaceless(language)
    assert selection_unit("sv-SE", "CER") == "char"
    assert selection_unit("zh-CN", "WER") == "word"
    with pytest.raises(SettingError, match="unknown select_by 'cer'"):
        selection_unit("sv-SE", "cer")


@pytest.mark.parametrize("bad", [False, None, "", "  ", 3])
def test_language_must_be_a_name(bad):
    with pytest.raises(SettingError, match="quote it"):
        base_language(bad)
