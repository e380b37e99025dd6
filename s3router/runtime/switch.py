"""Mode "switch": one graph and one buffer of weights for all languages.

The graph, `switch.runner.onnx` of a bundle of layout "shared", takes as inputs
what languages differ in. The masked weights are handed over where they lie,
without a copy; to change the language is to mask them anew.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3router.errors import FormatError, SettingError
from s3router.formats.bundle import Bundle
from s3router.formats.graph_bytes import MASK_BITS
from s3router.runtime.providers import CUDA, TENSORRT, import_onnxruntime
from s3router.runtime.resident import ResidentWeights, map_file
from s3router.runtime.session import INPUT, OUTPUT
from s3router.runtime.sharing import open_shared

#: Key in the metadata of the runner: JSON that says where its inputs lie.
PLACES = "s3router.places"
_WEIGHT = ".weight"


@dataclass(frozen=True)
class Parts:
    """What a language brings to the runner.

    Arguments
    ---------
    bits : dict
        Name of a weight to its mask, uint8, packed, mapped from the file.
    head : dict
        Name of an input to its array, float32.
    """

    bits: dict[str, np.ndarray]
    head: dict[str, np.ndarray]

    @property
    def vocabulary(self) -> int | None:
        """Return how many tokens the logits are for, if the head tells."""
        bias = self.head.get("head.bias")
        return None if bias is None else len(bias)


def _why_none(bundle: Bundle) -> str:
    """Return why a bundle of layout "shared" has no runner."""
    if bundle.precision != "fp32":
        return f"it is of precision {bundle.precision}, and not fp32"
    if bundle.profile != "s3router":
        return f"it was made for {bundle.profile}"
    return "none of its languages is a mask over weights of whole shape"


class SwitchSession:
    """The runner of a bundle, and the weights of one language at a time.

    `run` may be called from several threads, but not while `load` changes the
    weights.

    Arguments
    ---------
    bundle : Bundle
        Of layout "shared".
    providers : sequence of str or str, optional
        As for `open_session`.
    threads : int, optional
        As for `open_session`.

    Raises
    ------
    SettingError
        If the bundle has no runner, or the provider cannot change weights.
    FormatError
        If the runner does not say where its inputs lie.
    """

    def __init__(
        self,
        bundle: Bundle,
        providers: Sequence[str] | str | None = None,
        threads: int | None = None,
    ) -> None:
        if bundle.runner is None:
            raise SettingError(
                "mode switch: this bundle has no graph that takes masked "
                f"weights, since {_why_none(bundle)}; use mode fold or lean"
            )
        self._bundle = bundle
        path = bundle.path(bundle.runner)
        # All files: a graph may be equal where the weights are not.
        files = [bundle.runner, *sorted(bundle.files)]
        # Held, or others could not find it.
        self._session = session = open_shared(
            bundle, files, providers, threads, "switch"
        )
        self.ort, self.provider = session.ort, session.provider
        self.metadata = session.metadata
        if self.provider == TENSORRT:
            raise SettingError(
                "mode switch does not run on tensorrt, which builds the "
                "weights into its engine: use cuda, cpu, or mode fold"
            )
        shapes = {x.name: x.shape for x in self.ort.get_inputs()}
        try:
            places = json.loads(self.metadata[PLACES])
            # Only what is listed lies inside the bundle and has a hash.
            bundle.files[places["backbone"]]
            self._languages = places["languages"]
            weights = {
                name: (offset, tuple(shapes[name]))
                for name, offset in places["weights"].items()
            }
        except (KeyError, ValueError, AttributeError) as error:
            raise FormatError(
                f"{path} does not say where its inputs lie: {error!r}"
            ) from error
        backbone = bundle.path(places["backbone"])
        self._weights = ResidentWeights(backbone, weights)
        # Over the memory of the buffer itself, where that is the device's.
        self._inputs = {
            name: self._to_device(array)
            for name, array in self._weights.arrays.items()
        }
        self._head: dict[str, Any] = {}
        self._parts: Parts | None = None

    def read(self, code: str) -> Parts:
        """Return what a language brings, without changing anything.

        Arguments
        ---------
        code : str
            Of the language, whose files were verified.

        Returns
        -------
        Parts
            For `load`.

        Raises
        ------
        SettingError
            If the language is not a mask over the shared weights.
        """
        if code not in self._languages:
            task = self._bundle.languages[code].task
            why = "its graph is smaller" if task == "ctc" else "it classifies"
            raise SettingError(
                f"mode switch: {code} is no mask over weights of whole shape "
                f"under a CTC head ({why}); use mode fold or lean for it"
            )
        file = map_file(self._bundle.path(self._bundle.languages[code].model))
        bits, head = {}, {}
        for name, (offset, *shape) in self._languages[code].items():
            count = int(np.prod(shape))
            if name.endswith(MASK_BITS):
                weight = name.removesuffix(MASK_BITS) + _WEIGHT
                bits[weight] = file[offset : offset + count]
            else:
                # A copy: floats in a graph need not lie at multiples of four.
                stored = file[offset : offset + 4 * count].copy()
                head[name] = stored.view("<f4").reshape(shape)
        return Parts(bits, head)

    def load(self, parts: Parts) -> None:
        """Change the language; nothing may run meanwhile.

        If it fails, or is interrupted, the old language is put back.

        Arguments
        ---------
        parts : Parts
            Of the language, from `read`.
        """
        before = self._parts
        try:
            self._put(parts)
        except BaseException:
            if before is not None:
                self._put(before)
            raise
        self._parts = parts

    def _put(self, parts: Parts) -> None:
        head = {
            name: self._to_device(array) for name, array in parts.head.items()
        }
        changed = self._weights.mask(parts.bits)
        if self.provider == CUDA:
            for name in changed:
                self._inputs[name].update_inplace(self._weights.arrays[name])
        self._head = head

    def run(self, input_values: np.ndarray) -> np.ndarray:
        """Return the logits of normalised audio, as `Session.run`.

        Arguments
        ---------
        input_values : np.ndarray
            (batch, samples) float32, all of one length.

        Returns
        -------
        np.ndarray
            (batch, frames, tokens) float32.
        """
        audio = import_onnxruntime().OrtValue.ortvalue_from_numpy(input_values)
        feeds = {INPUT: audio, **self._inputs, **self._head}
        return self.ort.run_with_ort_values([OUTPUT], feeds)[0].numpy()

    def _to_device(self, array: np.ndarray) -> Any:
        """Return an array as onnxruntime takes it; on the CPU, not a copy."""
        device = "cuda" if self.provider == CUDA else "cpu"
        value = import_onnxruntime().OrtValue
        return value.ortvalue_from_numpy(array, device, 0)
