"""Claims tasks from the queue, builds their archives, and decides how each attempt ends."""
