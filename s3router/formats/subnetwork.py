"""The subnetwork folder: what one language or task adds to an encoder.

`config.json` says what it is and holds the SHA-256 of every other file and of
itself; `mask.safetensors`, `head.safetensors`, `tokens.txt` (lines
`symbol id`, as sherpa-onnx reads them), and where there is one
`tokenizer.model` and `weights.safetensors`. Must not import torch: a device
that only inspects or serves subnetworks reads them too.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import (
    MismatchError,
    SettingError,
    VerificationError,
)
from s3router.formats.arrays_file import (
    checked_arrays,
    load_arrays,
    save_arrays,
)
from s3router.formats.files import (
    atomic_folder,
    sha256_file,
    to_json,
    write_json,
)
from s3router.formats.mask_file import load_masks, save_masks
from s3router.formats.subnetwork_config import (
    CHECKS,
    CONFIG,
    FORMAT_VERSION,
    HEAD,
    MASK,
    REQUIRED,
    TOKENIZER,
    TOKENS,
    WEIGHTS,
    check_file,
    checksum,
    read_config,
)
from s3router.formats.tokens_file import (
    check_tokens,
    load_tokens,
    save_tokens,
)


@dataclass
class Subnetwork:
    """A mask, a head, tokens, and what they were made with.

    Arguments
    ---------
    config : dict
        JSON values. Needed: `method`, `language`, `task`, `encoder` (name or
        path), `fingerprint` of the encoder's maskable weights, `sample_rate`
        (Hz). Usual: `targets`, `sparsity` (asked for), `scope`, `pattern`,
        `normalize` (bool: zero-mean unit-variance audio), `unit`, `head`,
        `versions`. `save` adds `format_version` and `measured_sparsity`.
    masks : dict
        Name of a linear layer, relative to the encoder, to its mask: bool
        `(out, in)`, True where kept. Empty where nothing is masked.
    head : dict
        Name to float32 array, as `weight` `(tokens, hidden)` and `bias`.
    tokens : list of str
        The symbol of each output of the head; the index is the id.
    tokenizer_model : bytes or None
        A SentencePiece model, if the tokens are its pieces.
    weights : dict
        Parameter name, relative to the encoder, to the float32 array that
        replaces it, for methods that change weights.

    Example
    -------
    >>> config = dict.fromkeys(REQUIRED, "x")
    >>> mask = np.array([[True, False], [True, True]])
    >>> head = {"weight": np.zeros((3, 2), np.float32)}
    >>> made = Subnetwork(config, {"fc": mask}, head, ["<blk>", "<unk>", "a"])
    >>> folder = made.save(getfixture("tmp_path") / "xx")
    >>> loaded = Subnetwork.load(folder)
    >>> loaded.sparsity_by_tensor(), loaded.config["measured_sparsity"]
    ({'fc': (1, 4)}, 0.25)
    """

    config: dict[str, Any]
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    head: dict[str, np.ndarray] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=list)
    tokenizer_model: bytes | None = None
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def sparsity_by_tensor(self) -> dict[str, tuple[int, int]]:
        """Return, for every mask, how many weights it removes and holds.

        Returns
        -------
        dict
            Name to `(removed, total)`.
        """
        return {
            name: (int(mask.size - np.count_nonzero(mask)), int(mask.size))
            for name, mask in self.masks.items()
        }

    def sparsity(self) -> float:
        """Return the share of the masked linear layers that is removed.

        Channels of a convolutional front end, which no method chooses, are
        not counted; `front_end_sparsity` in `config` tells of them.
        """
        counts = self.sparsity_by_tensor()
        linear = [counts[n] for n, mask in self.masks.items() if mask.ndim == 2]
        total = sum(total for _, total in linear)
        return sum(removed for removed, _ in linear) / total if total else 0.0

    def check_encoder(self, fingerprint: str, encoder_name: str) -> None:
        """Refuse an encoder for which this subnetwork was not made.

        Arguments
        ---------
        fingerprint : str
            Of the encoder at hand, see `s3router.formats.fingerprint`.
        encoder_name : str
            How that encoder is called, for the message.

        Raises
        ------
        MismatchError
            If the fingerprints differ; the text names both encoders.
        """
        ours = self.config.get("fingerprint")
        if ours != fingerprint:
            raise MismatchError(
                f"this subnetwork ({self.config.get('language')}) was made "
                f"for the encoder {self.config.get('encoder')!r} with "
                f"fingerprint {ours}, but {encoder_name!r} has {fingerprint}: "
                "load the encoder that it was made for"
            )

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the folder, read it back, compare, and only then return.

        Arguments
        ---------
        folder : str or path
            Where to. A subnetwork that is there is replaced at the end only;
            a folder that is not one of ours is refused.

        Returns
        -------
        pathlib.Path
            The folder.

        Raises
        ------
        SettingError
            If the config lacks a key, or a part has the wrong type.
        MismatchError
            If head and tokens disagree in their number.
        VerificationError
            If what was read back differs; nothing is then replaced.
        """
        folder = Path(folder)
        written = self._completed()
        with atomic_folder(folder) as temporary:
            written._write(temporary)
            loaded = Subnetwork.load(temporary)
            if (difference := written.difference(loaded)) is not None:
                raise VerificationError(
                    f"{folder} was not saved: {difference} differs after "
                    "reading it back; check the disk"
                )
        return folder

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Subnetwork":
        """Read a folder, strictly.

        Arguments
        ---------
        folder : str or path
            A folder that `save` wrote.

        Returns
        -------
        Subnetwork
            Equal to the one that was saved.

        Raises
        ------
        NotFoundError
            If the folder or one of its files does not exist.
        FormatError
            If a file is truncated or altered, or of an unknown version; the
            text names it.
        """
        folder = Path(folder)
        config = read_config(folder)
        files = config["files"]
        for name, expected in files.items():
            check_file(folder / name, expected)
        head = load_arrays(folder / HEAD)
        tokens = load_tokens(folder / TOKENS)
        model = folder / TOKENIZER if TOKENIZER in files else None
        loaded = cls(
            {key: config[key] for key in config if key not in CHECKS},
            load_masks(folder / MASK),
            head,
            tokens,
            model.read_bytes() if model else None,
            load_arrays(folder / WEIGHTS) if WEIGHTS in files else {},
        )
        loaded._check_head(f"{folder}: ")
        return loaded

    def difference(self, other: "Subnetwork") -> str | None:
        """Return the name of the first part that differs, or None if equal.

        Arrays are compared bit for bit, with dtype and shape.
        """
        for name in ("masks", "head", "weights"):
            mine, theirs = getattr(self, name), getattr(other, name)
            for key in sorted(set(mine) | set(theirs)):
                if not _same(mine.get(key), theirs.get(key)):
                    return f"{name}[{key!r}]"
        for name in ("config", "tokens", "tokenizer_model"):
            if getattr(self, name) != getattr(other, name):
                return name
        return None

    def _completed(self) -> "Subnetwork":
        """Return a copy as it comes back from disk, or say what is wrong."""
        lacking = [key for key in REQUIRED if key not in self.config]
        if lacking:
            raise SettingError(
                f"a subnetwork's config needs {', '.join(lacking)}"
            )
        config = {
            "format_version": FORMAT_VERSION,
            **{k: self.config[k] for k in self.config if k not in CHECKS},
            "measured_sparsity": self.sparsity(),
        }
        config["format_version"] = FORMAT_VERSION
        check_tokens(self.tokens)
        self._check_head("")
        return Subnetwork(
            json.loads(to_json(config)),
            {name: np.asarray(mask) for name, mask in self.masks.items()},
            checked_arrays("head", self.head),
            list(self.tokens),
            self.tokenizer_model,
            checked_arrays("weights", self.weights),
        )

    def _check_head(self, where: str) -> None:
        weight = self.head.get("weight")
        one_each = ("ctc", "classification")
        if self.config.get("task") not in one_each or weight is None:
            return
        if len(weight) != len(self.tokens):
            raise MismatchError(
                f"{where}the head has {len(weight)} outputs, but there are "
                f"{len(self.tokens)} tokens"
            )

    def _write(self, folder: Path) -> None:
        save_masks(folder / MASK, self.masks)
        save_arrays(folder / HEAD, self.head)
        save_tokens(folder / TOKENS, self.tokens)
        if self.tokenizer_model is not None:
            (folder / TOKENIZER).write_bytes(self.tokenizer_model)
        if self.weights:
            save_arrays(folder / WEIGHTS, self.weights)
        config = dict(self.config)
        config["files"] = {
            file.name: {
                "sha256": sha256_file(file),
                "bytes": file.stat().st_size,
            }
            for file in sorted(folder.iterdir())
        }
        config["checksum"] = checksum(config)
        write_json(folder / CONFIG, config)


def _same(one: np.ndarray | None, two: np.ndarray | None) -> bool:
    if one is None or two is None:
        return False
    return (
        one.dtype == two.dtype
        and one.shape == two.shape
        and one.tobytes() == two.tobytes()
    )
