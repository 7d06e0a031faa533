"""`python -m embedding_estimate` is the command line."""

from embedding_estimate.cli import main

if __name__ == "__main__":
    main()
