from phototag.metrics.metrics import kept_epoch


def test_best_epoch_is_the_recorded_one() -> None:
    history = [
        {"epoch": 1, "val_loss": 0.2, "kept": 1},
        {"epoch": 2, "val_loss": 0.4, "kept": 2},
        {"epoch": 3, "val_loss": 0.3, "kept": 2},
    ]
    assert kept_epoch(history) == history[1]
    older = [{"epoch": record["epoch"], "val_loss": record["val_loss"]} for record in history]
    assert kept_epoch(older) == older[0]
