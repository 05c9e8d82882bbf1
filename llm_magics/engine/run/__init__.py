"""Requests on one context: slots, sequences, batches."""
