"""Mamba-2 (arXiv 2405.21060) on plain tensors: whole prompts by chunks, then one token at a time."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kascade.models.products import linear
from kascade.models.projections import base_of, weight_of
from kascade.models.ssm import scan


class MambaStore:
    """What the rows of one layer carry along: the convolution's last inputs and the recurrent state.

    windows: K - 1 tensors [rows, channels], the oldest at `oldest` (the phase is the same for all rows).
    states: [rows, G, N, H P / G], the layout in which decay, update and read-out run over contiguous memory.
    """

    def __init__(self, rows: int, mixer: Any, device: torch.device, *, static: bool = False) -> None:
        """static: windows are shifted, not gone round, so that every step uses the same memory alike."""
        self._static = static
        inner, groups = mixer.intermediate_size, mixer.n_groups
        self.states = torch.empty(rows, groups, mixer.ssm_state_size, inner // groups, device=device)
        taps, dtype = mixer.conv_kernel_size, base_of(mixer.in_proj).weight.dtype
        self.windows = [
            torch.empty(rows, mixer.conv_dim, device=device, dtype=dtype) for _ in range(taps - 1)
        ]
        self.oldest = 0

    def tensors(self) -> list[Tensor]:
        return [self.states, *self.windows]

    def push(self, inputs: Tensor) -> None:
        """Each row's newest inputs [n, channels] take the place of its oldest."""
        rows = len(inputs)
        if self._static:
            for older, newer in pairwise(self.windows):
                older[:rows] = newer[:rows]
            self.windows[-1][:rows] = inputs
        else:
            self.windows[self.oldest][:rows] = inputs
            self.oldest = (self.oldest + 1) % len(self.windows)

    def put(self, rows: Tensor, window: Tensor, state: Tensor) -> None:
        """Start rows [R] from prompts: last inputs [R, K - 1, channels], states [R, G, N, H P / G]."""
        self.states[rows] = state
        for i in range(len(self.windows)):
            self.windows[(self.oldest + i) % len(self.windows)][rows] = window[:, i]


