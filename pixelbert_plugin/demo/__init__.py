"""A page in a browser on which a loaded model is asked. Gradio, an extra of the package, is imported here alone."""
