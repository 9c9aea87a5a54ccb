"""Expert dispatch: sorted token copies against loops over the experts and grouped matmuls, on equal weights.

The router is left out: all get the same token copies. The backward pass has the gradients of x, of the routing
weights and of all expert weights.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from minim1.model.moe import dispatch_by_loop, dispatch_by_sort, top_k_router
from minim1.report.bench.harness import LIMITS, OURS, Comparison, Entry, Options, Skip, compare, gather, largest_error

CASES = ((8, 4096, 256, 512), (32, 4096, 256, 512))  # experts, tokens, hidden, width of an expert
PER_TOKEN = 2


def benchmark(options: Options) -> Iterator[Comparison]:
    """For each size the forward pass, and the forward pass with all gradients."""
    for experts, tokens, hidden, width in ((4, 64, 16, 32),) if options.quick else CASES:
        inputs, expert_ids, grad = _problem(experts, tokens, hidden, width, options)
        truths = _truth(inputs, expert_ids, grad)
        makers = {OURS: _plain(dispatch_by_sort), **PEERS}
        functions, skipped = gather({name: partial(make, inputs, expert_ids) for name, make in makers.items()})
        for which, expected in (("forward", truths[:1]), ("forward+backward", truths[1:])):
            case = {"pass": which, "experts": experts, "tokens": tokens, "hidden": hidden, "width": width}
            entries = {name: _entry(which, function, grad, expected) for name, function in functions.items()}
            yield compare(
                "experts", case, entries, ours=OURS, options=options, limit=LIMITS[options.dtype], unit="tokens",
                amount=tokens, skipped=skipped,
            )


def _problem(experts: int, tokens: int, hidden: int, width: int, options: Options):
    """(x, weights, w1, w2, w3) that want gradients, expert_ids (N, K), and the gradient of the output (N, C)."""
    random = torch.Generator(options.device).manual_seed(0)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(*shape, device=options.device, dtype=options.dtype, generator=random)

    weights, expert_ids = top_k_router(normal(tokens, experts), PER_TOKEN)
    inputs = (
        normal(tokens, hidden), weights.to(options.dtype), normal(experts, width, hidden, scale=hidden**-0.5),
        normal(experts, hidden, width, scale=width**-0.5), normal(experts, width, hidden, scale=hidden**-0.5),
    )
    return tuple(x.requires_grad_() for x in inputs), expert_ids, normal(tokens, hidden)


def _truth(inputs: tuple[Tensor, ...], expert_ids: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
    """The output and the gradients of all inputs in fp64, expert by expert, by the definition."""
    x, weights, w1, w2, w3 = doubled = tuple(t.detach().double().requires_grad_() for t in inputs)
    out = torch.zeros_like(x)
    for expert in range(len(w1)):
        share = (weights * (expert_ids == expert)).sum(1, keepdim=True)  # (N, 1), 0 for the tokens of others
        out = out + share * ((F.silu(x @ w1[expert].T) * (x @ w3[expert].T)) @ w2[expert].T)
    return out.detach(), *torch.autograd.grad(out, doubled, grad.double())


def _entry(which: str, function: tuple, grad: Tensor, expected: tuple[Tensor, ...]) -> Entry:
    call, leaves, split = function

    def forward():
        with torch.no_grad():
            return (call(),)

    def both():
        return torch.autograd.grad(call(), leaves, grad)

    if which == "forward":
        return Entry(forward, lambda result: largest_error(result, expected))
    return Entry(both, lambda result: largest_error(split(result), expected))


# ---------------------------------------------------------------- ours and the peers
# Each makes (call() -> out, its leaves, gradients of its leaves -> those of x, weights, w1, w2, w3).


def _plain(dispatch: Callable) -> Callable:
    def make(inputs, expert_ids):
        x, weights, w1, w2, w3 = inputs
        return lambda: dispatch(x, weights, expert_ids, w1, w2, w3), inputs, lambda gradients: gradients

    return make


def _hf_eager(inputs, expert_ids):
    """transformers' own module, with the loop that indexes its stacked weights (its "eager" implementation)."""
    try:
        from transformers.models.minimax.configuration_minimax import MiniMaxConfig
        from transformers.models.minimax.modeling_minimax import MiniMaxExperts
    except ImportError:
        raise Skip("transformers with MiniMax is not installed") from None
    x, weights, w1, w2, w3 = inputs
    experts, width, hidden = w1.shape
    config = MiniMaxConfig(hidden_size=hidden, intermediate_size=width, num_local_experts=experts, hidden_act="silu")
    config._experts_implementation = "eager"
    with torch.device("meta"):
        module = MiniMaxExperts(config)
    module.gate_up_proj = torch.nn.Parameter(torch.cat([w1, w3], dim=1).detach())
    module.down_proj = torch.nn.Parameter(w2.detach().clone())
    leaves = (x, weights, module.gate_up_proj, module.down_proj)

    def split(gradients):
        of_x, of_weights, gate_up, down = gradients
        gate, up = gate_up.chunk(2, dim=1)
        return of_x, of_weights, gate, down, up

    return lambda: module(x, expert_ids, weights), leaves, split


def _grouped(inputs, expert_ids):
    if not hasattr(F, "grouped_mm"):
        raise Skip(f"torch {torch.__version__} has no grouped_mm")
    return _plain(dispatch_by_grouped_mm)(inputs, expert_ids)


def dispatch_by_grouped_mm(x, weights, expert_ids, w1, w2, w3) -> Tensor:
    """Sorted token copies, and one grouped matmul for each of w1, w3 and w2. Same contract as `dispatch_by_sort`."""
    flat = expert_ids.flatten()
    order = flat.argsort(stable=True)
    ends = torch.bincount(flat, minlength=len(w1)).cumsum(0).to(torch.int32)
    copies = x[order // expert_ids.shape[1]]
    gate, up = (F.grouped_mm(copies, w.transpose(1, 2), offs=ends) for w in (w1, w3))
    done = F.grouped_mm(F.silu(gate) * up, w2.transpose(1, 2), offs=ends)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return (done[back].view(*expert_ids.shape, -1) * weights.unsqueeze(-1)).sum(1)


PEERS = {"loop": _plain(dispatch_by_loop), "HF eager": _hf_eager, "grouped_mm": _grouped}
