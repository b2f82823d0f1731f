"""Low-rank adapters (LoRA): small matrices that a stage trains while the model's own weights stay.

Sources: [LoRA] arXiv 2106.09685, [TM] "LoRA Without Regret" (Thinking Machines, 2025).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from kascade.recipe.parts import Part, formed

Target = Annotated[str, formed(r"^[A-Za-z_][A-Za-z0-9_]*$", "a layer's name such as q_proj")]
SAME = ("rank", "alpha", "targets")  # what an adapter must share with the one that it continues


class Adapter(Part):
    """A LoRA adapter. [LoRA §4.1] Its learning rate is about ten times that of all weights. [TM]"""

    rank: PositiveInt = Field(32, description="inner size of the two matrices of a layer")
    alpha: PositiveFloat = Field(32.0, description="their product counts alpha / rank [LoRA §4.1; TM: 32]")
    targets: tuple[Target, ...] | None = Field(
        None,
        min_length=1,
        description="names of the linear layers that get one, such as q_proj; None: all that can [TM]",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="of a layer's input, in SFT alone: elsewhere models that are compared must agree, as "
        "sampler and trainer do",
    )
    at_end: Literal["keep", "merge"] = Field(
        "keep",
        description="keep: the checkpoint is the adapter and names its base, and the next stage with an "
        "adapter trains it on; merge: the checkpoint is a whole model",
    )
