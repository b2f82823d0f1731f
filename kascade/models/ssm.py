"""The state-space recurrence of Mamba-2 in chunks, from and to a given state."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64  # tokens; within a chunk the work is quadratic, between chunks there is one state


def scan(
    u: Tensor, dt: Tensor, rate: Tensor, write: Tensor, read: Tensor, *, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """y_t = C_t h_t with h_t = exp(dt_t rate) h_{t-1} + B_t (dt_t u_t). (arXiv 2405.21060 §6, Listing 1)

    u: [R, T, heads, P]; dt: [R, T, heads], 0 where a token has no effect (padding); rate: [heads], negative;
    write, read: B and C, [R, T, G, N]; state: h before, [R, G, N, heads P / G], or None for zeros.
    Returns y [R, T, heads, P] and the last state.
    """
    outputs = []
    for start in range(0, u.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        y, state = _chunk(u[:, part], dt[:, part], rate, write[:, part], read[:, part], state=state)
        outputs.append(y)
    assert state is not None
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)), state


def _chunk(
    u: Tensor, dt: Tensor, rate: Tensor, write: Tensor, read: Tensor, *, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows, length, heads, width = u.shape
    groups, per_group = write.shape[2], heads // write.shape[2]
    total = (dt * rate).cumsum(1)  # [R, T, heads]: log of the decay since the chunk's begin
    pushed = u * dt[..., None]
    by_head = total.transpose(1, 2)
    # log of the decay between two tokens; what is ahead is cut off below
    between = (by_head[..., :, None] - by_head[..., None, :]).clamp(max=0.0).exp()
    write, read = write.transpose(1, 2), read.transpose(1, 2)  # [R, G, T, N]
    # Within the chunk: attention-like, y_t = sum over s <= t of (C_t B_s) decay(s, t) dt_s u_s.
    alike = (read @ write.transpose(2, 3)).tril()
    seen = between.view(rows, groups, per_group, length, length) * alike[:, :, None]
    y = (seen.view(rows, heads, length, length) @ pushed.transpose(1, 2)).transpose(1, 2)
    # What each token leaves in the state at the chunk's end.
    left = (total[:, -1:] - total).exp()
    added = write.transpose(2, 3) @ _by_group(pushed * left[..., None], groups)
    if state is None:
        return y, added
    # What the state from before adds, decayed up to each token.
    from_state = (read @ state).transpose(1, 2).reshape(rows, length, heads, width)
    y = y + from_state * total.exp()[..., None]
    kept = total[:, -1].exp().view(rows, groups, 1, per_group, 1)
    return y, (state.view(rows, groups, -1, per_group, width) * kept).flatten(3) + added


def _by_group(x: Tensor, groups: int) -> Tensor:
    """[R, T, heads, P] to [R, G, T, heads P / G]."""
    return x.reshape(*x.shape[:2], groups, -1).transpose(1, 2)
