"""How the languages of a bundle lie in its folder.

    standalone    <language>/model.onnx, with all weights in it
    shared        <language>.onnx, with mask and head, and one backbone.bin

A layout is made with the folder, and writes one language after the other.
"""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import MismatchError, SettingError
from s3router.export.compact import compact
from s3router.export.cuts import Cuts, find_cuts
from s3router.export.decoders import DENSE
from s3router.export.encodings import AUTO, encode
from s3router.export.fold import FoldedModel, plain_model
from s3router.export.graph import build_graph, save_graph
from s3router.export.precision import choose_types, lower_graph
from s3router.export.runner import RunnerWriter
from s3router.export.shared import SharedGraph
from s3router.formats.bundle import BACKBONE
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder

Finish = Callable[[Any], None]
#: The least share of weights whose loss makes a graph over shared weights a
#: smaller one: below, indices and gathers are for next to nothing.
PAYS = 0.05
#: What says in a language's details why its graph is not smaller.
WHOLE = "whole_graph"


class Standalone:
    """Each language has a graph with all its weights.

    Arguments
    ---------
    folder : pathlib.Path
        The bundle.
    precision : str
        How weights are stored, see `s3router.export.precision`.
    encoding : str
        How weights with many zeros are stored, see `encode`.
    """

    def __init__(
        self, folder: Path, precision: str = "fp32", encoding: str = AUTO
    ) -> None:
        self._folder, self._encoding = folder, encoding
        self._precision = precision
        #: What the manifest says of the language that was written last.
        self.details: dict[str, Any] = {}

    def write(
        self,
        code: str,
        model: FoldedModel,
        subnetwork: Subnetwork,
        metadata: Mapping[str, str],
        finish: Finish,
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
        finish : callable
            Is given the onnx_ir.Model, to finish it, before it is written.

        Returns
        -------
        tuple of list of str and str
            Files in the bundle, the graph first, and where tokens go.
        """
        (self._folder / code).mkdir()
        path = self._folder / code / "model.onnx"
        types = choose_types(model.encoder.model, self._precision)
        cuts = find_cuts(model.encoder.model, subnetwork.masks)
        if cuts:
            # A copy: the whole model is what the graph is verified against.
            model = compact(copy.deepcopy(model), cuts)
        graph = build_graph(model)
        graph.metadata_props.update(metadata)
        lower_graph(graph, types)
        finish(graph)
        summary, sparse = encode(graph, self._chosen(subnetwork))
        self.details = {"encoding": summary, **cuts.describe()}
        files = save_graph(graph, path, sparse)
        names = [f"{code}/{file.name}" for file in files]
        return names, f"{code}/tokens.txt"

    def _chosen(self, subnetwork: Subnetwork) -> str:
        """Return the encoding; n:m stays plain, where TensorRT looks for it."""
        regular = ":" in str(subnetwork.config.get("pattern", ""))
        return DENSE if regular and self._encoding == AUTO else self._encoding

    def finish(self) -> None:
        """Do nothing: no file belongs to all languages."""


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
    precision : str
        As for `Standalone`.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        first: Subnetwork,
        precision: str = "fp32",
    ) -> None:
        self._folder, self._source, self._first = folder, source, first
        self._precision = precision
        self.details: dict[str, Any] = {}
        model = self._plain()
        types = choose_types(model.encoder.model, precision)
        self._graph = SharedGraph(
            model, folder, partial(lower_graph, types=types)
        )
        self._runner = RunnerWriter(self._graph)

    def _plain(self) -> FoldedModel:
        return plain_model(load_encoder(self._source), self._first)

    def write(
        self,
        code: str,
        model: FoldedModel,
        subnetwork: Subnetwork,
        metadata: Mapping[str, str],
        finish: Finish,
    ) -> tuple[list[str], str]:
        """Write the graph of a language, as `Standalone.write`."""
        name, masks = f"{code}.onnx", subnetwork.masks
        cuts, graph = self._cut(model, masks)
        if cuts:
            masks = cuts.rest(masks)
        self._graph.write(
            self._folder / name, masks, model.head, metadata, finish, graph
        )
        # The buffer that mode switch masks is of float32; its runner gives
        # logits of frames.
        ctc = subnetwork.config["task"] == "ctc"
        if ctc and not cuts and self._precision == "fp32":
            self._runner.add(code, self._folder / name)
        return [name, BACKBONE], f"{code}.tokens.txt"

    def _cut(
        self, model: FoldedModel, masks: Mapping[str, np.ndarray]
    ) -> tuple[Cuts, Any]:
        """Return what is left out of a language, and the graph without it.

        Nothing, and None, where little would be won: mode switch runs whole
        languages only.
        """
        cuts, self.details = find_cuts(model.encoder.model, masks), {}
        if cuts.share(model.encoder.model) < PAYS:
            return Cuts(), None
        try:
            graph = self._graph.gathered(self._plain(), cuts)
        except MismatchError as error:
            self.details = {WHOLE: str(error)}
            return Cuts(), None
        self.details = cuts.describe()
        return cuts, graph

    def finish(self) -> str | None:
        """Write what mode "switch" runs, after the last language.

        Returns
        -------
        str or None
            Its name in the bundle.
        """
        return self._runner.write(self._folder)


def open_layout(
    layout: str,
    folder: Path,
    source: str,
    first: Subnetwork,
    precision: str = "fp32",
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
    precision : str
        Of `PRECISIONS`.
    encoding : str
        How layout "standalone" stores weights with many zeros, see `encode`.

    Returns
    -------
    Standalone or Shared
        With `write` and `finish`.
    """
    if layout == "shared":
        return Shared(folder, source, first, precision)
    return Standalone(folder, precision, encoding)


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
        If `shared` is asked for and a subnetwork has weights of its own.
    """
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
