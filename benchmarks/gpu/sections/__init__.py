"""One file per section of the day, each with `cases(day)`: what it runs, and what a row of its results says."""
