"""Masks under autocast, checkpointing, torch.compile and DDP."""

import copy
import os
import socket
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from speech_models import make_audio, make_encoder, output, train
from torch.nn.parallel import DistributedDataParallel

from s3router.masks.router import Router, apply_masks


def gradients(router) -> dict:
    return {n: s.grad.clone() for n, s in router.scores().items()}


def backward(router, encoder, audio):
    for score in router.scores().values():
        score.grad = None
    hidden = output(encoder, audio)
    hidden.square().sum().backward()
    return hidden.detach(), gradients(router)


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_autocast_is_that_of_the_masked_weights(family):
    audio = make_audio()
    encoder, plain = make_encoder(family), make_encoder(family)
    router = Router(encoder, "all", 0.3)
    apply_masks(plain, router.masks())
    with torch.autocast("cpu", torch.bfloat16):
        hidden, expected = output(encoder, audio), output(plain, audio)
    assert torch.equal(hidden, expected)
    hidden.float().square().sum().backward()
    expected.float().square().sum().backward()
    for name, score in router.scores().items():
        assert score.grad.dtype == torch.float32
        linear = encoder.get_submodule(name)
        weight = linear.parametrizations.weight.original
        gradient = plain.get_submodule(name).weight.grad
        torch.testing.assert_close(
            score.grad, score.detach().sign() * weight * gradient
        )
    router.refresh()


# WavLM with reentrant checkpoints hangs in transformers, masks or not.
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "family, reentrant",
    [("wav2vec2", False), ("wav2vec2", True), ("wavlm", False)],
)
def test_gradient_checkpointing_changes_nothing(family, reentrant):
    encoder = make_encoder(family).train()
    router = Router(encoder, "all", 0.3)
    hidden, wanted = backward(router, encoder, make_audio())
    encoder.gradient_checkpointing_enable({"use_reentrant": reentrant})
    # Reentrant checkpoints need an input with a gradient.
    hook = encoder.feature_projection.register_forward_hook(
        lambda module, inputs, out: (out[0].requires_grad_(), *out[1:])
    )
    again, found = backward(router, encoder, make_audio())
    hook.remove()
    torch.testing.assert_close(again, hidden)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name])


@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_compile_of_a_layer_has_no_graph_break(pattern):
    encoder = make_encoder()
    router = Router(encoder, "all", 0.5, pattern=pattern)
    layer = encoder.encoder.layers[0].feed_forward
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    hidden = torch.randn(2, 5, 32)
    for _ in range(2):
        torch.testing.assert_close(compiled(hidden), layer(hidden))
        with torch.no_grad():
            for score in router.scores().values():
                score.copy_(score.flip(0))
        assert router.refresh() > 0


@pytest.mark.slow
def test_compile_of_an_encoder_keeps_its_graphs_over_refreshes():
    torch._dynamo.reset()
    encoder = make_encoder()
    encoder.freeze_feature_encoder()
    eager = copy.deepcopy(encoder)
    router, other = Router(encoder, "all", 0.3), Router(eager, "all", 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(encoder, backend="aot_eager")
        counter = torch._dynamo.utils.counters["stats"]
        counter.clear()
        graphs = []
        for _ in range(3):
            train(router, compiled, 1)
            graphs.append(counter["unique_graphs"])
    assert graphs[0] == graphs[1] == graphs[2] > 0
    train(other, eager, 1)
    # Adam's state starts anew in each call of train, so three single steps.
    train(other, eager, 1)
    train(other, eager, 1)
    for name, mask in router.masks().items():
        assert (mask != other.masks()[name]).float().mean() < 0.01
    torch._dynamo.reset()


def _rank(rank: int, port: int, folder: str) -> None:
    """Be one of two processes: train on different audio, save the state."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    encoder = make_encoder()
    encoder.freeze_feature_encoder()
    router = Router(encoder, "all", 0.3)
    wrapped = DistributedDataParallel(encoder)
    optimizer = torch.optim.Adam(router.scores().values(), lr=0.02)
    audio = make_audio(4)[2 * rank : 2 * rank + 2]
    for step in range(1, 4):
        optimizer.zero_grad()
        wrapped(audio).last_hidden_state.square().mean().backward()
        optimizer.step()
        router.refresh(step)
    torch.save(router.state_dict(), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_masks_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_rank, (port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{r}.pt") for r in (0, 1))
    for name in first:
        assert torch.equal(first[name], second[name]), name

    encoder = make_encoder()
    router = Router(encoder, "all", 0.3)
    optimizer = torch.optim.Adam(router.scores().values(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        output(encoder, make_audio(4)).square().mean().backward()
        optimizer.step()
        router.refresh()
    for name, mask in router.masks().items():
        assert (mask != first[f"masks.{name}"]).float().mean() < 0.01
