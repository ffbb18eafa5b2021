"""Where on its images an answer comes from: one method a module, by name from the registry kind `explanation`."""
