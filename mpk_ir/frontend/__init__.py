"""From a Hugging Face checkpoint folder to a tensor graph. Needs neither transformers nor a GPU."""

from typing import TYPE_CHECKING

from .checkpoint import Checkpoint, TensorEntry, open_checkpoint
from .config import FAMILIES, ModelConfig, config_from, load_config
from .options import StepOptions
from .rope import LinearScaling, Llama3Scaling, Rope
from .tokenizer import ByteTokenizer, JsonTokenizer, Tokenizer, tokenizer
from .weights import weight_shapes

if TYPE_CHECKING:
    from .step import build_step

__all__ = [
    "FAMILIES",
    "ByteTokenizer",
    "Checkpoint",
    "JsonTokenizer",
    "LinearScaling",
    "Llama3Scaling",
    "ModelConfig",
    "Rope",
    "StepOptions",
    "TensorEntry",
    "Tokenizer",
    "build_step",
    "config_from",
    "load_config",
    "open_checkpoint",
    "tokenizer",
    "weight_shapes",
]


def __getattr__(name: str) -> object:
    """`build_step` at first use: it needs xDSL, and who has a planned program does not."""
    if name == "build_step":
        from .step import build_step

        return build_step
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
