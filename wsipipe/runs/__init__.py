"""How a run holds its outputs: claim them, keep unfinished work, publish by one rename.

Every command that writes goes this way. Two processes never mix on one output, and a process that is killed leaves what
stood there before, or the whole of what is new.
"""

from wsipipe.runs.claim import claimed as claimed
from wsipipe.runs.claim import claims as claims
from wsipipe.runs.folder import atomic_folder as atomic_folder
from wsipipe.runs.folder import publish as publish
from wsipipe.runs.folder import result_folder as result_folder
from wsipipe.runs.folder import scratch_folder as scratch_folder
from wsipipe.runs.lease import Holder as Holder
from wsipipe.runs.lease import Lease as Lease
from wsipipe.runs.lease import acquire as acquire
from wsipipe.runs.lease import check_free as check_free
from wsipipe.runs.record import own_folder as own_folder
from wsipipe.runs.work import Work as Work
from wsipipe.runs.work import flush as flush
from wsipipe.runs.work import forget as forget
from wsipipe.runs.work import work_of as work_of
