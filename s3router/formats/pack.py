"""Packs a bundle into one file for sending: `s3router pack`.

Files go as they are, in frames of zstd, but for the bits of masks, which
layout "shared" has in the graph of each language: these are cut out, and
written against the mask that magnitude alone would give, against what most
languages agree on, or for themselves; whichever is smallest, layer by layer.
`install` puts the same bytes back. Needs numpy and zstandard only.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from s3router import __version__
from s3router.errors import SettingError
from s3router.formats.bundle import BACKBONE, MANIFEST, Bundle
from s3router.formats.files import sha256_file
from s3router.formats.pack_file import CHUNK, PLANES, PackWriter
from s3router.formats.pack_masks import Coded, Layer, code_masks, find_masks
from s3router.formats.pack_report import report


def pack(
    bundle: str | os.PathLike,
    output: str | os.PathLike,
    with_backbone: bool = True,
) -> dict[str, Any]:
    """Pack a bundle into one file.

    Arguments
    ---------
    bundle : str or path
        The bundle folder.
    output : str or path
        The file to write, as a rule *.s3r.
    with_backbone : bool
        False: leave out the file of weights that languages of layout
        "shared" have in common; who installs must have it.

    Returns
    -------
    dict
        "bytes" of the file, "installed" bytes of the bundle, and by language
        and for all what `pack_report.report` says.

    Raises
    ------
    NotFoundError
        If there is no bundle, or it lacks a file.
    FormatError
        If a file of the bundle is truncated or altered.
    SettingError
        If the output lies in the bundle, or nothing could be left out.
    MissingDependencyError
        If zstandard is not installed.
    """
    loaded = Bundle.load(bundle)
    loaded.verify()
    folder, output = Path(bundle), Path(output)
    if output.resolve().is_relative_to(folder.resolve()):
        raise SettingError(f"{output} lies in the bundle that is packed")
    layers = find_masks(loaded)
    shared = loaded.layout == "shared" and BACKBONE in loaded.files
    if not (with_backbone or shared):
        raise SettingError(
            f"{folder} has no file of weights that languages share: pack it "
            "with its backbone"
        )
    with tempfile.TemporaryFile(dir=_existing(output.parent)) as body:
        writer = PackWriter(body)
        masks = code_masks(loaded, layers, writer)
        left_out = [] if with_backbone else [BACKBONE]
        header = _Packing(loaded, writer, layers, masks, left_out).run()
        size = writer.write(output, header)
    return report(loaded, header, layers, masks, size)


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Packing:
    """Writes the frames of all files, and the header that tells of them."""

    def __init__(
        self,
        bundle: Bundle,
        writer: PackWriter,
        layers: Mapping[str, Layer],
        masks: Mapping[str, Mapping[str | None, Coded]],
        left_out: list[str],
    ) -> None:
        self._bundle, self._writer = bundle, writer
        self._layers, self._masks, self._left_out = layers, masks, left_out

    def run(self) -> dict[str, Any]:
        """Return the header. What others refer to comes first."""
        graphs = sorted({n for e in self._layers.values() for n in e.spans})
        names = [MANIFEST, *sorted(self._bundle.files)]
        plain = [self._plain(name) for name in names if name not in graphs]
        layers = {name: self._shared(name) for name in self._layers}
        return {
            "created_by": f"s3router {__version__}",
            "plain": plain,
            "layers": layers,
            "graphs": [self._graph(name) for name in graphs],
        }

    def _entry(self, name: str, parts: list | None) -> dict[str, Any]:
        path = self._bundle.path(name)
        entry = {
            "name": name,
            "bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        return entry if parts is None else {**entry, "parts": parts}

    def _plain(self, name: str) -> dict[str, Any]:
        if name in self._left_out:
            return self._entry(name, None)
        path, parts = self._bundle.path(name), []
        large = path.stat().st_size > CHUNK
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                parts.append(self._floats(chunk) if large else self._one(chunk))
        return self._entry(name, parts)

    def _one(self, chunk: bytes) -> dict[str, Any]:
        return {"frame": self._writer.frame(chunk, self._writer.small)}

    def _floats(self, chunk: bytes) -> dict[str, Any]:
        """Return a part of a large file, as a rule of weights.

        The bytes of exponents are much alike, those of mantissas noise: they
        are put apart, all first bytes of four, all second ones, and so on.
        """
        raw = np.frombuffer(chunk, np.uint8)
        even = raw[: len(raw) // PLANES * PLANES].reshape(-1, PLANES)
        apart = even.T.tobytes() + chunk[even.size :]
        fast = self._writer.fast
        return {"frame": self._writer.frame(apart, fast), "planes": PLANES}

    def _shared(self, name: str) -> dict[str, Any]:
        layer, coded = self._layers[name], self._masks[name].get(None)
        return {
            "size": layer.size,
            "weight": layer.weight,
            "consensus": coded and self._mask(coded),
        }

    def _graph(self, name: str) -> dict[str, Any]:
        content, parts, at = self._bundle.path(name).read_bytes(), [], 0
        spans = [
            (layer.spans[name], key)
            for key, layer in self._layers.items()
            if name in layer.spans
        ]
        for span, key in sorted(spans, key=lambda pair: pair[0].start):
            parts += self._bytes(content[at : span.start])
            mask = self._mask(self._masks[key][name])
            parts.append({"layer": key, **mask})
            at = span.stop
        return self._entry(name, parts + self._bytes(content[at:]))

    def _bytes(self, content: bytes) -> list[dict[str, Any]]:
        starts = range(0, len(content), CHUNK)
        return [self._one(content[at : at + CHUNK]) for at in starts]

    def _mask(self, coded: Coded) -> dict[str, Any]:
        return {
            "reference": coded.reference,
            "kept": coded.kept,
            "streams": [
                [s.coding, *self._writer.append(s.payload, s.raw)]
                for s in coded.streams
            ],
        }
