"""What the head's outputs stand for: characters or SentencePiece pieces.

Tables are made from training transcripts only. Loading is strict, and nothing
is unpickled. The table itself is in `token_table.py`.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from s3router.data.pieces import SentencePieceTokens
from s3router.data.token_table import (
    BLANK,
    MODEL_FILE,
    TOKENS_FILE,
    UNKNOWN,
    Tokens,
    mark_spaces,
)
from s3router.errors import DataError, FormatError
from s3router.formats import tokens_file

__all__ = [
    "CharTokens",
    "SentencePieceTokens",
    "Tokens",
    "load_tokens",
    "read_tokens",
    "report_unknown",
]

logger = logging.getLogger(__name__)


class CharTokens(Tokens):
    """Each character is a token.

    Arguments
    ---------
    symbols : sequence of str
        The table; all but the first two symbols are single characters.

    Example
    -------
    >>> tokens = CharTokens.from_texts(["ab a"])
    >>> tokens.symbols
    ['<blk>', '<unk>', 'a', 'b', '▁']
    >>> tokens.encode("a bc")
    [2, 4, 3, 1]
    >>> tokens.decode([2, 4, 3, 1])
    'a b'
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        for i, symbol in enumerate(self.symbols[2:], start=2):
            if len(symbol) != 1:
                raise FormatError(
                    f"token {i} {symbol!r} is no single character; is the "
                    f"{MODEL_FILE} missing?"
                )
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], min_count: int = 1
    ) -> "CharTokens":
        """Make the table of the characters that occur.

        Arguments
        ---------
        texts : iterable of str
            Normalised training transcripts.
        min_count : int
            Rarer characters become unknown.

        Returns
        -------
        CharTokens
            In the order of the code points, so that the order of the texts
            does not matter.

        Raises
        ------
        DataError
            If no character occurs often enough.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(mark_spaces(text))
        chars = sorted(c for c, n in counts.items() if n >= min_count)
        if not chars:
            raise DataError("the training transcripts hold no characters")
        return cls([BLANK, UNKNOWN, *chars])

    def encode(self, text: str) -> list[int]:
        """Return one id for each character; see `Tokens.encode`.

        Arguments
        ---------
        text : str
            A normalised transcript.

        Returns
        -------
        list of int
            Ids.
        """
        ids, unknown = self._ids, self.unk_index
        return [ids.get(char, unknown) for char in mark_spaces(text)]


def load_tokens(
    symbols: Sequence[str], tokenizer_model: bytes | None = None
) -> Tokens:
    """Return the tokens that a subnetwork was saved with.

    Arguments
    ---------
    symbols : sequence of str
        Its table.
    tokenizer_model : bytes, optional
        Its SentencePiece model.

    Returns
    -------
    Tokens
        Pieces if there is a model, else characters.

    Raises
    ------
    FormatError
        If the table is none, or is not the model's.
    """
    if tokenizer_model is None:
        return CharTokens(symbols)
    tokens = SentencePieceTokens(tokenizer_model)
    for i, (own, given) in enumerate(
        zip(tokens.symbols, symbols, strict=False)
    ):
        if own != given:
            raise FormatError(
                f"{TOKENS_FILE} and {MODEL_FILE} do not belong together: "
                f"token {i} is {given!r} in one and {own!r} in the other"
            )
    if len(tokens) != len(symbols):
        raise FormatError(
            f"{TOKENS_FILE} and {MODEL_FILE} do not belong together: "
            f"{len(symbols)} and {len(tokens)} tokens"
        )
    return tokens


def read_tokens(folder: str | os.PathLike) -> Tokens:
    """Read what `Tokens.save` wrote.

    Arguments
    ---------
    folder : str or path
        With `tokens.txt`, and `tokenizer.model` for pieces.

    Returns
    -------
    Tokens
        Of the class that was saved.

    Raises
    ------
    NotFoundError
        If there is no `tokens.txt`.
    FormatError
        If one of the files is not what it should be.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> CharTokens.from_texts(["你 好"]).save(folder)
    >>> read_tokens(folder).decode([3, 2, 4])
    '你 好'
    """
    model = Path(folder) / MODEL_FILE
    return load_tokens(
        tokens_file.load_tokens(Path(folder) / TOKENS_FILE),
        model.read_bytes() if model.is_file() else None,
    )


def report_unknown(tokens: Tokens, texts: Iterable[str], name: str) -> int:
    """Log in one line which characters of a split the table cannot write.

    Arguments
    ---------
    tokens : Tokens
        The table.
    texts : iterable of str
        Normalised transcripts.
    name : str
        What the line calls them, as "dev".

    Returns
    -------
    int
        How many there are; 0 logs nothing.
    """
    counts = tokens.unknown(texts)
    total = sum(counts.values())
    if total:
        first = " ".join(f"{c!r}" for c, _ in counts.most_common(8))
        logger.warning(
            "%s: %d characters (%d different) are not among the tokens, are "
            "encoded as %s and count as errors: %s%s",
            name,
            total,
            len(counts),
            UNKNOWN,
            first,
            " ..." if len(counts) > 8 else "",
        )
    return total