class MambaMixer:
    """A layer's mixer. `step` and `prefill` compute what it does in training, time-step limit included
    (transformers' own decode omits that limit, so its `generate` drifts from its `forward` where it bites).
    """

    def __init__(self, mixer: Any) -> None:
        self._mixer = mixer
        self._in, self._out = weight_of(mixer.in_proj), weight_of(mixer.out_proj)
        self._decay_rate = -mixer.A_log.detach().float().exp()
        self._dt_bias = mixer.dt_bias.detach()
        self._taps = mixer.conv1d.weight.detach().squeeze(1).T.contiguous()  # [K, channels]
        self._conv_bias = None if mixer.conv1d.bias is None else mixer.conv1d.bias.detach()
        self._skip = mixer.D.detach().float().repeat_interleave(mixer.head_dim)
        self._scale = mixer.norm.weight.detach()
        self._inner, self._groups, self._heads = mixer.intermediate_size, mixer.n_groups, mixer.num_heads
        self._width, self._state_size = mixer.head_dim, mixer.ssm_state_size
        low, high = mixer.time_step_limit
        self._limit = None if low <= 0 and high == float("inf") else (low, high)

    def step(self, h: Tensor, store: MambaStore) -> Tensor:
        """Normed inputs h [n, H] of one more token of each row; store is updated in place."""
        rows = len(h)
        gate, mixed, dt = self._project(h)
        u, B, C = self._split(self._convolve_step(mixed, store))
        dt = self._time_steps(dt)
        decay = (dt * self._decay_rate).exp_()
        # Spread over the head's width, so that decay and update are one pass over contiguous memory.
        decay = decay[..., None].expand(rows, self._heads, self._width).reshape(rows, self._groups, 1, -1)
        added = (u.view(rows, self._heads, -1) * dt[..., None]).view(rows, self._groups, 1, -1)
        state = store.states[:rows]
        state.mul_(decay).addcmul_(B.reshape(rows, self._groups, -1, 1).float(), added)
        read = torch.bmm(C.reshape(rows * self._groups, 1, -1).float(), state.flatten(0, 1)).view(rows, -1)
        return self._finish(read, u, gate)

    def prefill(self, h: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normed prompts h [P, L, H], padded on the right to `lengths` [P] tokens.

        Returns outputs [P, L, H], the convolution's last inputs [P, K - 1, channels] and the state after
        each prompt's last token [P, G, N, H P / G].
        """
        longest = h.shape[1]
        gate, mixed, dt = self._project(h)
        taps = len(self._taps)
        padded = F.pad(mixed, (0, 0, taps - 1, 0))
        last = lengths[:, None] + torch.arange(taps - 1, device=h.device)
        # In the padded input token t is at t + taps - 1, so these are the last inputs of each prompt.
        window = padded.gather(1, last[..., None].expand(-1, -1, padded.shape[-1]))
        mixed = self._bias_and_newest(mixed)
        # A depthwise convolution of few taps: a pass per tap is faster than conv1d on a CPU.
        for i in range(taps - 1):
            mixed.addcmul_(padded[:, i : i + longest], self._taps[i])
        u, B, C = (part.float() for part in self._split(F.silu(mixed, inplace=True)))
        # padding has no duration: it neither decays the state nor adds to it
        inside = torch.arange(longest, device=h.device) < lengths[:, None]
        dt = self._time_steps(dt) * inside[..., None]
        read, state = self._scan((u, B, C), dt)
        return self._finish(read, u, gate), window, state

    def _scan(self, mixed: tuple[Tensor, Tensor, Tensor], dt: Tensor) -> tuple[Tensor, Tensor]:
        """The recurrence over [P, L, ...]: read-outs [P, L, inner] and final states."""
        u, B, C = (
            x.unflatten(-1, (parts, -1))  # type: ignore[no-untyped-call]
            for x, parts in zip(mixed, (self._heads, self._groups, self._groups), strict=True)
        )
        read, state = scan(u, dt, self._decay_rate, B, C, state=None)
        return read.flatten(2), state

    def _project(self, h: Tensor) -> tuple[Tensor, ...]:
        projected = linear(h, self._in)
        return torch.split(
            projected, [self._inner, projected.shape[-1] - self._inner - self._heads, self._heads], -1
        )

    def _split(self, mixed: Tensor) -> tuple[Tensor, ...]:
        states = self._groups * self._state_size
        return torch.split(mixed, [self._inner, states, states], dim=-1)

    def _time_steps(self, dt: Tensor) -> Tensor:
        steps = F.softplus((dt + self._dt_bias).float())
        return steps if self._limit is None else steps.clamp_(*self._limit)

    def _bias_and_newest(self, mixed: Tensor) -> Tensor:
        if self._conv_bias is None:
            return mixed * self._taps[-1]  # type: ignore[no-any-return]
        return torch.addcmul(self._conv_bias, mixed, self._taps[-1])

    def _convolve_step(self, mixed: Tensor, store: MambaStore) -> Tensor:
        windows, rows = store.windows, len(mixed)
        out = self._bias_and_newest(mixed)
        for i in range(len(windows)):
            out.addcmul_(windows[(store.oldest + i) % len(windows)][:rows], self._taps[i])
        store.push(mixed)
        return F.silu(out, inplace=True)

    def _finish(self, read: Tensor, u: Tensor, gate: Tensor) -> Tensor:
        y = torch.addcmul(read, u.float(), self._skip).mul_(F.silu(gate.float()))
        grouped = y.unflatten(-1, (self._groups, -1))  # type: ignore[no-untyped-call]
        y = scale_to_unit(grouped, self._mixer.norm.variance_epsilon).flatten(-2).to(gate.dtype)
        return linear(y.mul_(self._scale), self._out)


def scale_to_unit(x: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean of x² over the last dimension + epsilon), in fewer passes than F.rms_norm on a CPU."""
    if x.is_cuda:
        return F.rms_norm(x, x.shape[-1:], eps=epsilon)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(_constant(epsilon), length, length, value=1 / x.shape[-1]).rsqrt_() * x


@cache
def _constant(value: float) -> Tensor:
    return torch.tensor(value)
