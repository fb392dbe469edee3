"""The loss scale of fp16: small gradients would be zero in it, so the loss is multiplied before the backward pass.

The scale halves when a gradient overflows (that step is skipped) and doubles after 2,000 steps without; these are the
values of torch.amp.GradScaler. It is kept in the state of the run and so in every checkpoint.
"""

FIRST_SCALE = 2.0**16
STEPS_TO_GROW = 2000
LARGEST_SCALE = 2.0**24


def after_overflow(scale: float) -> float:
    """The scale after a step whose gradient was not finite; at 1 the loss was not to blame."""
    return max(1.0, scale / 2)


def after_step(scale: float, age: int) -> tuple[float, int]:
    """(scale, steps since it changed) after a step that was done."""
    if age + 1 < STEPS_TO_GROW:
        return scale, age + 1
    return min(LARGEST_SCALE, scale * 2), 0
