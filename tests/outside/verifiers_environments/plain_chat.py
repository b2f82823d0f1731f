"""A harness of verifiers that asks its model from the server's process: the built-in ones start programs."""

from __future__ import annotations

import httpx
import verifiers.v1 as vf
from verifiers.v1.dialects.chat import message_to_wire
from verifiers.v1.runtimes import ProgramResult


class PlainChatConfig(vf.HarnessConfig):
    """No settings."""


class PlainChat(vf.Harness[PlainChatConfig]):
    """One request per turn; the conversation so far is sent again each time."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(  # noqa: PLR0917 - as the base class
        self, ctx, trace, runtime, endpoint, secret, mcp_urls, data
    ):
        system, prompt = self.resolve_prompt(data)
        messages = [{"role": "system", "content": system}] if system else []
        if isinstance(prompt, str):
            messages.append({"role": "user", "content": prompt})
        else:
            messages += [message_to_wire(message) for message in prompt]
        async with httpx.AsyncClient(timeout=600) as client:
            reply = await client.post(
                f"{endpoint}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": messages},
            )
        return ProgramResult(0 if reply.status_code < 400 else 1, "", reply.text[:500])


__all__ = ["PlainChat"]
