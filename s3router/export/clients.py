"""What other programs read with a bundle: sherpa-onnx and onnx-asr.

Their rules are stated here in numpy; where sherpa-onnx is installed, it reads
too. The text must be the recogniser's, but for spaces at the ends and between
words, where each has a way of its own.
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version

import numpy as np

from s3router.errors import VerificationError
from s3router.export.profiles import CLIENT_BLANK, SHERPA_FLOOR
from s3router.formats.bundle import PROFILES
from s3router.runtime.recognizer import Recognizer

Reader = Callable[[np.ndarray], str]

# Clips in a padded batch.
_BATCH = 8


def check_client(
    recognizer: Recognizer, clips: Sequence[np.ndarray], tolerance: float
) -> str | None:
    """Verify that a client reads what the recogniser reads.

    Arguments
    ---------
    recognizer : Recognizer
        On the bundle, switched to the language.
    clips : sequence of np.ndarray
        (samples,) float32.
    tolerance : float
        By how much logits may differ: where the two best tokens of a frame
        are closer, either may be read.

    Returns
    -------
    str or None
        What read: "rules of ...", and the client with its version where it is
        installed; None if the bundle is for no other client.

    Raises
    ------
    VerificationError
        If it reads something else.
    """
    profile = recognizer.bundle.profile
    if profile == PROFILES[0]:
        return None
    readers: dict[str, Reader] = {
        f"rules of {profile}": _restated(recognizer, profile)
    }
    if profile == "sherpa-onnx" and (real := _sherpa(recognizer)):
        readers[f"{profile} {version(profile)}"] = real
    longest = recognizer.chunk_seconds * recognizer.bundle.sample_rate
    # Longer ones the recogniser cuts into pieces, and clients do not.
    clips = [clip for clip in clips if len(clip) <= longest]
    for clip in clips:
        ours = recognizer.transcribe(clip).text
        for name, read in readers.items():
            theirs = read(clip)
            if _same(recognizer, ours, theirs):
                continue
            if _margin(recognizer.logits(clip)) > tolerance:
                raise VerificationError(
                    f"language {recognizer.language}: {name} reads "
                    f"{theirs[:60]!r}, the recogniser {ours[:60]!r}, in a clip "
                    f"of {len(clip)} samples"
                )
    if profile == "onnx-asr":
        order = sorted(clips, key=len)
        for start in range(0, len(order), _BATCH):
            part = order[start : start + _BATCH]
            _check_batch(recognizer, part, tolerance)
    return ", ".join(readers)


def _same(recognizer: Recognizer, ours: str, theirs: str) -> bool:
    """Return whether two texts are one but for how spaces are put."""
    entry = recognizer.bundle.languages[recognizer.language]
    # onnx-asr takes the space before what is no letter away.
    loose = entry.spaceless or recognizer.bundle.profile == "onnx-asr"
    between = "" if loose else " "
    return between.join(ours.split()) == between.join(theirs.split())


def _margin(logits: np.ndarray) -> float:
    """Return by how much the best token wins, where it wins least."""
    best = np.partition(logits, -2, axis=-1)[:, -2:]
    return float((best[:, 1] - best[:, 0]).min())


def _restated(recognizer: Recognizer, profile: str) -> Reader:
    """Return a client's rules in numpy, over the same graph."""
    symbols = recognizer.symbols
    blank = symbols.index(CLIENT_BLANK)

    def read(clip: np.ndarray) -> str:
        audio = clip.astype(np.float32)
        if profile == "sherpa-onnx":
            exact = clip.astype(np.float64)
            scale = np.sqrt(exact.var() + SHERPA_FLOOR)
            audio = ((exact - exact.mean()) / scale).astype(np.float32)
        frames = recognizer.session.run(audio[None])[0]
        return _read(frames, len(frames), symbols, blank)

    return read


def _read(
    frames: np.ndarray, count: int, symbols: Sequence[str], blank: int
) -> str:
    """Return the text of so many frames: every token but the blank."""
    ids = frames[:count].argmax(-1)
    new = np.append(True, ids[1:] != ids[:-1]) & (ids != blank)
    return "".join(symbols[i] for i in ids[new]).replace("▁", " ")


def _check_batch(
    recognizer: Recognizer, clips: Sequence[np.ndarray], tolerance: float
) -> None:
    """Read clips in one padded batch, counting frames as onnx-asr does."""
    lengths = [len(clip) for clip in clips]
    batch = np.zeros((len(clips), max(lengths)), np.float32)
    for row, clip in zip(batch, clips, strict=True):
        # Loud rubbish: nothing may depend on what the padding is.
        row[:] = 3.0
        row[: len(clip)] = clip
    together = recognizer.session.run(batch, lengths)
    hop, symbols = recognizer.bundle.hop, recognizer.symbols
    blank = symbols.index(CLIENT_BLANK)
    for clip, rows in zip(clips, together, strict=True):
        alone = recognizer.logits(clip)
        error = float(np.abs(rows[: len(alone)] - alone).max())
        if not error < tolerance:
            raise VerificationError(
                f"language {recognizer.language}: in a padded batch "
                f"log-probabilities differ by {error:.2e} from those of a "
                f"clip of {len(clip)} samples alone"
            )
        count = min(len(clip) // hop + 1, len(rows))
        text = _read(rows, count, symbols, blank)
        ours = recognizer.transcribe(clip).text
        if not _same(recognizer, ours, text) and _margin(alone) > tolerance:
            raise VerificationError(
                f"language {recognizer.language}: onnx-asr reads {text[:60]!r} "
                f"in a padded batch, the recogniser {ours[:60]!r}"
            )


def _sherpa(recognizer: Recognizer) -> Reader | None:
    """Return what reads a clip with sherpa-onnx, where it is installed."""
    try:
        import sherpa_onnx
    except ImportError:
        return None
    bundle = recognizer.bundle
    entry = bundle.languages[recognizer.language]
    client = sherpa_onnx.OfflineRecognizer.from_omnilingual_asr_ctc(
        model=str(bundle.path(entry.model)),
        tokens=str(bundle.path(entry.tokens)),
    )

    def read(clip: np.ndarray) -> str:
        stream = client.create_stream()
        stream.accept_waveform(bundle.sample_rate, clip)
        client.decode_stream(stream)
        return stream.result.text

    return read
