"""Sentences as they are released, made into transcripts to learn and to score.

Keeps all that a language writes as letters: Chinese characters, accents,
vowel signs, apostrophes where they are letters, digits. Takes away letter
case, punctuation, symbols and typographic variants. Spells out nothing: no
number becomes words. Tokens are another file's business.
"""

import re
import unicodedata

from s3router.data.languages import (
    APOSTROPHE_AT_EDGES,
    APOSTROPHE_IS_PUNCTUATION,
    DOTTED_I,
    EDGE_FORMS,
    MIDDLE_DOT,
    STRESS_MARKED,
    VARIANTS,
    base_language,
    is_spaceless,
    selection_unit,
)

__all__ = ["is_spaceless", "normalize_text", "selection_unit"]

# Typists' and typesetters' apostrophes, Hebrew geresh among them.
_APOSTROPHES = re.compile("[’‘‛ʼʻʹ′´`＇ꞌ׳]")

# Presentation forms and full or half width: other shapes of the same letters.
# Not NFKC as a whole, which splits Thai sara am and rewrites ½ and ².
_COMPATIBILITY = re.compile(
    "[\u0132\u0133\u013f\u0140\u2e80-\u2fdf\ufb00-\ufdff\ufe70-\ufefc\uff00-\uffef]"
)

# Signs written above letters inside a word (Armenian), Hebrew gershayim, and
# the Arabic elongation stroke: dropped without a gap.
_JOINED_SIGNS = re.compile("[\u055a-\u055f\u05f4\u0640]")

# Category P or S, yet part of the writing: Tibetan syllable dot, Burmese word
# signs, tone letters of phonetic transcripts.
_KEPT_SIGNS = frozenset("\u0f0b\u104c\u104d\u104e\u104f˥˦˧˨˩")

_TASHKEEL = re.compile("[\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed]")

# Malayalam chillu letters before Unicode 5.1: consonant, virama, joiner.
_CHILLUS = {
    f"{base}\u0d4d\u200d": chillu
    for base, chillu in zip("ണനരലളക", "ൺൻർൽൾൿ", strict=True)
}

_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")

_JOINERS = "\u200c\u200d"

# Scripts that put no space between words.
_UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029"
    "\u3031-\u3035\u3038-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_GAP = re.compile(f"(?<=[{_UNSPACED}]) | (?=[{_UNSPACED}])")


def normalize_text(
    text: str, language: str, strip_tashkeel: bool = False
) -> str:
    """Return a sentence as a transcript.

    In this order: canonical composition (NFC), letters of full width and
    presentation forms to plain ones; lower case by the language's rule;
    apostrophes to ' where they are letters or elisions, else away; hyphens,
    punctuation (category P) and symbols (S) to spaces; spaces to single ones,
    and none next to a character of a script that has none, in the languages
    written so.

    Arguments
    ---------
    text : str
        The sentence as released.
    language : str
        Common Voice name, as "zh-CN"; unlisted languages get general rules.
    strip_tashkeel : bool
        Take away Arabic vowel marks.

    Returns
    -------
    str
        The transcript; empty if nothing was spoken text. Normalising it
        again changes nothing.

    Raises
    ------
    SettingError
        If `language` is no name.

    Example
    -------
    >>> normalize_text("你好，世界！ ＡＢＣ", "zh-CN")
    '你好世界abc'
    >>> normalize_text("L’été, « aujourd'hui » !", "fr")
    "l'été aujourd'hui"
    >>> normalize_text("IŞIK İyi", "tr")
    'ışık iyi'
    """
    base = base_language(language)
    text = _compose(text).translate(VARIANTS.get(base, {}))
    text = _lower(text, base)
    if strip_tashkeel:
        text = _TASHKEEL.sub("", text)
    text = _JOINED_SIGNS.sub("", _APOSTROPHES.sub("'", text))
    if base in STRESS_MARKED:
        text = _drop_stress(text)
    text = _keep_letters(text, base)
    text = " ".join(_apostrophes(word, base) for word in text.split())
    text = " ".join(text.split())
    if is_spaceless(language):
        text = _UNSPACED_GAP.sub("", text)
    return unicodedata.normalize("NFC", text)


def _compose(text: str) -> str:
    text = _COMPATIBILITY.sub(
        lambda match: unicodedata.normalize("NFKC", match[0]), text
    )
    text = unicodedata.normalize("NFC", text)
    for sequence, chillu in _CHILLUS.items():
        text = text.replace(sequence, chillu)
    return text


def _lower(text: str, base: str) -> str:
    if base in DOTTED_I:
        text = text.replace("I", "ı")
    text = text.replace("İ", "i").lower()
    return text


def _drop_stress(text: str) -> str:
    # й and ї are composed, so that a loose acute or grave is a stress mark.
    return text.replace("\u0301", "").replace("\u0300", "")


def _keep_letters(text: str, base: str) -> str:
    """Replace all that is no letter, mark, digit or apostrophe."""
    kept: list[str] = []
    for i, char in enumerate(text):
        category = unicodedata.category(char)
        before = kept[-1] if kept else " "
        if char == "'" or char in _KEPT_SIGNS or category[0] in "LN":
            kept.append(char)
        elif category[0] == "M":
            # Marks without a letter, keycaps and glyph selectors go.
            loose = before in " '" or category == "Me"
            if not loose and not _SELECTORS.match(char):
                kept.append(char)
        elif category in ("Cf", "Cc", "Cn", "Co", "Cs"):
            if char in _JOINERS and _joins(kept, text[i + 1 : i + 2]):
                kept.append(char)
            elif char.isspace():
                kept.append(" ")
        elif char == "·" and base in MIDDLE_DOT and _within(text, i):
            kept.append(char)
        else:
            kept.append(" ")
    return "".join(kept)


def _joins(kept: list[str], after: str) -> bool:
    # Joiners shape letters of the Indic scripts and part Persian words; those
    # letters have no case (Lo).
    categories = (unicodedata.category(char) for char in reversed(kept))
    before = next((c for c in categories if c[0] != "M"), "Zs")
    following = unicodedata.category(after) if after else "Zs"
    return before == "Lo" and following in ("Lo", "Mn", "Mc")


def _within(text: str, i: int) -> bool:
    return 0 < i < len(text) - 1 and (
        text[i - 1].isalpha() and text[i + 1].isalpha()
    )


def _apostrophes(word: str, base: str) -> str:
    """Return a word with those apostrophes only that its language writes."""
    if "'" not in word:
        return word
    if base in APOSTROPHE_IS_PUNCTUATION or is_spaceless(base):
        return word.replace("'", "")
    if base in APOSTROPHE_AT_EDGES and word.strip("'"):
        return re.sub("''+", "'", word)
    parts = [part for part in re.split("''+", word) if part.strip("'")]
    return " ".join(_trim(part, base) for part in parts)


def _trim(word: str, base: str) -> str:
    # 'l'amico' in quotation marks: try the word with either mark first.
    forms = EDGE_FORMS.get(base, frozenset())
    inner = word.strip("'")
    for form in (word, word.lstrip("'"), word.rstrip("'")):
        if form in forms:
            return form
    return inner
