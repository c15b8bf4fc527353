"""Where jobs run and how people look: the command line, local clusters, submission."""
