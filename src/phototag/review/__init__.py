"""Review of labels by a person: ranked questions, the Streamlit page, and the answers."""
