"""`python -m codi_lens`: the command line."""

from codi_lens.cli.main import main

if __name__ == "__main__":
    main()
