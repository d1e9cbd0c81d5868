"""Types of cells by their measurements: a small classifier, its scores, and which cells it is least certain of."""

from wsipipe.classify.doubt import doubt as doubt
from wsipipe.classify.doubt import first_questions as first_questions
from wsipipe.classify.doubt import questions as questions
from wsipipe.classify.examples import Examples as Examples
from wsipipe.classify.examples import learn as learn
from wsipipe.classify.model import Classifier as Classifier
from wsipipe.classify.model import fit as fit
from wsipipe.classify.scores import Scores as Scores
from wsipipe.classify.scores import cross_validate as cross_validate
from wsipipe.classify.scores import regions as regions
