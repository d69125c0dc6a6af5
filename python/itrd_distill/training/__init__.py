"""Training of a student from a frozen teacher, on Lightning."""
