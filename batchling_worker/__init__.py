"""The workers of batchling: they group, submit and poll batches and publish results."""
