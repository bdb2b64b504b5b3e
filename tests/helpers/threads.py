"""Inference from several threads at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ['predict_in_threads']


def predict_in_threads(predict, inputs, threads=4):
    """Predictions of ``threads`` threads for all inputs, at the same time.

    Args:
        predict (Callable): From an input to its prediction.
        inputs (Sequence): Each thread begins at another one.
        threads (int): Defaults to 4.

    Returns:
        list[list]: For each thread the predictions, in the order of the inputs.
    """
    together = threading.Barrier(threads)

    def visit(number):
        first = number * len(inputs) // threads
        predictions = [None] * len(inputs)
        together.wait()
        for place in [*range(first, len(inputs)), *range(first)]:
            predictions[place] = predict(inputs[place])
        return predictions

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(visit, range(threads)))
