"""What decides the result of a search, and its names in journals and records."""

from dataclasses import asdict, dataclass
from typing import Any

from projects.clip_vg_core.curriculum.reliability_file import AGREEMENT, ZERO_SHOT
from projects.clip_vg_core.curriculum.search import STRATEGIES as THRESHOLD_SEARCHES
from projects.clip_vg_core.utils.atomic import file_sha256

__all__ = ['MEASURERS', 'OTHERS', 'STRATEGIES', 'Settings']

STRATEGIES = (*THRESHOLD_SEARCHES, 'valley', 'online')
# What scores labels beside trained models: its name in reliability files, and what the
# plan says of it.
OTHERS = {
    'clip': (AGREEMENT, 'Zero-shot CLIP matching scores all labels.'),
    'zero-shot': (ZERO_SHOT, 'Zero-shot grounding scores all labels.'),
    'file': ('file', 'A file scores all labels.'),
    'mean': ('mean', "The mean of a source's measurer and zero-shot grounding counts."),
}
MEASURERS = ('model', *OTHERS)
# Options that journals of earlier versions lack: their values there.
_LATER = dict(init='clip', unhelpful='skip', equal='steps', correct=0)
_CHOICES = dict(
    measurer=MEASURERS,
    init=('clip', 'previous'),
    unhelpful=('skip', 'keep'),
    equal=('steps', 'epochs'),
)


@dataclass(frozen=True)
class Settings:
    """Settings that decide the result of a search.

    Args:
        strategy (str): 'greedy', 'grid' or 'fixed' search thresholds by training;
            'valley' reads them off the histograms; 'online' selects within one
            training run. Defaults to 'greedy', as in the paper.
        criterion (str): 'val', the accuracy on the config's validation, as in the
            paper; 'label-free', the agreement with pseudo-labels of held-out images.
            Defaults to 'val'.
        start (float): First threshold. Defaults to 0.5.
        step (float): Distance between thresholds. Defaults to 0.1.
        valley (str): 'otsu' or 'mixture'. Defaults to 'otsu'.
        order (tuple[str, ...], optional): Sources from simple to complex. Defaults to
            None: by the mean number of entities, or words.
        folds (int): Measurers of a source. From 2 on, each scores the images that it
            was not trained on. Defaults to 1: one measurer scores the labels that it
            was trained on, as in the paper.
        measurer (str): What scores the labels. 'model': a model trained on the source,
            as in the paper. None is trained for 'clip', zero-shot CLIP matching of
            crops with expressions; 'zero-shot', the same with geometry; and 'file',
            ``measurer_file``; 'online' begins with their scores. 'mean': the mean of
            the source's model and 'zero-shot'. Of a correction, the second measurer
            beside the model. Defaults to 'model'.
        measurer_file (str, optional): CSV or JSON Lines of ``sample_id`` and
            ``probability`` or ``bbox``. Defaults to None.
        init (str): What a trial's training begins from. 'clip': the frozen CLIP, as
            in the paper; 'previous': the model that the trial builds on, which is the
            trial of the sources before or, of the first source, its measurer. Defaults
            to 'clip'.
        unhelpful (str): Whether a source that does not raise the score is left out,
            'skip', or its best trial counts all the same, 'keep'. The paper says
            nothing of such sources; its loop keeps every one. Defaults to 'skip'.
        equal (str): What trials that select few or many labels have in common: their
            number of 'steps', so that selections are compared and not lengths of
            training; or of 'epochs' over the selected labels, as in the official code.
            Defaults to 'steps'.
        correct (int): Rounds of correction in the place of the selection by
            thresholds. Defaults to 0: selection, as in the paper.
    """

    strategy: str = 'greedy'
    criterion: str = 'val'
    start: float = 0.5
    step: float = 0.1
    valley: str = 'otsu'
    order: tuple[str, ...] | None = None
    folds: int = 1
    measurer: str = 'model'
    measurer_file: str | None = None
    init: str = 'clip'
    unhelpful: str = 'skip'
    equal: str = 'steps'
    correct: int = 0

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f'{name}={value!r}; expected one of {choices}.')
        if (self.measurer == 'file') != (self.measurer_file is not None):
            raise ValueError(
                f'measurer={self.measurer!r} with measurer_file='
                f'{self.measurer_file!r}; expected both of a file, or neither.'
            )
        if self.strategy == 'online':
            self._check_online()
        if self.correct:
            self._check_correction()

    def _check_online(self) -> None:
        if self.measurer == 'mean':
            raise ValueError(
                "strategy='online' trains no measurers, of which measurer='mean' takes "
                "the mean: use 'zero-shot', which it begins with."
            )
        if self.init == 'previous':
            raise ValueError(
                "strategy='online' is one training run, which init='previous' would "
                "continue from nothing: use init='clip'."
            )

    def _check_correction(self) -> None:
        if self.correct < 0:
            raise ValueError(f'correct={self.correct}; expected rounds, at least 1.')
        if self.strategy != 'greedy':
            raise ValueError(
                f'correct={self.correct} with strategy={self.strategy!r}: a correction '
                'searches for no threshold; leave out the strategy.'
            )
        if self.measurer == 'mean':
            raise ValueError(
                "measurer='mean' with a correction: a mean has one vote, and two are "
                "needed; use 'zero-shot', which votes beside the model."
            )
        if self.measurer == 'model' and self.folds > 2:
            raise ValueError(
                f'folds={self.folds} with a correction: of more than two models most '
                'were trained on the label that they vote on; expected 2, or a second '
                'measurer.'
            )

    @property
    def is_trained(self) -> bool:
        """Whether measurers are trained."""
        return bool(self.correct) or self.measurer in ('model', 'mean')

    def described(self) -> dict[str, Any]:
        """The settings in journals and records, as earlier searches have them."""
        described = dict(asdict(self), agreement=self.measurer == 'clip')
        path = described.pop('measurer_file')
        if self.measurer in ('model', 'clip'):
            described.pop('measurer')
        if path is not None:
            described['measurer_sha256'] = file_sha256(path)
        for name, value in _LATER.items():
            if described[name] == value:
                described.pop(name)
        return described
