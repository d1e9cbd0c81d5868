"""Types of cells by their measurements: a small classifier, its scores, and which cells it is least certain of."""

from wsipipe.analysis.classify.doubt import doubt as doubt
from wsipipe.analysis.classify.doubt import first_questions as first_questions
from wsipipe.analysis.classify.doubt import questions as questions
from wsipipe.analysis.classify.examples import Examples as Examples
from wsipipe.analysis.classify.examples import learn as learn
from wsipipe.analysis.classify.model import Classifier as Classifier
from wsipipe.analysis.classify.model import fit as fit
from wsipipe.analysis.classify.scores import Scores as Scores
from wsipipe.analysis.classify.scores import cross_validate as cross_validate
from wsipipe.analysis.classify.scores import regions as regions
