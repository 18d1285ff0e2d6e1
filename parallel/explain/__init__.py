"""A result turned into an account: every term with its equation and inputs, the link that stops it, what would help."""
