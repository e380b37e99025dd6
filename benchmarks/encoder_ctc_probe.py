"""The linear CTC probe: how well a layer's frames spell what is said."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from encoder_data import SPLITS, Clip
from encoder_features import Features
from encoder_layers import frame_states
from speechbrain.nnet.losses import ctc_loss
from torch import Tensor, nn

from s3router.brains.warm_head import warm_head
from s3router.data.tokens import Tokens
from s3router.evaluation.decoding import greedy_ctc
from s3router.evaluation.error_rates import ErrorRate, error_rate
from s3router.models.ctc_model import CTCModel
from s3router.models.heads import CTCHead
from s3router.models.ssl_encoder import SSLEncoder

#: Of a CTC probe, on features of unit size; at a tenth of it 6000 steps were
#: too few.
RATE = 3e-2


class AsItIs(nn.Module):
    """Stands where an encoder would, for features that are encoded already."""

    def contextualize(self, features: Tensor, frames: Tensor) -> Tensor:
        """Return the features."""
        return features


class CTCProbe:
    """A linear CTC recogniser on one layer of a frozen encoder.

    Arguments
    ---------
    encoder : SSLEncoder
        The encoder.
    unit : str
        Of the error rate, `char` or `word`.
    splits : mapping
        `train` (the labelled draw), `dev` and `test`.
    features : mapping
        Of the clips of each split.
    tokens : Tokens
        What is recognised.
    """

    def __init__(
        self,
        encoder: SSLEncoder,
        unit: str,
        splits: Mapping[str, Sequence[Clip]],
        features: Mapping[str, Features],
        tokens: Tokens,
    ) -> None:
        self.encoder = encoder
        self.unit = unit
        self.splits = splits
        self.features = features
        self.tokens = tokens

    def dev_of_all_layers(self, steps: int) -> list[ErrorRate]:
        """Return the dev rate of each layer, from the transformer's input."""
        rates = {}
        for layer, states in self._states(None, ("train", "dev")):
            head = self._fit(states, steps)
            rates[layer] = self._rate(head, states, "dev", 0)
        return [rates[layer] for layer in sorted(rates)]

    def test(self, layer: int, choices: Sequence[int]) -> dict[str, object]:
        """Return the test rate of a layer; steps are chosen on dev."""
        ((_, states),) = self._states([layer], SPLITS)
        heads = {steps: self._fit(states, steps) for steps in choices}
        dev = {
            steps: self._rate(head, states, "dev", 0).rate
            for steps, head in heads.items()
        }
        chosen = min(dev, key=lambda steps: (dev[steps], steps))
        rate = self._rate(heads[chosen], states, "test", 10_000)
        return {
            "layer": layer,
            "dev": dev[chosen],
            "tried": {str(k): v for k, v in dev.items()},
            "chosen": {"steps": chosen},
            "test": vars(rate),
        }

    def _states(
        self, layers: list[int] | None, splits: Sequence[str]
    ) -> Iterator[tuple[int, dict[str, list[Tensor]]]]:
        """Yield (layer, split to scaled states of its clips).

        One scale for a layer, and no shift: without what all frames have in
        common, a probe hears words in the pauses of new speakers.
        """
        sets = [(self.features[s], self.splits[s]) for s in splits]
        for layer, states in frame_states(self.encoder, sets, layers):
            scale = torch.cat(states[0]).float().square().mean().sqrt() + 1e-5
            scaled = [[(x / scale).half() for x in clips] for clips in states]
            yield layer, dict(zip(splits, scaled, strict=True))

    def _fit(self, states: dict[str, list[Tensor]], steps: int) -> CTCHead:
        torch.manual_seed(0)
        head = CTCHead(self.encoder.hidden_size, len(self.tokens.symbols))
        targets = [
            torch.tensor(self.tokens.encode(c.text))
            for c in self.splits["train"]
        ]
        warm_head(
            CTCModel(AsItIs(), head),
            states["train"],
            targets,
            partial(ctc_loss, blank_index=0),
            steps,
            RATE,
            progress=False,
        )
        return head

    @torch.no_grad()
    def _rate(
        self,
        head: CTCHead,
        states: dict[str, list[Tensor]],
        split: str,
        replicates: int,
    ) -> ErrorRate:
        hypotheses = [
            self.tokens.decode(greedy_ctc(head(x.float()).numpy()))
            for x in states[split]
        ]
        references = [clip.text for clip in self.splits[split]]
        return error_rate(
            references, hypotheses, self.unit, replicates=replicates
        )
