"""Where a run's figures go while it trains: metrics.csv and TensorBoard's files."""

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from itrd_distill.lines import say


def loggers(directory: Path) -> list[Logger]:
    """Both, but for a folder that TensorBoard cannot name."""
    found: list[Logger] = [CSVLogger(directory, name="csv")]
    try:
        str(directory).encode()
    except UnicodeEncodeError:
        say(f"{directory} is no UTF-8 in this locale: TensorBoard's files are left out")
    else:
        found.append(TensorBoardLogger(directory, name="tensorboard", version=""))
    return found
