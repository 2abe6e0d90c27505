"""Learn three tasks of handwritten digits, see what each transfers, and what the later ones did to the first."""

import lasem

stream = lasem.DigitsReader(num_tasks=3).open(seed=0)
net = lasem.for_images(stream[0].image_shape)
learner = lasem.Learner(net, training=lasem.TrainingConfig(epochs=10), seed=0)

for task in stream:
    record = learner.learn(task)
    print(
        f"{task.name}: classes {', '.join(task.classes)}; {record.configuration} after {record.best_epoch} epochs, ",
        end="",
    )
    print(f"test accuracy {record.peak_accuracy:.3f}, {record.parameters_added} parameters of its own")

for task in stream:
    print(f"{task.name} now: {learner.accuracy(task.name, task.test):.3f}")
