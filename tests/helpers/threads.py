"""Many questions from several threads at once."""

import threading
from concurrent.futures import ThreadPoolExecutor

__all__ = ['ask_in_threads']


def ask_in_threads(ask, questions, threads=4):
    """Predictions of ``threads`` threads that each ask all questions, at the same time.

    Args:
        ask (Callable): From a question to its prediction.
        questions (Sequence): Each thread begins at another one.
        threads (int): Defaults to 4.

    Returns:
        list[list]: For each thread the predictions, in the order of the questions.
    """
    together = threading.Barrier(threads)

    def visit(number):
        first = number * len(questions) // threads
        answers = [None] * len(questions)
        together.wait()
        for place in [*range(first, len(questions)), *range(first)]:
            answers[place] = ask(questions[place])
        return answers

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(visit, range(threads)))
