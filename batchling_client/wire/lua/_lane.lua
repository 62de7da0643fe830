-- Needs _server.
-- open_batch(...): makes sure that `id` is the lane's open batch. Answers nil, or the verdict that says why not:
--   {'MOVED', open id}   another batch is open; {'USED'} the id names a batch that is sealed already.
-- close_batch(...): closes the open batch to new requests for ever and makes it due now.
local function open_batch(lane, batch, batches, lanes, lane_id, id, spec, keep_ms, now)
  local open = redis.call('HGET', lane, 'open')
  local known = redis.call('EXISTS', batch) == 1
  if open and open ~= id then
    return {'MOVED', open}
  end
  if known and not open then
    return {'USED'}
  end
  if not known then
    redis.call('HSET', lane, 'open', id, 'spec', spec)
    redis.call('HSET', batch, 'id', id, 'state', 'open', 'lane', lane_id, 'spec', spec, 'created_at', now,
      'updated_at', now, 'n_requests', 0, 'n_bytes', 0, 'n_succeeded', 0, 'n_failed', 0, 'token', 0, 'missed', 0,
      'starts', 0, 'server', server_id())
    redis.call('ZADD', batches, now, id)
    redis.call('ZREMRANGEBYSCORE', batches, '-inf', now - keep_ms)
    redis.call('ZADD', lanes, now, lane_id)
    redis.call('ZREMRANGEBYSCORE', lanes, '-inf', now - keep_ms)
    redis.call('PEXPIRE', lane, keep_ms)
    redis.call('PEXPIRE', batch, keep_ms)
    redis.call('PEXPIRE', batches, keep_ms)
    redis.call('PEXPIRE', lanes, keep_ms)
  end
  return nil
end

local function close_batch(lane, batch, schedule, id, now)
  redis.call('HSET', batch, 'state', 'sealed', 'sealed_at', now, 'updated_at', now)
  if redis.call('HGET', lane, 'open') == id then
    redis.call('HDEL', lane, 'open')
  end
  redis.call('HINCRBY', batch, 'token', 1)
  redis.call('ZADD', schedule, now, id)
end
