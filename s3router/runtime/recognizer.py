"""The recogniser: a bundle and audio in, text out.

    recognizer = Recognizer("bundle", "zh-CN")
    print(recognizer.transcribe("a.wav").text)

Needs numpy, onnxruntime and soundfile; never torch.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from s3router.errors import DataError, FormatError, SettingError, one_of
from s3router.formats.bundle import Bundle, BundleLanguage
from s3router.formats.tokens_file import load_tokens
from s3router.runtime.audio import normalize, read_audio, to_mono
from s3router.runtime.decode import collapse, join_tokens
from s3router.runtime.file_check import FileCheck
from s3router.runtime.segments import find_segments, kept_frames
from s3router.runtime.session import MODES, Session
from s3router.runtime.sharing import open_shared
from s3router.runtime.switch import SwitchSession
from s3router.runtime.transcript import Classification, Transcript
from s3router.runtime.turns import Turns

Audio = str | os.PathLike | np.ndarray | tuple[np.ndarray, int]


@dataclass(frozen=True)
class _Active:
    """All that recognition in one language needs; replaced as a whole, so
    that a switch in one thread leaves a transcription in another alone."""

    language: str
    entry: BundleLanguage
    symbols: list[str]
    session: Session | SwitchSession


class Recognizer:
    """Recognises speech with a bundle.

    Arguments
    ---------
    bundle : str or path
        The bundle folder.
    language : str, optional
        Language code; a loose one ("zh" for "zh-CN") where it is clear. May
        be left out if the bundle has one language.
    providers : sequence of str or str, optional
        "cpu", "cuda" ..., best first; CUDA where usable, else CPU, if not
        given.
    threads : int, optional
        CPU threads.
    chunk_seconds : float
        Longer recordings are cut at quiet places into pieces of at most this
        many seconds.
    mode : str
        How weights are held: "fold", for speed, "lean", for memory, or
        "switch", for fast changes of the language, see
        `s3router.runtime.session.open_session`.

    Raises
    ------
    NotFoundError
        If the bundle or a file of it is missing.
    FormatError
        If a file is truncated or altered.
    SettingError
        If a language is not in the bundle, a provider is not usable, or the
        mode is unknown or gains nothing with this bundle.
    MissingDependencyError
        If onnxruntime is not installed.
    """

    def __init__(
        self,
        bundle: str | os.PathLike,
        language: str | None = None,
        providers: Sequence[str] | str | None = None,
        threads: int | None = None,
        chunk_seconds: float = 30.0,
        mode: str = "fold",
    ):
        self.bundle = Bundle.load(bundle)
        self.chunk_seconds = chunk_seconds
        self.mode = one_of(mode, MODES, "mode")
        if mode != "fold" and self.bundle.layout != "shared":
            raise SettingError(
                f"mode {mode}: the weights of this bundle lie in its graphs, "
                "and cannot stay in a file; export it with layout shared"
            )
        self._verify = FileCheck(self.bundle)
        self._providers = providers
        self._threads = threads
        self._turns = Turns()
        self._changing = Lock()
        self._resident: SwitchSession | None = None
        code = self.bundle.language(language)
        if mode == "switch":
            self._verify(self.bundle.languages[code].files)
            if self.bundle.runner:
                self._verify([self.bundle.runner])
            self._resident = SwitchSession(self.bundle, providers, threads)
            self._load(code)
        else:
            self._active = self._open(code)

    @property
    def languages(self) -> list[str]:
        """Return the codes of the bundle's languages."""
        return list(self.bundle.languages)

    @property
    def language(self) -> str:
        """Return the code of the language in use."""
        return self._active.language

    @property
    def task(self) -> str:
        """Return the task of the language in use: ctc or classification."""
        return self._active.entry.task

    @property
    def provider(self) -> str:
        """Return the execution provider that really runs."""
        return self._active.session.provider

    @property
    def session(self) -> Session | SwitchSession:
        """Return the open graph of the language in use."""
        return self._active.session

    @property
    def symbols(self) -> list[str]:
        """Return the symbol of each token id of the language in use."""
        return list(self._active.symbols)

    def switch(self, language: str) -> None:
        """Change the language.

        Arguments
        ---------
        language : str
            As in the constructor.

        Raises
        ------
        SettingError
            If it is not in the bundle; the old language stays.
        FormatError
            If its files are altered; the old language stays.
        """
        code = self.bundle.language(language)
        with self._changing:
            if code == self._active.language:
                return
            if self._resident:
                self._load(code)
            else:
                self._active = self._open(code)

    def transcribe(self, audio: Audio) -> Transcript:
        """Recognise a recording.

        Arguments
        ---------
        audio : str, path, np.ndarray or tuple
            A file; or (samples,) at the bundle's rate; or an array of
            (samples,) or (samples, channels) and its rate.

        Returns
        -------
        Transcript
            Text and times.

        Raises
        ------
        NotFoundError
            If there is no such file.
        DataError
            If it cannot be read, or is too short for one frame.
        SettingError
            If the language is a task that classifies.
        """
        start = time.perf_counter()
        samples = self._samples(audio)
        with self._reading() as active:
            _check_task(active, "ctc", "classify")
            frame_ids = self._frame_ids(active, samples)
        entry = active.entry
        text = join_tokens(
            collapse(frame_ids, entry.blank),
            active.symbols,
            (entry.blank, entry.unk),
        )
        if entry.spaceless:
            text = text.replace(" ", "")
        return Transcript(
            text=text,
            language=active.language,
            duration=len(samples) / self.bundle.sample_rate,
            seconds=time.perf_counter() - start,
            provider=active.session.provider,
        )

    def classify(self, audio: Audio) -> Classification:
        """Say which class a recording is of.

        Arguments
        ---------
        audio : str, path, np.ndarray or tuple
            As for `transcribe`. Of a long one the pieces are classified, and
            the mean of their logits, weighted by length, decides.

        Returns
        -------
        Classification
            Label and probabilities.

        Raises
        ------
        NotFoundError
            If there is no such file.
        DataError
            If it cannot be read, or is too short for one frame.
        SettingError
            If the language is one to transcribe.
        """
        start = time.perf_counter()
        samples = self._samples(audio)
        pieces = find_segments(
            samples, self.bundle.sample_rate, self.chunk_seconds, context=0.0
        )
        with self._reading() as active:
            _check_task(active, "classification", "transcribe")
            logits = np.average(
                [self._run(active, samples[p.start : p.end]) for p in pieces],
                axis=0,
                weights=[p.end - p.start for p in pieces],
            )
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return Classification(
            label=active.symbols[int(shares.argmax())],
            probabilities=dict(
                zip(active.symbols, shares.tolist(), strict=True)
            ),
            language=active.language,
            duration=len(samples) / self.bundle.sample_rate,
            seconds=time.perf_counter() - start,
            provider=active.session.provider,
        )

    def logits(self, audio: Audio) -> np.ndarray:
        """Return the logits of a recording, in one piece.

        Arguments
        ---------
        audio : str, path, np.ndarray or tuple
            As for `transcribe`.

        Returns
        -------
        np.ndarray
            (frames, tokens) float32; (classes,) of a task that classifies.
        """
        samples = self._samples(audio)
        with self._reading() as active:
            return self._run(active, samples)

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Return audio as the graphs of the bundle want it.

        Arguments
        ---------
        samples : np.ndarray
            (samples,) float32, mono, at the bundle's rate.

        Returns
        -------
        np.ndarray
            (samples,) float32, normalised where the graphs want that.
        """
        if self.bundle.normalize:
            return normalize(samples, self.bundle.variance_floor)
        return samples

    def _samples(self, audio: Audio) -> np.ndarray:
        """Return mono audio at the bundle's rate, long enough for a frame."""
        rate = self.bundle.sample_rate
        if isinstance(audio, (str, os.PathLike)):
            name, samples = str(audio), read_audio(audio, rate)
        else:
            pair = audio if isinstance(audio, tuple) else (audio, rate)
            name = "the audio array"
            samples = to_mono(*pair, rate, name)
        least = self.bundle.min_samples
        if len(samples) < least:
            raise DataError(
                f"{name} is too short: {len(samples) * 1000 / rate:.1f} ms, "
                f"and the model needs at least {least * 1000 / rate:.1f} ms"
            )
        return samples

    def _frame_ids(self, active: _Active, samples: np.ndarray) -> np.ndarray:
        """Return the best token id of each frame, (frames,) int64."""
        bundle, ids = self.bundle, []
        for segment in find_segments(
            samples, bundle.sample_rate, self.chunk_seconds, hop=bundle.hop
        ):
            heard = samples[segment.context_start : segment.context_end]
            best = self._run(active, heard).argmax(axis=-1)
            kept = kept_frames(
                segment, len(best), bundle.hop, bundle.min_samples
            )
            ids.append(best[kept])
        return np.concatenate(ids)

    def _run(self, active: _Active, samples: np.ndarray) -> np.ndarray:
        """Return the logits (frames, tokens) of one piece."""
        return active.session.run(self.prepare(samples)[None])[0]

    @contextmanager
    def _reading(self) -> Iterator[_Active]:
        """Yield the language in use, which stays so meanwhile.

        Only mode "switch" has to hold off a switch for that.
        """
        if self._resident is None:
            yield self._active
            return
        with self._turns.together():
            yield self._active

    def _open(self, code: str) -> _Active:
        """Check the files of a language and open them."""
        entry, symbols = self._checked(code)
        session = open_shared(
            self.bundle,
            [entry.model, *entry.files],
            self._providers,
            self._threads,
            self.mode,
        )
        _check_vocabulary(entry, symbols, session.vocabulary)
        return _Active(code, entry, symbols, session)

    def _load(self, code: str) -> None:
        """Check the files of a language and put it in the place of another."""
        entry, symbols = self._checked(code)
        parts = self._resident.read(code)
        _check_vocabulary(entry, symbols, parts.vocabulary)
        active = _Active(code, entry, symbols, self._resident)
        with self._turns.alone():
            self._resident.load(parts)
            self._active = active

    def _checked(self, code: str) -> tuple[BundleLanguage, list[str]]:
        """Return what a language is and its symbols; its files are whole."""
        entry = self.bundle.languages[code]
        self._verify(entry.files)
        return entry, load_tokens(self.bundle.path(entry.tokens))


def _check_vocabulary(
    entry: BundleLanguage, symbols: list[str], vocabulary: int | None
) -> None:
    """Raise FormatError if a graph has not as many tokens as symbols."""
    if vocabulary not in (None, len(symbols)):
        raise FormatError(
            f"{Path(entry.tokens)} of the bundle has {len(symbols)} "
            f"tokens, its graph {vocabulary}"
        )


def _check_task(active: _Active, task: str, instead: str) -> None:
    """Raise SettingError if a language is not of a task."""
    if active.entry.task != task:
        raise SettingError(
            f"{active.language} of this bundle is of task "
            f"{active.entry.task}: use Recognizer.{instead}"
        )
