"""Retrieval: global vectors rank, local nodes rank again, and how good that is."""
