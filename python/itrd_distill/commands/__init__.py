"""What `itrd-distill` does, a module for each of its commands; cli.py reads the command line for them."""
