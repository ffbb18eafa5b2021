"""What a trained model can be asked, one module a question, and files of questions answered row by row."""
