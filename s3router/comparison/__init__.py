"""Methods side by side: what to run, running it, and what came out."""
