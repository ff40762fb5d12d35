"""Decoding: read files from a folder or zip, and decode a photo's file into pixels."""
