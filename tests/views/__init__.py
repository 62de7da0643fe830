"""What people are shown of a deployment."""
