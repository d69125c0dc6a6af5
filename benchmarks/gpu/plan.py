"""Which sections a stage has, in order of value, and how long each may take."""

from typing import NamedTuple


class Section(NamedTuple):
    """`seconds` is what it may take, `fewest` what must be left to start it, `patience` what one case may take.

    A rehearsal's cases are smaller, and so are its seconds.
    """

    name: str
    seconds: int
    fewest: int
    patience: int
    rehearsal_seconds: int = 25
    needs_libraries: bool = True


class Stage(NamedTuple):
    seconds: int
    sections: tuple[Section, ...]


ENVIRONMENT = Section("environment", 20, 5, 20, needs_libraries=False)

STAGES: dict[str, Stage] = {
    "right": Stage(
        250,
        (
            ENVIRONMENT,
            Section("compile", 110, 20, 60, 60, needs_libraries=False),
            Section("parity", 70, 20, 20, 45),
            Section("behaviour", 30, 10, 20, 40),
            Section("tests", 75, 20, 75, 60),
            Section("first_times", 30, 10, 15),
        ),
    ),
    "fast": Stage(
        400,
        (
            ENVIRONMENT,
            Section("compile", 110, 20, 60, 60, needs_libraries=False),
            Section("ceilings", 15, 5, 10, needs_libraries=False),
            Section("times", 160, 30, 25),
            Section("launches", 25, 10, 15),
            Section("memory", 20, 8, 15, 35),
            Section("training", 60, 25, 30, 60),
        ),
    ),
    "deep": Stage(
        240,
        (
            ENVIRONMENT,
            Section("sanitizer", 130, 25, 70),
            Section("counters", 90, 25, 60),
        ),
    ),
}

# What goes wrong in a rehearsal, on purpose: {stage: {section: fault}}, and the libraries of a stage that are missing.
REHEARSED_FAULTS = {
    "right": {"behaviour": "crash"},
    "fast": {"memory": "hang"},
    "deep": {"libraries": "missing"},
}
# How long the case may keep silent that a rehearsal makes hang; and what all of a rehearsal may take.
PATIENCE_WITH_A_HANG = 8
REHEARSAL_SECONDS = 230


def section_names() -> list[str]:
    return list(dict.fromkeys(section.name for stage in STAGES.values() for section in stage.sections))
