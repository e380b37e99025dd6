"""What a bundle's manifest says of one language."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BundleLanguage:
    """One language (or task) of a bundle.

    Arguments
    ---------
    model : str
        Path of the ONNX graph in the bundle.
    tokens : str
        Path of the token list in the bundle.
    files : list of str
        Every file that this language opens, `model` and `tokens` among them.
    blank : int
        Id of the CTC blank.
    unk : int, optional
        Id of the unknown token, which is no text either; None without one.
    unit : str
        "char" or "word": by what the language is scored.
    spaceless : bool
        Whether the language is written without spaces.
    task : str
        "ctc"; or "classification": the tokens are names of classes, and a
        clip has one.
    method : str
        How the subnetwork was found.
    sparsity : float
        Share of the maskable weights that is removed, as measured.
    zeros : int
        Weights that the masks removed.
    head : dict
        Type and layer of the head.
    details : dict
        What else the subnetwork says of itself; for people.
    """

    model: str
    tokens: str
    files: list[str]
    blank: int = 0
    unk: int | None = 1
    unit: str = "word"
    spaceless: bool = False
    task: str = "ctc"
    method: str = ""
    sparsity: float = 0.0
    zeros: int = 0
    head: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
