"""tokens.txt: one line `symbol id` for each output of a head.

The form that sherpa-onnx, icefall and onnx-asr read. Must not know how text
is cut into tokens.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.files import atomic_file


def save_tokens(path: str | os.PathLike, tokens: Sequence[str]) -> None:
    """Write tokens, whole or not at all.

    Arguments
    ---------
    path : str or path
        The file, as a rule `tokens.txt`.
    tokens : sequence of str
        Symbols; the index is the id.

    Raises
    ------
    SettingError
        If a token cannot stand in such a file, see `check_tokens`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "tokens.txt"
    >>> save_tokens(path, ["<blk>", "<unk>", "▁"])
    >>> load_tokens(path)
    ['<blk>', '<unk>', '▁']
    """
    check_tokens(tokens)
    lines = [f"{token} {index}\n" for index, token in enumerate(tokens)]
    with atomic_file(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")


def load_tokens(path: str | os.PathLike) -> list[str]:
    """Read tokens; the ids must be 0, 1, 2, ... in this order.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    list of str
        Symbols; the index is the id.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If a line is not of this form; the text names file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    try:
        # Bytes, because text mode would turn \r into the end of a line.
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}") from error
    # Not splitlines: it also cuts at characters that are no line ends here.
    lines = text.split("\n")
    if lines.pop():
        raise FormatError(f"{path} is truncated: its last line has no end")
    tokens = []
    for number, line in enumerate(lines):
        token, _, index = line.rpartition(" ")
        if not token or index != str(number):
            raise FormatError(
                f"{path}, line {number + 1}: {line!r} is not 'symbol {number}'"
            )
        tokens.append(token)
    return tokens


def check_tokens(tokens: Sequence[str]) -> None:
    """Refuse tokens that `tokens.txt` cannot hold.

    Arguments
    ---------
    tokens : sequence of str
        Symbols.

    Raises
    ------
    SettingError
        If one is empty, holds white space, or is there twice.
    """
    seen = set()
    for index, token in enumerate(tokens):
        if not token or any(char.isspace() for char in token):
            raise SettingError(
                f"token {index} is {token!r}: a token cannot be empty or hold "
                "white space (write the space between words as ▁)"
            )
        if token in seen:
            raise SettingError(f"token {index}, {token!r}, is there twice")
        seen.add(token)
