"""freshvec keeps an embedding for every row of a Postgres table fresh."""

__version__ = "0.1.0"
