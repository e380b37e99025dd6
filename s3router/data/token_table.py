"""The table of symbols that every kind of tokens has, and its file.

Entry 0 is the CTC blank "<blk>", entry 1 is "<unk>": two symbols with two
meanings. A space is written "▁". Decoding is the function that the device
runs, so what is scored is what is seen.
"""

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from s3router.errors import FormatError
from s3router.formats.files import atomic_file
from s3router.formats.tokens_file import save_tokens
from s3router.runtime.decode import WORD_START, join_tokens

BLANK, UNKNOWN = "<blk>", "<unk>"

TOKENS_FILE, MODEL_FILE = "tokens.txt", "tokenizer.model"


class Tokens(ABC):
    """A table of symbols that turns text into ids and back.

    Arguments
    ---------
    symbols : sequence of str
        The symbol of each id, beginning with "<blk>" and "<unk>".

    Raises
    ------
    FormatError
        If the table does not begin so, repeats a symbol, or has an empty one
        or one with a space.
    """

    blank_index = 0
    unk_index = 1
    #: The bytes of a SentencePiece model, where there is one.
    tokenizer_model: bytes | None = None

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        if self.symbols[:2] != [BLANK, UNKNOWN]:
            raise FormatError(
                f"tokens must begin with {BLANK} and {UNKNOWN}, not with "
                f"{self.symbols[:2]}"
            )
        if len(self.symbols) < 3:
            raise FormatError(f"there are no tokens but {BLANK}, {UNKNOWN}")
        for i, symbol in enumerate(self.symbols):
            if not symbol or symbol.split() != [symbol]:
                raise FormatError(f"token {i} is empty or has a space")
        repeated = [s for s, n in Counter(self.symbols).items() if n > 1]
        if repeated:
            raise FormatError(f"tokens stand twice: {' '.join(repeated[:5])}")
        self._known = {s for s in self.symbols if len(s) == 1}

    def __len__(self) -> int:
        return len(self.symbols)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; never the blank.

        Arguments
        ---------
        text : str
            A normalised transcript.

        Returns
        -------
        list of int
            Ids; `unk_index` for what the table does not have.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, as the device does.

        Arguments
        ---------
        ids : iterable of int
            Ids after CTC collapsing.

        Returns
        -------
        str
            The text. Blank and unknown give nothing, so that an unknown
            character is an error whatever the model says.
        """
        special = (self.blank_index, self.unk_index)
        return join_tokens(list(ids), self.symbols, special)

    def unknown(self, texts: Iterable[str]) -> Counter[str]:
        """Count the characters that the table cannot write.

        Arguments
        ---------
        texts : iterable of str
            Normalised transcripts.

        Returns
        -------
        collections.Counter
            Character to the number of times that it occurs.
        """
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(mark_spaces(text))
        known = self._known
        return Counter({c: n for c, n in counts.items() if c not in known})

    def save(self, folder: str | os.PathLike) -> None:
        """Write `tokens.txt` ("symbol id" lines), and `tokenizer.model`.

        Arguments
        ---------
        folder : str or path
            Made if missing.
        """
        save_tokens(Path(folder) / TOKENS_FILE, self.symbols)
        if self.tokenizer_model is not None:
            with atomic_file(Path(folder) / MODEL_FILE) as path:
                path.write_bytes(self.tokenizer_model)


def mark_spaces(text: str) -> Iterator[str]:
    """Return the characters of a text, every run of spaces as one "▁".

    Arguments
    ---------
    text : str
        A transcript.

    Returns
    -------
    iterator of str
        Single characters.

    Example
    -------
    >>> list(mark_spaces(" a  b"))
    ['a', '▁', 'b']
    """
    return iter(WORD_START.join(text.split()))
