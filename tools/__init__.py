"""Tools for developers: the prose check and the generated pages of the docs site."""
