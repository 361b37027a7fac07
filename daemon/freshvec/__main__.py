"""`python -m freshvec`."""

from freshvec.cli.entry import main

if __name__ == "__main__":  # a tokenizer's process imports this module too
    main()
