"""A head that is trained before the encoder is touched.

A random head sends the encoder random gradients for the first hundred steps,
which a run of a few hundred cannot afford. The head is fitted first, on the
fixed outputs of the untouched encoder, which are computed once; all methods
start from this same head.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from s3router.formats.arrays_file import load_arrays, save_arrays
from s3router.models.ctc_model import CTCModel
from s3router.models.encoder_key import encoder_key

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
    reuse_folder: Path | None = None,
) -> None:
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
    reuse_folder : pathlib.Path, optional
        Where the warm head is kept, and taken from by runs whose encoder,
        clips, first head and settings are the same, to the last bit.

    Raises
    ------
    FormatError
        If a kept head cannot be read.
    """
    if steps <= 0:
        return
    settings = (steps, learning_rate, batch_frames, seed)
    path = None
    if reuse_folder is not None:
        key = _key(model, features, targets, settings)
        path = reuse_folder / f"head-{key}.safetensors"
        if path.is_file():
            model.head.load_numpy(load_arrays(path))
            return
    # What is drawn here must not change what is drawn later.
    device = next(model.head.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        _fit(model, features, targets, loss, settings, progress)
    if path is not None:
        save_arrays(path, model.head.to_numpy())


def _key(
    model: CTCModel,
    features: Sequence[Tensor],
    targets: Sequence[Tensor],
    settings: Sequence[float],
) -> str:
    """Return a short hash of all that a warm head depends on."""
    digest = hashlib.sha256(repr(settings).encode())
    digest.update(encoder_key(model.encoder).encode())
    digest.update(next(model.head.parameters()).device.type.encode())
    first = list(model.head.parameters())
    for values in [*first, *features, *targets]:
        digest.update(repr(tuple(values.shape)).encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _fit(
    model: CTCModel,
    features: Sequence[Tensor],
    targets: Sequence[Tensor],
    loss: CTCLoss,
    settings: tuple[int, float, int, int],
    progress: bool,
) -> None:
    steps, learning_rate, batch_frames, seed = settings
    hidden = _encode_all(model, features, progress)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
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
