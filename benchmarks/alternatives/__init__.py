"""The same photos and network through what a user would pick instead of this project."""
