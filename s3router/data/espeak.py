"""One utterance of synthetic speech, through eSpeak NG called by ctypes.

For demonstrations, tests and pre-training where no recordings are at hand.
Everything made here is synthetic and is to be called so wherever it shows.
Must not be needed by anything else: `espeakng-loader`, which brings the
library (GPL-3.0), is optional and imported at the first use only.
"""

import _ctypes
import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torchaudio

from s3router.errors import (
    DataError,
    MissingDependencyError,
    SettingError,
    one_of,
)

SAMPLE_RATE = 16000

#: Voice of eSpeak NG for each language of `synthetic_text`, and some more
#: that only the pre-training pool uses.
VOICES = {
    "ar": "ar",
    "cs": "cs",
    "de": "de",
    "el": "el",
    "en": "en-us",
    "es": "es",
    "fa": "fa",
    "fi": "fi",
    "fr": "fr",
    "hi": "hi",
    "hu": "hu",
    "id": "id",
    "is": "is",
    "it": "it",
    "ja": "ja",
    "ko": "ko",
    "ky": "ky",
    "nl": "nl",
    "pl": "pl",
    "pt": "pt",
    "ru": "ru",
    "sv": "sv",
    "sw": "sw",
    "ta": "ta",
    "tr": "tr",
    "tt": "tt",
    "uk": "uk",
    "vi": "vi",
    "zh": "cmn",
}

#: Speaker variants of eSpeak NG; the first ones are used for training.
SPEAKERS = tuple(
    (
        "m1 f2 m3 f3 m7 f5 Andy Alicia m2 f4 Gene linda m4 f1 Lee belinda m6 "
        "steph Michael aunty m5 anika Marco Andrea m8 Annie paul victor "
        "michel ed Diogo travis"
    ).split()
)

_RETRIEVAL = 1  # AUDIO_OUTPUT_RETRIEVAL: samples go to the callback
# espeakINITIALIZE_DONT_EXIT and _PHONEME_EVENTS
_OPTIONS = 0x8000 | 0x0001
_UTF8 = 1  # espeakCHARS_UTF8
_RATE, _PITCH = 1, 3  # espeak_PARAMETER
_END, _PHONEME = 0, 7  # espeak_EVENT_TYPE


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("text", ctypes.c_char * 8),
    ]


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_short),
    ctypes.c_int,
    ctypes.POINTER(_Event),
)


@contextmanager
def _engine() -> Iterator["_Engine"]:
    """Yield a freshly loaded eSpeak NG.

    Its generators keep state in the library's own variables, which nothing
    but unloading clears: an engine that has already spoken says the same text
    with other samples. Loading anew costs 8 ms.
    """
    engine = _Engine()
    try:
        yield engine
    finally:
        engine.close()


class _Engine:
    """One loaded eSpeak NG."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise MissingDependencyError(
                "synthetic speech needs the optional package "
                "espeakng-loader (it brings eSpeak NG, licence GPL-3.0): "
                "pip install s3router[synthetic]"
            ) from None
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self.rate = self._library.espeak_Initialize(
            _RETRIEVAL,
            0,
            str(espeakng_loader.get_data_path()).encode(),
            _OPTIONS,
        )
        if self.rate <= 0:
            raise MissingDependencyError(
                "eSpeak NG of the package espeakng-loader does not start "
                f"(code {self.rate}): pip install --force-reinstall "
                "espeakng-loader"
            )
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._chunks: list[np.ndarray] = []
        self.phones: list[tuple[str, int]] = []
        # Kept, or ctypes would free it while the library still calls it.
        self._callback = _CALLBACK(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def _take(self, samples: object, count: int, events: object) -> int:
        if samples and count > 0:
            chunk = np.ctypeslib.as_array(samples, shape=(count,))
            self._chunks.append(chunk.copy())
        number = 0
        while events and events[number].type != _END:
            event = events[number]
            if event.type == _PHONEME:
                name = event.text.decode(errors="replace")
                self.phones.append((name, event.sample))
            number += 1
        return 0

    def speak(self, text: str, voice: str, rate: int, pitch: int) -> np.ndarray:
        """Return int16 samples at the engine's own rate."""
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise SettingError(f"eSpeak NG has no voice {voice!r}")
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        data = text.encode() + b"\0"
        status = self._library.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, 1, 0, _UTF8, None, None
        )
        self._library.espeak_Synchronize()
        if status != 0 or not self._chunks:
            raise DataError(f"eSpeak NG says nothing for {text!r} ({voice})")
        return np.concatenate(self._chunks)

    def close(self) -> None:
        """Unload the library, and with it all of its state."""
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)


