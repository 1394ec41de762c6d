"""The queue of the ledger's runs for a machine with a GPU that is there for some minutes only."""
