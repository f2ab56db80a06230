"""What can be predicted: the models, what is known of them without loading any, and the predicting itself."""
