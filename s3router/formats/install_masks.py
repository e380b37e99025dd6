"""Reads the masks of a bundle that was sent, layer by layer.

A mask stands for itself, or against what weights or other languages say, which
has to be there before it. Nothing of a header is believed before it is
checked. Must not write files of the bundle.
"""

import os
from collections.abc import Set
from pathlib import Path
from typing import IO, Any

import numpy as np

from s3router.errors import FormatError
from s3router.formats.mask_code import (
    CODINGS,
    longest,
    magnitude_mask,
    read_mask,
)
from s3router.formats.pack_file import MOST_WEIGHTS, PackReader
from s3router.formats.pack_masks import (
    CONSENSUS,
    DTYPES,
    MAGNITUDE,
    NONE,
    read_weight,
)


class LayerMasks:
    """What masks refer to, and the masks themselves.

    Arguments
    ---------
    reader : PackReader
        Has the frames.
    folder : pathlib.Path
        Where the files of the bundle are written.
    whole : set of str
        Those that are complete; grows as others are.
    kept : binary file
        A temporary file, for reading and writing.
    """

    def __init__(
        self,
        reader: PackReader,
        folder: Path,
        whole: Set[str],
        kept: IO[bytes],
    ) -> None:
        self._reader, self._folder, self._whole = reader, folder, whole
        #: Has the packed bits of what languages agree on: in memory, a small
        #: file could ask for any amount.
        self._kept = kept
        #: By layer: size, weights, and where its consensus is kept.
        self._layers: dict[str, tuple[int, dict | None, int | None]] = {}

    def check(self, layers: Any, graphs: list[dict[str, Any]]) -> None:
        """Compare all layers with the graphs that want them.

        Each layer is of one graph at least, and as long there.

        Arguments
        ---------
        layers, graphs : iterable of dict
            Of the header.

        Raises
        ------
        FormatError
            If they are more than the graphs have room for.
        """
        number = self._reader.number
        masks = sum(-(-number(layer["size"]) // 8) for layer in layers)
        room = sum(number(entry["bytes"]) for entry in graphs)
        if masks > room:
            raise self._reader.error(
                f"masks of {masks} bytes for graphs of {room}"
            )

    def open(self, name: str, layer: dict[str, Any]) -> None:
        """Check what a layer says of itself, and read its consensus.

        Arguments
        ---------
        name : str
            Of the layer.
        layer : dict
            Of the header.

        Raises
        ------
        FormatError
            If its weights are not there, or its consensus is unsound.
        """
        size = self._reader.number(layer["size"], MOST_WEIGHTS)
        weight, consensus = layer["weight"], layer["consensus"]
        if weight is not None:
            if weight["dtype"] not in DTYPES.values():
                raise self._reader.error(f"no weights for {name}")
            self._check_place(name, weight)
            if scales := weight.get("scales"):
                self._check_place(name, scales)
                count = self._reader.number(scales["count"], size)
                if not count or size % count:
                    raise self._reader.error(f"{count} scales for {name}")
        if consensus is not None:
            consensus = self._keep(self._mask(consensus, size, weight, None))
        self._layers[name] = size, weight, consensus

    def read(self, part: dict[str, Any], most: int) -> bytes:
        """Return the next mask as the bytes of a graph.

        Arguments
        ---------
        part : dict
            Of a graph in the header.
        most : int
            Bytes that the graph has room for.

        Returns
        -------
        bytes
            Packed bits.

        Raises
        ------
        FormatError
            If it is longer, or unsound.
        """
        size, weight, consensus = self._layers[part["layer"]]
        if -(-size // 8) > most:
            raise self._reader.error("a mask is longer than its file")
        return self._mask(part, size, weight, consensus)

    def _keep(self, bits: bytes) -> int:
        """Keep packed bits for later; return where they are."""
        start = self._kept.seek(0, os.SEEK_END)
        self._kept.write(bits)
        return start

    def _check_place(self, name: str, place: dict[str, Any]) -> None:
        """Check where weights or scales lie, in a file that is there."""
        if place["file"] not in self._whole:
            raise self._reader.error(f"no weights for {name}")
        size = (self._folder / place["file"]).stat().st_size
        self._reader.number(place["offset"], size)

    def _mask(
        self,
        part: dict[str, Any],
        size: int,
        weight: dict[str, Any] | None,
        consensus: int | None,
    ) -> bytes:
        """Return a mask as the bytes of a graph."""
        reference = self._reference(part, size, weight, consensus)
        streams = []
        if len(part["streams"]) != (1 if reference is None else 2):
            raise self._reader.error("a mask has other streams")
        for coding, stored, raw in part["streams"]:
            if coding not in CODINGS:
                raise self._reader.error(f"unknown coding {coding!r}")
            most = longest(coding, size)
            streams.append((coding, self._reader.frame([stored, raw], most)))
        try:
            mask = read_mask(streams, size, reference)
        except FormatError as error:
            raise self._reader.error(str(error)) from error
        return np.packbits(mask, bitorder="little").tobytes()

    def _reference(
        self,
        part: dict[str, Any],
        size: int,
        weight: dict[str, Any] | None,
        consensus: int | None,
    ) -> np.ndarray | None:
        kind, kept = part["reference"], part["kept"]
        if kind == MAGNITUDE and weight is not None:
            values = read_weight(self._folder, weight, size)
            if len(values) == size:
                return magnitude_mask(values, self._reader.number(kept, size))
        elif kind == CONSENSUS and consensus is not None:
            self._kept.seek(consensus)
            data = np.frombuffer(self._kept.read(-(-size // 8)), np.uint8)
            bits = np.unpackbits(data, count=size, bitorder="little")
            return bits.view(np.bool_)
        elif kind == NONE:
            return None
        raise self._reader.error(f"it lacks the mask of reference {kind!r}")
