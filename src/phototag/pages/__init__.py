"""What pages and figures share: their style, and the template that all pages extend."""
