"""The pages of batches in Flower."""
