"""What the written form of a language asks of its transcripts.

Tables only, keyed by the language part of a Common Voice name ("zh-CN" is
"zh"). A language that stands in no table gets the general rules: words between
spaces, apostrophes kept inside words. Nothing here touches a text.
"""

from s3router.errors import SettingError, one_of

# Written without spaces between words, so words cannot be counted.
SPACELESS = frozenset(
    "bo cjy dz gan hak hsn ja khb km lo lzh my nan shn th wuu yue zh".split()
)

# Dotted and dotless i are two letters.
DOTTED_I = frozenset("az crh gag tr".split())

# The apostrophe is no letter and no elision: it sets off endings of names
# (tr: Ankara'da), or occurs in foreign names only.
APOSTROPHE_IS_PUNCTUATION = frozenset(
    "ar az bg ckb es fa gu hi is ka kk kn ky ml mn mr ne pa ru si sr sv ta te "
    "tr tt ug ur".split()
)

# A consonant of its own right (glottal stop) or an elision at both ends of
# words: kept wherever it stands.
APOSTROPHE_AT_EDGES = frozenset("gn haw he mt qu sm to ty uz yi".split())

# Short forms whose apostrophe stands at an end, where quotation marks stand
# too; only these keep it.
EDGE_FORMS: dict[str, frozenset[str]] = {
    "nl": frozenset("'s 't 'n 'k 'm 'r 'ns 'tis".split()),
    "af": frozenset("'n".split()),
    "de": frozenset("'s 'n 'ne 'nen 'nem 'ner".split()),
    "en": frozenset(
        "'em 'cause 'til 'tis 'twas 'bout 'round 'n o' ol' th'".split()
    ),
    "it": frozenset(
        "po' mo' di' fa' va' sta' da' be' to' ca' pie' de' ne' co' 'ndrangheta "
        "l' un' d' c' s' m' t' v' n' dell' all' dall' nell' sull' quell' "
        "quest' com' dov' anch'".split()
    ),
    "fr": frozenset("l' d' j' qu' n' s' c' m' t' jusqu' lorsqu'".split()),
    "ca": frozenset("l' d' m' t' s' n' 'l 'm 'n 's 't".split()),
}

# Stress marks on vowels belong to dictionaries and primers there.
STRESS_MARKED = frozenset("be bg ru uk".split())

# A dot in the middle of l·l is part of the letter.
MIDDLE_DOT = frozenset("ca oc".split())

# Two code points are in use for one letter; to the one of the orthography.
VARIANTS: dict[str, dict[int, int]] = {
    "ro": str.maketrans("şţŞŢ", "șțȘȚ"),
    "fa": str.maketrans("يك", "یک"),
}


def base_language(language: str) -> str:
    """Return the language part of a name, in lower case.

    Arguments
    ---------
    language : str
        A Common Voice name or any BCP 47 tag: "zh-CN", "sv-SE", "tt".

    Returns
    -------
    str
        What stands before the first hyphen or underscore.

    Raises
    ------
    SettingError
        If it is no text or empty. An unquoted `no` (Norwegian) in a YAML file
        is read as false.

    Example
    -------
    >>> base_language("zh-CN"), base_language("pt_BR")
    ('zh', 'pt')
    """
    if not isinstance(language, str) or not language.strip():
        raise SettingError(
            f"language must be a name such as 'zh-CN' or 'fr', not "
            f"{language!r}; in a YAML file, quote it: language: 'no'"
        )
    return language.strip().replace("_", "-").split("-")[0].lower()


def is_spaceless(language: str) -> bool:
    """Tell whether a language is written without spaces between words.

    Arguments
    ---------
    language : str
        As "zh-CN".

    Returns
    -------
    bool
        True for Chinese, Japanese, Thai, Lao, Khmer, Burmese and alike.

    Example
    -------
    >>> is_spaceless("yue"), is_spaceless("ko")
    (True, False)
    """
    return base_language(language) in SPACELESS


def selection_unit(language: str, select_by: str = "auto") -> str:
    """Return the unit of the error rate that chooses the checkpoint.

    Arguments
    ---------
    language : str
        As "zh-CN".
    select_by : str
        `CER`, `WER` or `auto`: characters for languages without spaces, where
        a word error rate is 0 or 1 for each sentence and says nothing; else
        words. Far from a working recogniser the word error rate of any
        language says nothing: it stays near 100% while the other falls.

    Returns
    -------
    str
        "char" or "word".

    Raises
    ------
    SettingError
        If `select_by` is neither of these.

    Example
    -------
    >>> selection_unit("zh-CN"), selection_unit("tr")
    ('char', 'word')
    >>> selection_unit("tr", "CER")
    'char'
    """
    if one_of(select_by, ("auto", "CER", "WER"), "select_by") == "auto":
        return "char" if is_spaceless(language) else "word"
    return "char" if select_by == "CER" else "word"
