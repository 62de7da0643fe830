-- Needs _moved and _server.
-- open_batch(...): makes sure that `id` is the lane's open batch. Answers nil, or the verdict that says why not:
--   {'MOVED', open id}   another batch is open; {'USED'} the id names a batch that is sealed already, or is damaged.
--   A lane that points to a batch which takes no more requests is freed of it.
-- shortest(wish, held): the shorter of a caller's linger and the linger stored with the batch. Each caller that puts
--   requests into the batch stores the shortest linger and the shortest longest linger, for later callers.
-- close_batch(..., why): closes the open batch to new requests for ever and makes it due now; `why` is for its timeline.
-- leave_row(...): closes the batch if it is open, as a request that was withdrawn from it is put in flight elsewhere. Its
--   row is still there: asked for again later, the request would get a second row there and be paid for twice.
-- Includes _sound.
local function takes_requests(batch)
  local held = redis.pcall('HMGET', batch, 'state', 'n_requests', 'n_bytes', 'created_at')
  return not held.err and held[1] == 'open' and tonumber(held[2]) and tonumber(held[3]) and tonumber(held[4])
end

local function open_batch(lane, batch, rows, schedule, batches, lanes, lane_id, id, spec, keep_ms, now)
  if not of_type(schedule, 'zset') then
    return redis.error_reply('WRONGTYPE the key ' .. schedule .. ' holds a foreign value')
  end
  if not of_type(lane, 'hash') then
    redis.call('UNLINK', lane)
  end
  local open = redis.call('HGET', lane, 'open')
  if open and not string.find(open, '^[%w_-]+$') then
    open = false
  end
  local known = redis.call('EXISTS', batch) == 1
  if open and open ~= id then
    return {'MOVED', open}
  end
  if known and not (open and takes_requests(batch)) or not of_type(rows, 'list') then
    redis.call('HDEL', lane, 'open')
    return {'USED'}
  end
  if not known then
    redis.call('HSET', lane, 'open', id, 'spec', spec)
    redis.call('HSET', batch, 'id', id, 'state', 'open', 'lane', lane_id, 'spec', spec, 'created_at', now,
      'updated_at', now, 'n_requests', 0, 'n_bytes', 0, 'n_succeeded', 0, 'n_failed', 0, 'token', 0, 'missed', 0,
      'starts', 0, 'server', server_id())
    redis.call('PEXPIRE', lane, keep_ms)
    redis.call('PEXPIRE', batch, keep_ms)
    for listing, member in pairs({[batches] = id, [lanes] = lane_id}) do
      -- Only people read these lists: a damaged list must not cost a request.
      redis.pcall('ZADD', listing, now, member)
      redis.pcall('ZREMRANGEBYSCORE', listing, '-inf', now - keep_ms)
      redis.pcall('PEXPIRE', listing, keep_ms)
    end
    moved(batch, now, 'opened')
  end
  return nil
end

local function shortest(wish, held)
  return math.min(wish, tonumber(held or wish) or wish)
end

local function close_batch(lane, batch, schedule, id, now, why)
  redis.call('HSET', batch, 'state', 'sealed', 'sealed_at', now, 'updated_at', now)
  if redis.pcall('HGET', lane, 'open') == id then
    redis.call('HDEL', lane, 'open')
  end
  redis.call('HINCRBY', batch, 'token', 1)
  redis.call('ZADD', schedule, now, id)
  moved(batch, now, 'sealed: ' .. why)
end

local function leave_row(lane, batch, schedule, id, now)
  if redis.pcall('HGET', batch, 'state') == 'open' then
    close_batch(lane, batch, schedule, id, now, 'a withdrawn request was queued again elsewhere')
  end
end
