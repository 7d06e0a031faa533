"""What vectors learn from: the real prompt run by the host, its states, and how much each reading counts."""
