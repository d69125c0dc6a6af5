"""A GPU whose driver does nothing: what a step costs the host, measured where there is no GPU."""
