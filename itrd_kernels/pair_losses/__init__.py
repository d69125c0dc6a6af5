"""Losses of pairs of rows on the Gram engine (operator `gram`), one file each; CONTRIBUTING.md says how to add one.

`correlation_loss` and the plain `mutual_information_loss` have operators of their own, and are not among these.
"""
