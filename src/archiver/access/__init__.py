"""Which clients there are, and what each of them may do."""
