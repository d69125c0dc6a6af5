import sys

from itrd_distill.stopping import advice, stoppable


def main() -> None:
    # Before PyTorch is imported, which takes seconds.
    with stoppable(advice(sys.argv[1:])):
        from itrd_distill.cli import main

        main()


if __name__ == "__main__":
    main()
