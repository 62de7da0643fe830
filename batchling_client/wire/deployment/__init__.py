"""What client and worker share about the deployment they run in: settings, Redis, advice."""
