"""Train students with the ITRD loss: the companion of itrd_kernels."""
