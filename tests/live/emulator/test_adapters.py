"""The emulated engine takes the name of a LoRA adapter for that of a model, as vLLM does, and says which it has.

Times are those of the simulator: `test_batch.py`. Read next: docs/how-to/adapters.md.
"""

import json

import pytest
from typer.testing import CliRunner

from sageserve.base.errors import ConfigError
from sageserve.cli.main import app
from sageserve.live.emulator.answers import models
from sageserve.live.emulator.requests import Refused, ServedLimits, read_chat
from sageserve.live.emulator.text import AnswerLengths

SERVED = ServedLimits("llama", 4_096, AnswerLengths(50.0, 1), adapters=("sql", "legal"))


def body(model: str) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]}).encode()


@pytest.mark.parametrize(("model", "adapter"), [("llama", -1), ("", -1), ("sql", 0), ("legal", 1)])
def test_a_request_names_an_adapter_as_its_model(model: str, adapter: int) -> None:
    assert read_chat(body(model), SERVED).adapter == adapter


def test_an_adapter_that_is_not_served_is_no_model() -> None:
    with pytest.raises(Refused, match="`math` does not exist"):
        read_chat(body("math"), SERVED)


def test_models_lists_adapters_with_their_parent() -> None:
    listed = json.loads(models(SERVED, 0))["data"]
    assert [(one["id"], one["parent"]) for one in listed] == [("llama", None), ("sql", "llama"), ("legal", "llama")]


def test_adapters_without_slots_are_refused() -> None:
    done = CliRunner().invoke(app, ["engine", "--adapter", "sql"])
    assert done.exit_code != 0
    assert "no slots for LoRA adapters" in str(done.exception) + done.output


def test_names_that_could_not_be_told_apart_are_refused() -> None:
    begin = ["engine", "--profile", "llama-3.1-8b/h100-80gb/tp1", "--adapters", "{slots: 4}", "--adapter", "sql", "--adapter"]
    for name in ("sql", "llama-3.1-8b"):
        with pytest.raises(ConfigError, match=f"'{name}' names two"):
            CliRunner().invoke(app, [*begin, name], catch_exceptions=False)
