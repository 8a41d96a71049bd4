"""The runner for stacks: write the file of a new one; preview, update or check many at once."""
