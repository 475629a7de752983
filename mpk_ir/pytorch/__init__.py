"""PyTorch as a client: modules and exported programs compiled whole, and the `mpk` backend of torch.compile."""

from .gpu_call import synchronize
from .report import REPORTS

__all__ = ["REPORTS", "synchronize"]
