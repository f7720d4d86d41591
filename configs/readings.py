"""What a training records beside its losses: names in metrics.jsonl, and what the log and charts call them."""

ACC, I2T_ACC = "acc", "i2t_acc"  # shares of a batch: of the first classifier, and of the nearest text
IN_LOG = {ACC: "Acc", I2T_ACC: "I2T acc"}
IN_CHARTS = {ACC: "Accuracy of the first classifier", I2T_ACC: "Image-to-text accuracy"}
FIT, CHANCE = "image-to-text accuracy", "chance"  # shares of all training images, of a record of kind `fit`
