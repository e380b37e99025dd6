"""A head that is trained before the encoder is touched.

A random head sends the encoder random gradients for the first hundred steps,
which a run of a few hundred cannot afford. The head is fitted first, on the
fixed outputs of the untouched encoder, which are computed once; all methods
start from this same head.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from s3router.models.ctc_model import CTCModel

CTCLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def warm_head(
    model: CTCModel,
    features: Sequence[Tensor],
    targets: Sequence[Tensor],
    loss: CTCLoss,
    steps: int,
    learning_rate: float = 5e-3,
    batch_frames: int = 1200,
    seed: int = 0,
    progress: bool = True,
) -> float:
    """Fit the head by CTC on the outputs of the encoder as it is.

    Arguments
    ---------
    model : CTCModel
        Encoder and head, on one device.
    features : sequence of torch.Tensor
        One (time, channels) front-end output for each utterance.
    targets : sequence of torch.Tensor
        One (length,) int64 token sequence for each utterance.
    loss : callable
        ``loss(log_probs, targets, relative_frames, relative_lengths)``.
    steps : int
        Optimizer steps; 0 leaves the head as it is.
    learning_rate : float
        Peak rate of Adam, falling linearly to 0.
    batch_frames : int
        Frames in a batch.
    seed : int
        Seed of the batches.
    progress : bool
        Show a progress bar.

    Returns
    -------
    float
        Mean loss of the last tenth of the steps; nan for no steps.
    """
    if steps <= 0:
        return float("nan")
    hidden = _encode_all(model, features, progress)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    queue: list[int] = []
    for step in tqdm(
        range(steps), desc="warm head", disable=not progress, leave=False
    ):
        batch, frames = [], 0
        while frames < batch_frames and len(batch) < len(hidden):
            if not queue:
                order = torch.randperm(len(hidden), generator=generator)
                queue = order.tolist()
            batch.append(queue.pop())
            frames += len(hidden[batch[-1]])
        value = _loss(model, loss, hidden, targets, batch)
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def _loss(
    model: CTCModel,
    loss: CTCLoss,
    hidden: Sequence[Tensor],
    targets: Sequence[Tensor],
    batch: list[int],
) -> Tensor:
    device = next(model.head.parameters()).device
    x = pad_sequence([hidden[i].float() for i in batch], batch_first=True)
    y = pad_sequence([targets[i] for i in batch], batch_first=True)
    frames = torch.tensor([len(hidden[i]) for i in batch])
    lengths = torch.tensor([len(targets[i]) for i in batch])
    log_probs = model.head(x.to(device)).float().log_softmax(-1)
    return loss(
        log_probs,
        y.to(device),
        (frames / x.shape[1]).to(device),
        (lengths / y.shape[1]).to(device),
    )


@torch.no_grad()
def _encode_all(
    model: CTCModel, features: Sequence[Tensor], progress: bool
) -> list[Tensor]:
    device = next(model.head.parameters()).device
    training = model.training
    model.eval()
    outputs = []
    for feature in tqdm(
        features, desc="encode", disable=not progress, leave=False
    ):
        x = feature.float().to(device)[None]
        frames = torch.tensor([x.shape[1]], device=device)
        outputs.append(model.encoder.contextualize(x, frames)[0].half().cpu())
    model.train(training)
    return outputs
