"""Fused kernels for Information Theoretic Representation Distillation (ITRD; Miles et al., BMVC 2022)."""

from itrd_kernels.backends import available_backends
from itrd_kernels.functional import ITRDTerms, correlation_loss, itrd_loss, mutual_information_loss, pkt_loss
from itrd_kernels.loss import FusedITRDLoss

__version__ = "0.1.0"

__all__ = [
    "FusedITRDLoss",
    "ITRDTerms",
    "available_backends",
    "correlation_loss",
    "itrd_loss",
    "mutual_information_loss",
    "pkt_loss",
]
