"""Finds consumers that remember another stream than the one they read from.

When a server whose store holds an older fleet's streams joins a cluster, a consumer that is made on
it takes over what its namesake had delivered and acknowledged. The messages of the new stream with
the same numbers are then handed out to no worker, for good, although nothing reports a fault.
"""

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo


async def left_over(js: JetStreamContext, consumer: ConsumerInfo) -> int | None:
    """Return the number of a message that shows *consumer* to be left over, None if it is sound.

    A work queue removes acknowledged messages, so the first one left comes after them. The server
    removes them a moment later: only a second look with the same number is a proof. A consumer that
    has delivered more than its stream ever had needs no second look: its number is 0.
    """
    stream = str(consumer.stream_name)
    last = (await js.stream_info(stream)).state.last_seq
    if consumer.delivered and consumer.delivered.stream_seq > last:
        return 0
    acknowledged = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
    try:
        first = await js.get_msg(stream, seq=1, subject=consumer.config.filter_subject, next=True)
    except nats.js.errors.NotFoundError:
        return None
    return first.seq if first.seq and first.seq <= acknowledged else None
