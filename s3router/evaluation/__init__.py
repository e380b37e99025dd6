"""Error rates, their uncertainty, results as JSON, and tables made of them."""
