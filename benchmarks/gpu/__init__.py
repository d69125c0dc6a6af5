"""The parts of gpu_day.py: a plan of sections, a driver that runs each in a process of its own, and their report.

Nothing in `plan`, `driver`, `process`, `results` and `libraries` imports torch: they outlive whatever a section does.
"""
