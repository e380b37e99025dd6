"""Pieces of words as tokens, found and applied by SentencePiece.

Blank and unknown are entries 0 and 1 of the SentencePiece model itself, so
that its ids are the head's. Import the class from `tokens.py`.
"""

import io
import re
from collections.abc import Iterable, Sequence

import sentencepiece

from s3router.data.token_table import BLANK, UNKNOWN, Tokens
from s3router.errors import DataError, FormatError, SettingError, one_of

MODEL_TYPES = ("unigram", "bpe")


class SentencePieceTokens(Tokens):
    """Pieces of words, as many as one wishes, found by SentencePiece.

    Blank and unknown are entries 0 and 1 of the model itself, so that its ids
    are the head's.

    Arguments
    ---------
    model : bytes
        A serialised SentencePiece model that begins so.

    Raises
    ------
    FormatError
        If the bytes are no such model.
    """

    def __init__(self, model: bytes) -> None:
        self._processor, symbols = load_pieces(model)
        super().__init__(symbols)
        self.tokenizer_model = model

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        vocabulary_size: int,
        model_type: str = "unigram",
        spaceless: bool = False,
    ) -> "SentencePieceTokens":
        """Train the pieces; the same texts give the same bytes.

        Arguments
        ---------
        texts : iterable of str
            Normalised training transcripts.
        vocabulary_size : int
            Number of tokens, blank and unknown included.
        model_type : str
            "unigram" (Kudo, 2018) or "bpe" (Sennrich et al., 2016).
        spaceless : bool
            Do not begin every sentence with the sign of a word's start.

        Returns
        -------
        SentencePieceTokens
            With exactly `vocabulary_size` tokens.

        Raises
        ------
        DataError
            If there is no text.
        SettingError
            If the texts do not allow that size; the text says what they do.

        Example
        -------
        >>> tokens = SentencePieceTokens.from_texts(["a cat", "the cat"], 9)
        >>> len(tokens), tokens.decode(tokens.encode("the cat"))
        (9, 'the cat')
        """
        buffer = io.BytesIO()
        train_pieces(
            [" ".join(text.split()) for text in texts],
            buffer,
            vocabulary_size,
            model_type,
            add_dummy_prefix=not spaceless,
        )
        return cls(buffer.getvalue())

    def encode(self, text: str) -> list[int]:
        """Return the ids of the best segmentation; see `Tokens.encode`.

        Arguments
        ---------
        text : str
            A normalised transcript.

        Returns
        -------
        list of int
            Ids; several unknown characters in a row give one.
        """
        return self._processor.encode(text, out_type=int)


def train_pieces(
    texts: Sequence[str],
    buffer: io.BytesIO,
    vocabulary_size: int,
    model_type: str,
    add_dummy_prefix: bool,
) -> None:
    """Train a model and write it into a buffer.

    Arguments
    ---------
    texts : sequence of str
        Sentences; nothing in them is normalised again.
    buffer : io.BytesIO
        Gets the serialised model.
    vocabulary_size : int
        Number of entries, blank and unknown included.
    model_type : str
        One of `MODEL_TYPES`.
    add_dummy_prefix : bool
        Put the sign of a word's start before every sentence.

    Raises
    ------
    DataError
        If there is no text.
    SettingError
        If the texts do not allow that number of entries.
    """
    one_of(model_type, MODEL_TYPES, "SentencePiece model type")
    if type(vocabulary_size) is not int:
        raise SettingError(
            f"vocabulary_size must be a whole number, not {vocabulary_size!r}"
        )
    texts = [text for text in texts if text]
    if not texts:
        raise DataError("the training transcripts hold no characters")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=buffer,
            vocab_size=vocabulary_size,
            model_type=model_type,
            character_coverage=1.0,
            # The text is normalised already, by the rules of its language.
            normalization_rule_name="identity",
            add_dummy_prefix=add_dummy_prefix,
            pad_id=0,
            pad_piece=BLANK,
            unk_id=1,
            unk_piece=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            # No sampling and one thread: sums of floats keep their order.
            input_sentence_size=0,
            shuffle_input_sentence=False,
            num_threads=1,
            max_sentence_length=max(4192, *(4 * len(t) + 1 for t in texts)),
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise _explained(error, vocabulary_size, texts) from error


def _explained(
    error: Exception, size: int, texts: Sequence[str]
) -> SettingError:
    reason = str(error)
    most = re.search(r"value <= (\d+)", reason)
    if most:
        advice = f"these texts allow at most {most[1]}"
    elif "required_chars" in reason or "vocab" in reason.lower():
        chars = len(set("".join(texts)) | {" "})
        advice = (
            f"it must exceed the number of characters, {chars}, by more than "
            f"2, as blank and unknown need a place too"
        )
    else:
        advice = " ".join(reason.split())
    return SettingError(f"vocabulary_size {size} does not work: {advice}")


def load_pieces(
    model: bytes,
) -> tuple[sentencepiece.SentencePieceProcessor, list[str]]:
    """Load a model from bytes.

    Arguments
    ---------
    model : bytes
        What `train_pieces` wrote.

    Returns
    -------
    tuple
        The processor, and the symbol of each id.

    Raises
    ------
    FormatError
        If the bytes are no SentencePiece model.
    """
    processor = sentencepiece.SentencePieceProcessor()
    try:
        if not model or not processor.LoadFromSerializedProto(model):
            raise RuntimeError("it is empty")
        symbols = [
            processor.id_to_piece(i) for i in range(processor.vocab_size())
        ]
    except (RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())
        text = f"this is no SentencePiece model: {reason}"
        raise FormatError(text) from error
    return processor, symbols
