import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.models import logprobs
from kascade.models.logprobs import (
    TokenBatch,
    full_logprobs_chunks,
    head_logprobs,
    scored_hidden,
    token_logprobs,
)
from kascade.models.mini import mini_config

SEQUENCES = [[5, 9, 3, 7, 7, 2], [4, 8, 1], [6, 6, 6, 6]]
SCORED = [[False, False, True, True, False, True], [False, True, True], [False, False, False, True]]
NAMES = ["mini-nemotron-h", "mini-qwen3"]


def tiny(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(mini_config(name, 64, 0, None, 1)).eval()


def plain(model: PreTrainedModel, temperature: float) -> torch.Tensor:
    """Each sequence alone, all logits at once."""
    parts = []
    for ids, mask in zip(SEQUENCES, SCORED, strict=True):
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1] / temperature
        scores = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1)
        parts.append(scores[torch.tensor(mask[1:])])
    return torch.cat(parts)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_right_padding_and_chunks_change_neither_value_nor_gradient(name: str, temperature: float) -> None:
    model = tiny(name)
    batch = TokenBatch.collate(SEQUENCES, SCORED, pad_id=0)
    scores = head_logprobs(
        model, scored_hidden(model, batch), batch.targets, temperature=temperature, chunk=2
    )
    scores.logprobs.square().sum().backward()
    grads = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = plain(model, temperature)
    expected.square().sum().backward()
    torch.testing.assert_close(scores.logprobs, expected, atol=1e-5, rtol=0)
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(grads[key] / scale, parameter.grad / scale, atol=2e-5, rtol=0)


def test_entropy_is_that_of_the_whole_distribution() -> None:
    model = tiny("mini-qwen3")
    batch = TokenBatch.collate(SEQUENCES, SCORED, pad_id=0)
    logits = model.get_output_embeddings()(scored_hidden(model, batch))
    expected = torch.distributions.Categorical(logits=logits).entropy()
    scores = token_logprobs(model, batch)
    torch.testing.assert_close(scores.entropy, expected, atol=1e-5, rtol=0)
    assert not scores.entropy.requires_grad


def test_full_chunks_agree_with_the_token_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "MAX_CHUNK_ELEMENTS", 128)  # two rows of 64 logits
    student, teacher = tiny("mini-qwen3"), tiny("mini-nemotron-h")
    batch = TokenBatch.collate(SEQUENCES, SCORED, pad_id=0)
    hidden, teacher_hidden = scored_hidden(student, batch), scored_hidden(teacher, batch)
    parts = list(full_logprobs_chunks(student, hidden, teacher, teacher_hidden))
    assert [part.stop - part.start for part, _, _ in parts] == [2, 2, 2]
    ours, theirs = (torch.cat([p[i] for p in parts]) for i in (1, 2))
    targets = batch.targets[:, None]
    torch.testing.assert_close(ours.gather(1, targets)[:, 0], token_logprobs(student, batch).logprobs)
    torch.testing.assert_close(theirs.gather(1, targets)[:, 0], token_logprobs(teacher, batch).logprobs)
    assert ours.requires_grad and not theirs.requires_grad


def test_a_first_token_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="first token"):
        TokenBatch.collate([[1, 2]], [[True, True]], pad_id=0)
    with pytest.raises(ValueError, match="own length"):
        TokenBatch.collate([[1, 2]], [[False]], pad_id=0)
