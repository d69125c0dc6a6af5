"""The losses as pure functions of (student, teacher) tensors, each a scalar."""

import torch.nn.functional as F
from torch import Tensor


def kd(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 4.0) -> Tensor:
    """Hinton et al., 2015, of logits (n, classes): T² · KL(teacher ‖ student) of softmax(logits / T), mean over n."""
    # KL(p_t ‖ p_s) = (1/n) Σ_i Σ_c p_t (log p_t − log p_s)
    log_p_s = F.log_softmax(student_logits / temperature, dim=1)
    log_p_t = F.log_softmax(teacher_logits / temperature, dim=1)
    return F.kl_div(log_p_s, log_p_t, reduction="batchmean", log_target=True) * temperature**2
