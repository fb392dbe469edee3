"""What is watched while a model trains: progress, a held-out list, bad files, numbers that are not finite, memory."""
