"""Language codes: which may name a folder, and which one a user means."""

import re
from collections.abc import Iterable

from s3router.errors import SettingError, near

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


def is_language_code(code: object) -> bool:
    """Return whether something is a code that can safely name a folder.

    Arguments
    ---------
    code : object
        What a config or manifest holds.

    Returns
    -------
    bool
        True for text of letters, digits, "-" and "_".

    Example
    -------
    >>> is_language_code("zh-CN"), is_language_code("../zh")
    (True, False)
    """
    return isinstance(code, str) and bool(_CODE.match(code))


def match_language(name: str | None, codes: Iterable[str]) -> str:
    """Return the one language code that a loose name means.

    Arguments
    ---------
    name : str, optional
        A code, in any case, or its first part where only one language begins
        so. May be left out if there is one language.
    codes : iterable of str
        The languages that there are.

    Returns
    -------
    str
        One of `codes`.

    Raises
    ------
    SettingError
        If none or several match; the text lists the languages.

    Example
    -------
    >>> match_language("zh", ["es", "zh-CN"])
    'zh-CN'
    """
    codes = list(codes)
    listed = f"there are: {', '.join(codes)}"
    if name is None:
        if len(codes) == 1:
            return codes[0]
        raise SettingError(f"say which language to recognise; {listed}")
    if name in codes:
        return name
    wanted = name.lower().replace("_", "-")
    plain = {code: code.lower().replace("_", "-") for code in codes}
    found = [code for code in codes if plain[code] == wanted] or [
        code for code in codes if plain[code].startswith(f"{wanted}-")
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise SettingError(
            f"language {name!r} could be {' or '.join(found)}; {listed}"
        )
    raise SettingError(
        f"unknown language {name!r}: {near(name, codes)}{listed}"
    )
