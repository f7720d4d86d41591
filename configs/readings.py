"""What a training records beside its losses: names in metrics.jsonl, and what the log and charts call them."""

ACC, I2T_ACC = "acc", "i2t_acc"  # shares of a batch: of the first classifier, and of the nearest text
MEAN_ACC = "mean_acc"  # the mean share of the classifiers of all branches
TEXT_ACC, MLM_ACC = "text_acc", "mlm_acc"  # of the classifier on captions, and of the masked words
QUERY_ACC = "query_acc"  # of the classifier on the sets of modalities that are there, RGB aside
TEACHER_ACC = "teacher_acc"  # of the teacher's first classifier that is learnt from
IN_LOG = {
    **{ACC: "Acc", MEAN_ACC: "Acc", I2T_ACC: "I2T acc", TEXT_ACC: "Text acc", MLM_ACC: "MLM acc"},
    **{QUERY_ACC: "Query acc", TEACHER_ACC: "Teacher acc"},
}
IN_CHARTS = {
    ACC: "Accuracy of the first classifier",
    MEAN_ACC: "Accuracy, mean of the classifiers of all branches",
    I2T_ACC: "Image-to-text accuracy",
    TEXT_ACC: "Accuracy of the classifier on captions",
    MLM_ACC: "Accuracy at the masked words",
    QUERY_ACC: "Accuracy of the classifier on all sets of query modalities",
    TEACHER_ACC: "Accuracy of the teacher's classifier",
}
FIT, CHANCE = "image-to-text accuracy", "chance"  # shares of all training images, of a record of kind `fit`