@functools.cache
def _resampler(rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, SAMPLE_RATE)


def synthesize(
    text: str,
    language: str,
    voice: str = "m1",
    rate: int = 160,
    pitch: int = 50,
    seed: int = 0,
) -> np.ndarray:
    """Return a text as synthetic speech.

    Arguments
    ---------
    text : str
        What to say, in the language's own script; digits are read as numbers.
    language : str
        A key of `VOICES`, as "zh"; the region of a longer code ("zh-CN",
        "sv-SE") is ignored.
    voice : str
        Speaker variant of eSpeak NG, as in `SPEAKERS`.
    rate : int
        Words per minute, 80 to 450.
    pitch : int
        0 to 99; 50 is the voice's own.
    seed : int
        Of the light noise that is added, 25 to 40 dB below the speech.

    Returns
    -------
    numpy.ndarray
        float32 samples in [-1, 1] at 16 kHz, silence at both ends trimmed to
        0.1 s. The same arguments give the same bytes.

    Raises
    ------
    MissingDependencyError
        If espeakng-loader is not installed.
    SettingError
        If language, voice, rate or pitch do not exist.
    DataError
        If nothing is heard, as for a text in another script.
    """
    return synthesize_phones(text, language, voice, rate, pitch, seed)[0]


def synthesize_phones(
    text: str,
    language: str,
    voice: str = "m1",
    rate: int = 160,
    pitch: int = 50,
    seed: int = 0,
) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Return a text as synthetic speech, and which phone begins where.

    Arguments
    ---------
    text, language, voice, rate, pitch, seed : str and int
        See `synthesize`.

    Returns
    -------
    numpy.ndarray
        As of `synthesize`.
    list of tuple
        Phone in eSpeak NG's letters ("" and "_" for pauses), and its first
        sample at 16 kHz, in order.
    """
    code = one_of(language.split("-")[0], VOICES, "language")
    if not 80 <= rate <= 450 or not 0 <= pitch <= 99:
        raise SettingError(
            f"rate {rate} must lie in 80..450 and pitch {pitch} in 0..99"
        )
    one_of(voice, SPEAKERS, "synthetic voice")
    with _engine() as engine:
        raw = engine.speak(text, f"{VOICES[code]}+{voice}", rate, pitch)
        resample = _resampler(engine.rate)
        scale = SAMPLE_RATE / engine.rate
        phones = [(name, int(at * scale)) for name, at in engine.phones]
    samples = torch.from_numpy(raw.astype(np.float32) / 32768.0)
    speech, cut = _trim(resample(samples).numpy())
    if speech.size == 0:
        raise DataError(f"eSpeak NG says nothing for {text!r} ({language})")
    placed = [(name, max(0, at - cut)) for name, at in phones]
    return _with_light_noise(speech, seed), placed


def _trim(
    samples: np.ndarray, keep: int = SAMPLE_RATE // 10
) -> tuple[np.ndarray, int]:
    """Return the loud part, and how many samples went before it."""
    peak = np.abs(samples).max(initial=0.0)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * peak)
    if peak == 0.0 or loud.size == 0:
        return samples[:0], 0
    first = max(0, int(loud[0]) - keep)
    return samples[first : loud[-1] + keep], first


def _with_light_noise(speech: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    decibel = generator.uniform(25.0, 40.0)
    power = float(np.mean(speech**2)) * 10 ** (-decibel / 10)
    noise = generator.standard_normal(speech.size) * np.sqrt(power)
    noisy = (speech + noise).astype(np.float32)
    peak = np.abs(noisy).max()
    return noisy * np.float32(generator.uniform(0.3, 0.9) / peak)
