"""What a recogniser says of a recording."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Transcript:
    """What was said in one recording.

    Arguments
    ---------
    text : str
        The transcription.
    language : str
        Code of the language that it was recognised in.
    duration : float
        Seconds of audio.
    seconds : float
        Seconds that reading and recognising took.
    provider : str
        What onnxruntime ran on.
    """

    text: str
    language: str
    duration: float
    seconds: float
    provider: str

    @property
    def real_time_factor(self) -> float:
        """Return seconds of work for a second of audio."""
        return self.seconds / self.duration

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and the real-time factor, ready for JSON."""
        factor = round(self.real_time_factor, 6)
        return {**asdict(self), "real_time_factor": factor}


@dataclass(frozen=True)
class Classification:
    """What one recording is: speaker, keyword, language.

    Arguments
    ---------
    label : str
        The name of the likeliest class.
    probabilities : dict
        Name of each class to its probability.
    language : str
        Code of the task in the bundle.
    duration : float
        Seconds of audio.
    seconds : float
        Seconds that reading and classifying took.
    provider : str
        What onnxruntime ran on.
    """

    label: str
    probabilities: dict[str, float]
    language: str
    duration: float
    seconds: float
    provider: str

    def as_dict(self) -> dict[str, Any]:
        """Return all fields, ready for JSON."""
        return asdict(self)
