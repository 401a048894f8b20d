"""Fine-tuning on GLUE, IMDb and SQuAD: tasks, features, training and official metrics."""
