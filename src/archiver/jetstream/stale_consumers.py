"""Finds consumers whose progress belongs to another stream than the one they read from.

If a server joins a cluster with a store of an older fleet, a consumer created on it takes over what
its namesake had delivered and acknowledged. Messages of the new stream with the same numbers are
then never delivered, although nothing reports an error.
"""

import nats.js.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo


async def withheld_message(js: JetStreamContext, consumer: ConsumerInfo) -> int | None:
    """Return the number of a message that *consumer* would never deliver, or None if it is sound.

    A work queue removes acknowledged messages, so the first one left comes after them. The server
    removes them with a delay: only a second check with the same number is a proof. A consumer that
    has delivered more than its stream ever had needs no second check: the number is 0.
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
