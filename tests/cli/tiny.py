"""A run that takes a second, as options; the same settings in Python are in tests/experiments/tiny.py."""

STREAM = [
    "--stream.num_tasks=2",
    "--stream.train_per_class=4",
    "--stream.valid_per_class=2",
    "--stream.test_per_class=4",
    "--stream.classes_per_task=3",
    "--threads=1",
]
OPTIONS = [*STREAM, "--training.epochs=3", "--search.first_task=search", "--search.commit_share=0.7"]
