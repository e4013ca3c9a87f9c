"""What is shipped beside the code: pipeline profiles."""
