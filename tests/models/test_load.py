import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from kascade.errors import UserError
from kascade.miniature.config import MINI_CONFIGS, mini_config
from kascade.models.load import check_model_folder, load_model, load_tokenizer, resolve_source, save_model


def save_tiny(folder: Path, name: str = "mini-qwen3") -> torch.Tensor:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<eos>": 0, "a": 1}, "a")), eos_token="<eos>"
    )
    tokenizer.chat_template = "{{ messages[0].content }}"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(mini_config(name, 32, 0, None, 0))
    model.generation_config.temperature = 0.7
    model.generation_config.do_sample = True
    save_model(model, tokenizer, folder)
    weight: torch.Tensor = model.get_output_embeddings().weight.detach().clone()
    return weight


@pytest.mark.parametrize("name", MINI_CONFIGS)
def test_saved_models_come_back_whole_and_quietly(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    weight = save_tiny(tmp_path, name)
    logging.getLogger("transformers").propagate = True
    model = load_model(resolve_source(str(tmp_path)), device="cpu")
    model(input_ids=torch.tensor([[1, 1]]))
    assert torch.equal(model.get_output_embeddings().weight, weight)
    assert (model.dtype, model.training) == (torch.float32, False)
    assert model.generation_config.temperature == 0.7
    assert load_tokenizer(tmp_path).chat_template == "{{ messages[0].content }}"
    assert not [r for r in caplog.records if "falling back" in r.getMessage()]


def test_every_fault_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma2", "final_logit_softcapping": 30.0})
    )
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert "final_logit_softcapping" in text and "pickled" in text and "no tokenizer" in text


@pytest.mark.parametrize("config", [None, "{", "[]", "{}"])
def test_a_bad_config_is_named(tmp_path: Path, config: str | None) -> None:
    save_tiny(tmp_path)
    assert check_model_folder(tmp_path) == []
    (tmp_path / "config.json").unlink()
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    (fault,) = check_model_folder(tmp_path)
    assert fault.where.endswith("config.json")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "a.safetensors")
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (fault,) = check_model_folder(tmp_path)
    assert fault.where.endswith("b.safetensors")


@pytest.mark.parametrize("source", ["builtin://none", "builtin://../..", "/nowhere", "./nowhere"])
def test_unknown_sources_are_refused(source: str) -> None:
    with pytest.raises(UserError, match=r"model\.source"):
        resolve_source(source)


def test_checking_a_folder_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kascade.models.load import check_model_folder;"
        f"assert check_model_folder(Path({str(tmp_path)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
