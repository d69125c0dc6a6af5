"""Which sections a stage has, in order of value, and how long each may take."""

from typing import NamedTuple

# The fused backends of a GPU, in the order in which "auto" prefers them.
FUSED = ("triton", "cuda")


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
        280,
        (
            ENVIRONMENT,
            Section("compile", 105, 20, 80, 60, needs_libraries=False),
            Section("parity", 65, 20, 20, 45),
            Section("behaviour", 45, 12, 30, 40),
            Section("first_times", 20, 8, 15),
            Section("tests", 75, 15, 75, 60),
        ),
    ),
    "fast": Stage(
        400,
        (
            ENVIRONMENT,
            Section("compile", 100, 20, 80, 60, needs_libraries=False),
            Section("ceilings", 12, 5, 10, needs_libraries=False),
            Section("times", 150, 30, 40),
            Section("pair_losses", 40, 12, 30),
            Section("launches", 35, 12, 25),
            Section("memory", 20, 8, 15, 35),
            Section("training", 60, 25, 40, 60),
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

# How often a section starts again without the case in which it died, and how many deaths cost a backend its place.
MOST_DEATHS, DEATHS_OF_A_BACKEND = 8, 3

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
