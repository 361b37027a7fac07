"""One sync kept fresh: reader, writer, and the ledger between them."""
