"""The steps of a batch: seal, submit, poll, collect, settle. None imports another; they meet in the store."""
