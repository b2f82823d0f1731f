import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.miniature.config import mini_config
from kascade.models.logprobs import (
    TokenBatch,
    head_logprobs,
    scored_hidden,
    token_logprobs,
)
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, SamplingParams

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


@pytest.mark.parametrize(("top_k", "top_p"), [(None, 0.8), (5, 1.0), (9, 0.7)])
def test_truncated_sampling_is_scored_as_it_was_drawn(top_k: int | None, top_p: float) -> None:
    """Tokens drawn by the sampler have the log-probabilities it gave them: ratios are 1 on-policy."""
    model = tiny("mini-qwen3")
    params = SamplingParams(max_new_tokens=12, temperature=1.3, top_k=top_k, top_p=top_p)
    (samples,) = NativeEngine(model, end_ids=[63]).sample([Prompt((4, 8, 1), 6, 0)], params)
    sequences = [[4, 8, 1, *sample.token_ids] for sample in samples]
    scored = [[False] * 3 + [True] * len(sample.token_ids) for sample in samples]
    batch = TokenBatch.collate(sequences, scored, 0, share_prefixes=True)
    found = token_logprobs(model, batch, temperature=1.3, top_k=top_k, top_p=top_p)
    drawn = torch.tensor([value for sample in samples for value in sample.logprobs])
    torch.testing.assert_close(found.logprobs, drawn, atol=1e-5, rtol=0)
    whole = token_logprobs(model, batch, temperature=1.3)
    assert (found.logprobs > whole.logprobs).any()
    assert (found.entropy < whole.entropy).all()


def test_the_gradient_of_a_truncated_log_probability() -> None:
    model = tiny("mini-qwen3")
    hidden = torch.randn(7, model.config.hidden_size, requires_grad=True)
    targets = torch.randint(0, 64, (7,))
    scores = head_logprobs(model, hidden, targets, temperature=0.9, top_k=6, chunk=3).logprobs
    scores.square().sum().backward()
    found = hidden.grad
    hidden.grad = None
    logits = model.get_output_embeddings()(hidden) / 0.9
    kept = logits >= logits.topk(6).values[:, -1:]
    kept = kept.scatter(1, targets[:, None], True)  # the scored token always belongs to the support
    expected = logits.masked_fill(~kept, -torch.inf).log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
    expected.square().sum().backward()
    torch.testing.assert_close(scores, expected)
    torch.testing.assert_close(found, hidden.grad)


def test_a_first_token_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="first token"):
        TokenBatch.collate([[1, 2]], [[True, True]], pad_id=0)
    with pytest.raises(ValueError, match="own length"):
        TokenBatch.collate([[1, 2]], [[False]], pad_id=0)
