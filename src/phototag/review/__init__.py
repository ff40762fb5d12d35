"""Review of labels by people: questions in a useful order, the page, and the answers."""
