"""The exercises of lesson 05, in the order in which a learner meets them."""

from slmlab.checking import Exercise
from slmlab.lessons.paged_serving.choose_block import CHOOSE_BLOCK
from slmlab.lessons.paged_serving.copy_on_write import COPY_ON_WRITE
from slmlab.lessons.paged_serving.last_token import LAST_TOKEN
from slmlab.lessons.paged_serving.prefix_hits import PREFIX_HITS
from slmlab.lessons.paged_serving.requests_that_fit import REQUESTS_THAT_FIT
from slmlab.lessons.paged_serving.schedule_step import SCHEDULE_STEP
from slmlab.lessons.paged_serving.slot_mapping import SLOT_MAPPING
from slmlab.lessons.paged_serving.stale_name import STALE_NAME

EXERCISES: tuple[Exercise, ...] = (
    SLOT_MAPPING,
    REQUESTS_THAT_FIT,
    PREFIX_HITS,
    LAST_TOKEN,
    COPY_ON_WRITE,
    SCHEDULE_STEP,
    STALE_NAME,
    CHOOSE_BLOCK,
)
