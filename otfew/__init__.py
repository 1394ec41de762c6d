"""Optimal transport for few-shot and transfer learning."""
