"""The commands: one module each; `arguments` and `command` are what they share."""
