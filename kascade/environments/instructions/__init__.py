"""All verifiable instructions: IFEval's, those that NeMo-Gym adds, and IFBench's."""

from importlib import import_module

from kascade.environments.instructions.registry import INSTRUCTIONS, Instruction

for _part in ("ifeval", "iftrain", "ifbench_words", "ifbench_sentences", "ifbench_custom"):
    import_module(f"{__name__}.{_part}")  # registers its instructions

__all__ = ["INSTRUCTIONS", "Instruction"]
