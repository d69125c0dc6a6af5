from itrd_distill.cli import main

main()
