"""The bundle folder: ONNX graphs of many languages and their manifest.

    manifest.json            this file's format
    <language>/model.onnx    layout "standalone": a graph with its weights
    <language>/tokens.txt
    <language>.onnx          layout "shared": a graph with mask and head
    <language>.tokens.txt
    backbone.bin             its weights, which all languages name
    switch.runner.onnx       takes masked weights as inputs, for mode "switch"
    <language>/vocab.txt     profile "onnx-asr": instead of tokens.txt, with a
    <language>/config.json   file that says what the graph is

Read by export and by the runtime, so it needs numpy-free Python only. Every
file is listed once, with its size and hash; a language names the files that
it opens.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from s3router.errors import FormatError, NotFoundError
from s3router.formats.bundle_language import BundleLanguage
from s3router.formats.files import (
    read_json,
    sha256_file,
    to_json,
    write_json,
)
from s3router.formats.language_codes import is_language_code, match_language

#: 2: graphs for other clients, which want audio normalised otherwise.
FORMAT_VERSION = 2
_READABLE = (1, 2)
MANIFEST = "manifest.json"
#: In layout "shared", the file that all languages open.
BACKBONE = "backbone.bin"
LAYOUTS = ("standalone", "shared")
PRECISIONS = ("fp32", "fp16", "int8")
#: Clients whose contract the graphs keep, besides our own.
PROFILES = ("s3router", "sherpa-onnx", "onnx-asr")


@dataclass
class Bundle:
    """The manifest of a bundle folder.

    Arguments
    ---------
    languages : dict
        Language code to `BundleLanguage`.
    files : dict
        Path in the bundle to {"bytes": int, "sha256": str}.
    encoder : dict
        Name, fingerprint and family of the encoder.
    sample_rate : int
        Samples per second that the graphs want.
    normalize : bool
        Whether the graphs want zero mean and unit variance.
    min_samples : int
        Samples below which there is no frame.
    hop : int
        Samples between frames.
    layout : str
        "standalone": every language has all its weights in its own files.
        "shared": the weights lie in one file, the languages have masks.
    precision : str
        How weights are stored: "fp32", "fp16" or "int8".
    profile : str
        The client that the graphs are for; the recogniser opens all.
    variance_floor : float
        Is added to the variance of audio when it is normalised.
    created_by : dict
        Package name to version.
    parity : dict
        Language to what its verification measured.
    runner : str, optional
        Path of the graph of mode "switch", which takes masked weights as
        inputs.
    change : dict
        Language to how logits and text differ from those of the model in
        fp32, and its error rates where there were transcripts.
    folder : Path, optional
        Where the bundle lies; not written.

    Example
    -------
    >>> entry = BundleLanguage("m", "t", ["m", "t"])
    >>> Bundle({"zh-CN": entry, "es": entry}, {}).language("zh")
    'zh-CN'
    """

    languages: dict[str, BundleLanguage]
    files: dict[str, dict[str, Any]]
    encoder: dict[str, str] = field(default_factory=dict)
    sample_rate: int = 16000
    normalize: bool = True
    min_samples: int = 400
    hop: int = 320
    layout: str = "standalone"
    precision: str = "fp32"
    profile: str = "s3router"
    variance_floor: float = 1e-7
    created_by: dict[str, str] = field(default_factory=dict)
    parity: dict[str, Any] = field(default_factory=dict)
    runner: str | None = None
    change: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "Bundle":
        """Read a bundle's manifest, strictly; files are not hashed yet.

        Arguments
        ---------
        folder : str or path
            The bundle folder.

        Returns
        -------
        Bundle
            The manifest.

        Raises
        ------
        NotFoundError
            If there is no such folder, or it holds no manifest.
        FormatError
            If the manifest is truncated, altered, of a newer format, or names
            a path outside the folder.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not folder.is_dir():
            raise NotFoundError(f"no such bundle folder: {folder}")
        if not path.is_file():
            raise NotFoundError(
                f"{folder} is not a bundle: it has no {MANIFEST}; make one "
                f"with: s3router export SUBNETWORK... --output BUNDLE"
            )
        content = read_json(path)
        _check_version(path, content)
        try:
            bundle = cls._from_json(content)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise FormatError(
                f"{path} is not a manifest of a bundle: "
                f"{type(error).__name__} {error}"
            ) from error
        bundle.folder = folder
        bundle._check(path)
        return bundle

    @classmethod
    def _from_json(cls, content: dict[str, Any]) -> "Bundle":
        known = {f.name for f in fields(cls)} - {"folder"}
        values = {k: v for k, v in content.items() if k in known}
        values["languages"] = {
            code: BundleLanguage(**entry)
            for code, entry in values["languages"].items()
        }
        return cls(**values)

    def save(
        self, folder: str | os.PathLike, measured: Iterable[str] = ()
    ) -> None:
        """Write the manifest into a folder whose files are complete.

        Arguments
        ---------
        folder : str or path
            The bundle folder. Sizes and hashes of the files that the
            languages name are measured here.
        measured : iterable of str
            Files whose size and hash `files` has already.

        Raises
        ------
        FormatError
            If the manifest would not load again.
        NotFoundError
            If a file is missing.
        """
        folder = Path(folder)
        names = {name for e in self.languages.values() for name in e.files}
        names |= {self.runner} - {None}
        measured = set(measured)
        self.files = {
            name: self.files[name]
            if name in measured
            else {
                "sha256": sha256_file(folder / name),
                "bytes": (folder / name).stat().st_size,
            }
            for name in sorted(names)
        }
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        del content["folder"]
        # Through text, so that numpy numbers and tuples are plain by now.
        content = json.loads(to_json(content))
        content["checksum"] = _checksum(content)
        write_json(folder / MANIFEST, content)
        Bundle.load(folder).verify(names - measured)

    def verify(self, names: Iterable[str] | None = None) -> None:
        """Compare files with the sizes and hashes in the manifest.

        Arguments
        ---------
        names : iterable of str, optional
            Paths in the bundle; all files if not given.

        Raises
        ------
        NotFoundError
            If a file is missing.
        FormatError
            If a file is truncated or altered.
        """
        for name in self.files if names is None else names:
            path, stated = self.path(name), self.files[name]
            if not path.is_file():
                raise NotFoundError(f"the bundle lacks a file: {path}")
            size = path.stat().st_size
            if size != stated["bytes"]:
                raise FormatError(
                    f"{path} is truncated or altered: it has {size} bytes, "
                    f"the manifest says {stated['bytes']}"
                )
            if sha256_file(path) != stated["sha256"]:
                raise FormatError(
                    f"{path} is altered: its SHA-256 is not the manifest's"
                )

    def path(self, name: str) -> Path:
        """Return where a file of the bundle lies."""
        return self.folder / name

    def own_files(self, code: str) -> list[str]:
        """Return the files of a language that no other language names."""
        others = {
            name
            for other, entry in self.languages.items()
            if other != code
            for name in entry.files
        }
        return [n for n in self.languages[code].files if n not in others]

    def language(self, name: str | None = None) -> str:
        """Return the code of a language of the bundle, from a loose name.

        Arguments
        ---------
        name : str, optional
            A code, in any case, or its first part where only one language
            begins so: "zh" finds "zh-CN". May be left out if the bundle has
            one language.

        Returns
        -------
        str
            The code as the manifest has it.

        Raises
        ------
        SettingError
            If the language is not given, not in the bundle, or ambiguous.
        """
        return match_language(name, self.languages)

    def _check(self, path: Path) -> None:
        """Raise FormatError where the manifest contradicts itself."""
        for what, value, known in (
            ("layout", self.layout, LAYOUTS),
            ("precision", self.precision, PRECISIONS),
            ("profile", self.profile, PROFILES),
        ):
            if value not in known:
                raise FormatError(
                    f"{path}: {what} {value!r} is not known to this s3router "
                    f"(known: {', '.join(known)}); a newer one wrote it?"
                )
        if not self.languages:
            raise FormatError(f"{path} lists no languages")
        for code, entry in self.languages.items():
            if not is_language_code(code):
                raise FormatError(f"{path}: {code!r} is no language code")
            for name in {entry.model, entry.tokens, *entry.files}:
                if name not in self.files:
                    raise FormatError(
                        f"{path}: language {code} names the file {name!r}, "
                        f"which the list of files lacks"
                    )
        if self.runner is not None and self.runner not in self.files:
            raise FormatError(
                f"{path} names the file {self.runner!r}, which the list of "
                "files lacks"
            )
        for name in self.files:
            check_inside(path, name)


def _check_version(path: Path, content: Any) -> None:
    """Raise FormatError if a manifest is not one, newer, or altered."""
    if not isinstance(content, dict) or "format_version" not in content:
        raise FormatError(f"{path} is not a manifest of a bundle")
    version = content["format_version"]
    if version not in _READABLE:
        raise FormatError(
            f"{path} has format version {version!r}; this s3router reads "
            f"versions {_READABLE[0]} to {_READABLE[-1]}: install the s3router "
            "that wrote it"
        )
    if content.get("checksum") != _checksum(content):
        raise FormatError(
            f"{path} is altered: its content does not match its checksum"
        )


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a manifest without its checksum.

    It guards against slips and broken copies, not against an attacker.
    """
    rest = {key: value for key, value in content.items() if key != "checksum"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_inside(path: Path, name: str) -> None:
    """Raise FormatError if a file's path leaves the bundle.

    Arguments
    ---------
    path : pathlib.Path
        The manifest, or what else names the file.
    name : str
        The file's path in the bundle.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or {*"\\:"} & {*name}:
        raise FormatError(
            f"{path} names the file {name!r}, which is outside the bundle"
        )
