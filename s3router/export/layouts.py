"""How the languages of a bundle lie in its folder.

    standalone    <language>/model.onnx, with all weights in it
    shared        <language>.onnx, with mask and head, and one backbone.bin

A layout is made with the folder, and writes one language after the other.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3router.errors import SettingError, one_of
from s3router.export.encodings import AUTO, encode
from s3router.export.fold import FoldedModel, plain_model
from s3router.export.graph import build_graph, save_graph
from s3router.export.shared import BACKBONE, SharedGraph
from s3router.formats.bundle import LAYOUTS
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder


class Standalone:
    """Each language has a graph with all its weights.

    Arguments
    ---------
    folder : pathlib.Path
        The bundle.
    encoding : str
        How weights with many zeros are stored, see `encode`.
    """

    def __init__(self, folder: Path, encoding: str = AUTO) -> None:
        self._folder, self._encoding = folder, encoding
        #: What the manifest says of the language that was written last.
        self.details: dict[str, Any] = {}

    def write(
        self,
        code: str,
        model: FoldedModel,
        subnetwork: Subnetwork,
        metadata: Mapping[str, str],
    ) -> tuple[list[str], str]:
        """Write the graph of a language.

        Arguments
        ---------
        code : str
            Of the language.
        model : FoldedModel
            The encoder with the subnetwork folded into it.
        subnetwork : Subnetwork
            The subnetwork.
        metadata : mapping of str to str
            What else to write into the graph.

        Returns
        -------
        tuple of list of str and str
            Files in the bundle, the graph first, and where tokens go.
        """
        (self._folder / code).mkdir()
        path = self._folder / code / "model.onnx"
        graph = build_graph(model)
        graph.metadata_props.update(metadata)
        summary, sparse = encode(graph, self._encoding)
        self.details = {"encoding": summary}
        files = save_graph(graph, path, sparse)
        names = [f"{code}/{file.name}" for file in files]
        return names, f"{code}/tokens.txt"


class Shared:
    """All languages share one file of weights.

    Arguments
    ---------
    folder : pathlib.Path
        The bundle.
    source : str
        Where the encoder is.
    first : Subnetwork
        Any of those that will be written.
    """

    def __init__(self, folder: Path, source: str, first: Subnetwork) -> None:
        self._folder = folder
        self.details: dict[str, Any] = {}
        self._graph = SharedGraph(
            plain_model(load_encoder(source), first), folder
        )

    def write(
        self,
        code: str,
        model: FoldedModel,
        subnetwork: Subnetwork,
        metadata: Mapping[str, str],
    ) -> tuple[list[str], str]:
        """Write the graph of a language, as `Standalone.write`."""
        name = f"{code}.onnx"
        self._graph.write(
            self._folder / name, subnetwork.masks, model.head, metadata
        )
        return [name, BACKBONE], f"{code}.tokens.txt"


def open_layout(
    layout: str,
    folder: Path,
    source: str,
    first: Subnetwork,
    encoding: str = AUTO,
) -> Standalone | Shared:
    """Return what writes the languages of a bundle.

    Arguments
    ---------
    layout : str
        Of `LAYOUTS`.
    folder : pathlib.Path
        The bundle.
    source : str
        Where the encoder is.
    first : Subnetwork
        Any of those that will be written.
    encoding : str
        How layout "standalone" stores weights with many zeros, see `encode`.

    Returns
    -------
    Standalone or Shared
        With `write`.
    """
    if layout == "shared":
        return Shared(folder, source, first)
    return Standalone(folder, encoding)


def choose_layout(
    layout: str | None, subnetworks: Mapping[str, Subnetwork]
) -> str:
    """Return the layout that was asked for, or that is the smallest.

    Arguments
    ---------
    layout : str, optional
        None: `shared` where all subnetworks only mask, else `standalone`.
    subnetworks : mapping of str to Subnetwork
        By a name for messages.

    Returns
    -------
    str
        Of `LAYOUTS`.

    Raises
    ------
    SettingError
        If the layout is unknown, or `shared` is asked for and a subnetwork
        has weights of its own.
    """
    if layout is not None:
        one_of(layout, LAYOUTS, "layout")
    changed = [name for name, one in subnetworks.items() if _changes(one)]
    if layout is None:
        return "standalone" if changed else "shared"
    if layout == "shared" and changed:
        raise SettingError(
            f"layout shared: {changed[0]} has weights of its own (method "
            f"{subnetworks[changed[0]].config['method']!r}), which no other "
            "language can share; leave it out, or use layout standalone"
        )
    return layout


def _changes(subnetwork: Subnetwork) -> bool:
    return bool(subnetwork.weights) or "adapter_width" in subnetwork.config
