"""A native CPU kernel as an operation of torch, so that autograd, torch.compile and counters see it as one."""

from collections.abc import Callable

import torch


def operation(name: str, schema: str | None = None) -> Callable[[Callable], torch._ops.OpOverload]:
    """Make `torch.ops.stretchysnake.<name>` of a function of tensors that changes none of them.

    schema, as in torch.library.define, is needed where the function's signature does not give it.
    The same as torch.library.custom_op, whose first call on a CPU imports torch._dynamo, 1.2 s of every start.
    """

    def register(function: Callable) -> torch._ops.OpOverload:
        full = f"stretchysnake::{name}"
        arguments = schema or torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full, arguments, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(full, "cpu", function)
        return getattr(torch.ops.stretchysnake, name).default

    return register


def constant_when_compiled(function: Callable) -> Callable:
    """Let torch.compile take what a function returns once for always.

    Sets what torch.compiler.assume_constant_result sets, without importing torch._dynamo.
    """
    function._dynamo_marked_constant = True
    return function


@constant_when_compiled
def is_exporting() -> bool:
    """Whether torch.export traces; torch 2.11's Dynamo takes torch's own answer for true whenever it compiles."""
    return torch.compiler.is_exporting()
