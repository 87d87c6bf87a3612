"""What a posterior predicts, and where its uncertainty comes from."""
