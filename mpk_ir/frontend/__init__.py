"""From a Hugging Face checkpoint folder to a tensor graph. Needs neither transformers nor a GPU."""

from .checkpoint import Checkpoint, TensorEntry, open_checkpoint
from .config import FAMILIES, ModelConfig, config_from, load_config
from .rope import LinearScaling, Llama3Scaling, Rope
from .step import StepOptions, build_step
from .tokenizer import ByteTokenizer, JsonTokenizer, Tokenizer, tokenizer
from .weights import weight_shapes

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
