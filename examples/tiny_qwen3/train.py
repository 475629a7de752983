"""Train the example model: `python examples/tiny_qwen3/train.py`, about two minutes on two cores.

The text is what Python itself ships: the Zen, and chapters of its reference that `help()` shows. A token is a byte.
Writes a Hugging Face checkpoint folder (bf16) beside this file and shows what the model says.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib
import io
import json
import math
import time
from pathlib import Path

import torch
from model import Sizes, TinyQwen3
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

END_OF_TEXT = 256
CHAPTERS = (
    *("assert", "booleans", "break", "class", "continue", "del", "exceptions", "for", "global", "if", "in", "integers"),
    *("lambda", "nonlocal", "numbers", "objects", "pass", "raise", "return", "truth", "while", "with"),
)
PROMPTS = ("The Zen of Python", 'The "while" statement', "Exceptions are")
STEP_TOKENS, SHORT, LONG = 1024, 256, 512
ZEN_COPIES = 3  # it is short, and what people will ask for
PEAK_RATE, FINAL_RATE, WARM_UP = 3e-3, 1.5e-4, 30


def read_corpus() -> Tensor:
    """All documents as one row of tokens, each followed by END_OF_TEXT."""
    with contextlib.redirect_stdout(io.StringIO()):  # importing `this` prints it
        zen = codecs.decode(importlib.import_module("this").s, "rot13")
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    tokens: list[int] = []
    for document in (*(zen,) * ZEN_COPIES, *(topics[name] for name in CHAPTERS)):
        tokens += [*document.strip().encode(), END_OF_TEXT]
    return torch.tensor(tokens)


def draw_windows(corpus: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """[STEP_TOKENS / length, length + 1] tokens, each row from the start of a random line, as prompts start."""
    line_ends = (corpus == ord("\n")) | (corpus == END_OF_TEXT)
    starts = torch.cat((torch.tensor([-1]), line_ends.nonzero()[:-1, 0])) + 1
    chosen = starts[torch.randint(len(starts), (STEP_TOKENS // length,), generator=generator)]
    return corpus[(chosen[:, None] + torch.arange(length + 1)) % len(corpus)]


def learning_rate(step: int, steps: int) -> float:
    """Warm-up, a third of the run at the peak, then straight down."""
    falling = FINAL_RATE + (PEAK_RATE - FINAL_RATE) * min(1.0, 1.5 * (1 - step / steps))
    return falling * min(1.0, (step + 1) / WARM_UP)


def train(model: TinyQwen3, corpus: Tensor, steps: int, generator: torch.Generator) -> None:
    """Next-token training. Most windows are short: what follows little context is the harder part."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
    began, average = time.monotonic(), math.log(model.model.sizes.vocab)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, steps)
        windows = draw_windows(corpus, SHORT if step % 4 else LONG, generator)
        loss = functional.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average = 0.95 * average + 0.05 * loss.item()
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:4d} of {steps}  loss {average:.3f}  {time.monotonic() - began:.0f} s", flush=True)


def save(model: TinyQwen3, sizes: Sizes, folder: Path) -> None:
    """Write the checkpoint folder; the model's own weights become the rounded ones."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "vocab_size": sizes.vocab,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.inner,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "head_dim": sizes.head_dim,
        "max_position_embeddings": sizes.positions,
        "rms_norm_eps": sizes.eps,
        "rope_theta": sizes.theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "eos_token_id": END_OF_TEXT,
    }
    files = {
        "config.json": config,
        "generation_config.json": {"do_sample": False, "eos_token_id": END_OF_TEXT},
        "tokenizer_config.json": {"tokenizer_class": "ByteTokenizer", "eos_token_id": END_OF_TEXT},
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")


@torch.no_grad()
def continuation(model: TinyQwen3, prompt: str, count: int) -> str:
    """``prompt`` and up to ``count`` bytes more, each the likeliest."""
    tokens = list(prompt.encode())
    for _ in range(count):
        token = int(model(torch.tensor([tokens]))[0, -1].argmax())
        if token == END_OF_TEXT:
            break
        tokens.append(token)
    return bytes(token for token in tokens if token < END_OF_TEXT).decode(errors="replace")


def main() -> None:
    """Train, save, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    sizes = Sizes()
    model, corpus = TinyQwen3(sizes), read_corpus()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(corpus):,} bytes of text")
    train(model, corpus, options.steps, torch.Generator().manual_seed(options.seed))
    save(model, sizes, options.out)
    for prompt in PROMPTS:
        print(f"\n--- {prompt}\n{continuation(model, prompt, 200)}")


if __name__ == "__main__":
    main()
