"""A real vLLM on this machine's CPU: a tiny Llama with random weights, made here, served by a `vllm` program from elsewhere.

Its model is 12 M parameters in float32: an iteration takes some 15 ms on one core, long enough that the client's own
millisecond does not matter. Read next: `test_real_vllm.py`.
"""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MODEL: Final = "tiny"
SEQUENCES: Final = 8
BATCHED: Final = 512
START_S: Final = 240.0
_VOCABULARY: Final = 4096
_CONFIG: Final = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 384,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": _VOCABULARY,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "torch_dtype": "float32",
    "tie_word_embeddings": True,
    "bos_token_id": _VOCABULARY - 2,
    "eos_token_id": _VOCABULARY - 1,
}
_TEMPLATE: Final = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\\n' }}{% endfor %}assistant: "


def write_model(folder: Path) -> None:
    """config.json and a tokenizer of single bytes and filler words; weights are vLLM's dummies."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {character: number for number, character in enumerate(_byte_characters())}
    vocabulary |= {f"<w{number}>": number for number in range(len(vocabulary), _VOCABULARY - 2)}
    special = {"<s>": _VOCABULARY - 2, "</s>": _VOCABULARY - 1}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": text, **flags} for text, number in special.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary | special, "merges": []},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 4096,
        "chat_template": _TEMPLATE,
    }
    for name, content in (("config", _CONFIG), ("tokenizer", tokenizer), ("tokenizer_config", settings)):
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")


def _byte_characters() -> list[str]:
    """The printable character that stands for each byte in byte-level vocabularies, in the order of code points."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(code) for code in sorted([*plain, *range(256, 256 + 256 - len(plain))])]


@contextmanager
def vllm(program: str, folder: Path, port: int, *options: str) -> Iterator[str]:
    """Serve the tiny model with this `vllm` program on one core until the block ends; gives the URL.

    Raises:
        AssertionError: it does not answer in time; the log is in `folder`.
    """
    write_model(folder / "model")
    limits = ["--max-model-len", "2048", "--max-num-seqs", str(SEQUENCES), "--max-num-batched-tokens", str(BATCHED)]
    where = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL]
    how = ["--load-format", "dummy", "--dtype", "float32", "--enforce-eager", "--num-gpu-blocks-override", "512"]
    environment = {
        **os.environ,  # noqa: TID251  # the program is somebody else's and finds itself by PATH and HOME
        **dict.fromkeys(("HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "OMP_NUM_THREADS", "VLLM_CPU_KVCACHE_SPACE"), "1"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_HOST_IP": "127.0.0.1",
    }
    core = str(max(os.sched_getaffinity(0)))  # one core: with several, timing depends on who else runs
    command = ["taskset", "-c", core, program, "serve", str(folder / "model"), *where, *limits, *how, *options]
    with (folder / "vllm.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{port}"
            _await(url, process, folder / "vllm.log")
            yield url
        finally:
            process.terminate()
            process.wait(60)


def _await(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.perf_counter() + START_S
    while time.perf_counter() < until:
        assert process.poll() is None, log.read_text("utf-8", "replace")[-2000:]
        try:
            with urllib.request.urlopen(url + "/health", timeout=2):  # noqa: S310  # http on loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"vLLM did not answer within {START_S:.0f} s: {log}")
