"""Many stacks at once: previews and updates in parallel, and the file of a new one."""
