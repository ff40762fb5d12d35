"""Review of labels by people: ranked questions, a Streamlit page, and the answers."""
