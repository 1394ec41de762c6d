"""The claims of the papers, judged by runs: the reproduction ledger."""
