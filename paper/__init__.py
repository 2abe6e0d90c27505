"""The paper's tables and figures, from nothing: the runs of each, and its page with the published numbers."""
