"""A conversation of three turns: the environment plays the user, and rewards every answer with the letter."""

from __future__ import annotations

import random

import verifiers.v1 as vf


class MoreData(vf.TaskData):
    follow_ups: list[str]


class MoreTask(vf.Task[MoreData, vf.State, vf.TaskConfig]):
    pass


class MoreConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()


class MoreEnv(vf.Env[MoreConfig]):
    async def run(self, task, agents):
        right = 0
        async with agents.player.interaction(task) as interaction:
            segment = await interaction.turn()
            for follow_up in [*task.data.follow_ups, None]:
                if segment.terminated:
                    break
                right += "a" in segment.last_reply.split()
                if follow_up is not None:
                    segment = await interaction.turn(follow_up)
        interaction.trace.record_reward("right", right / 3)


class MoreTaskset(vf.Taskset[MoreTask, vf.TasksetConfig]):
    def load(self):
        rng = random.Random(1)
        for _ in range(64):
            lines = [" ".join(rng.choices("abcdefgh", k=3)) for _ in range(3)]
            data = MoreData(prompt=lines[0], system_prompt="b c", follow_ups=lines[1:])
            yield MoreTask(data, self.config.task)


__all__ = ["MoreEnv", "MoreTaskset"]
