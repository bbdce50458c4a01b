"""Where and how stages run: a session on a cluster, and what a person sees of it."""
