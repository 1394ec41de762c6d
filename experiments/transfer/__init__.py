"""Does transport help across domains: methods over shifts and severities on the same episodes."""
