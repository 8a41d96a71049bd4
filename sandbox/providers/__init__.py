"""Plugins of our own for the Pulumi engine, for where the real ones cannot be downloaded.

The engine finds them on PATH, by the names of the real ones. They know what the program uses, and no more: whatever
else it asks for is an error that names it.
"""
