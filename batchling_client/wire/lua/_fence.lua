-- holds(batch, token): whether the token is the batch's latest, so that a stale claim changes nothing.
-- let_go(batch, schedule, id, due): ends a claim: the token is spent and the batch is due at `due` (ms). A step that ends
--   its claim has read the record, so `unreadable_since` is cleared.
local function holds(batch, token)
  return redis.call('HGET', batch, 'token') == token
end

local function let_go(batch, schedule, id, due)
  redis.call('HINCRBY', batch, 'token', 1)
  redis.call('HSET', batch, 'starts', 0, 'missed', 0)
  redis.call('HDEL', batch, 'unreadable_since', 'silence')
  redis.call('ZADD', schedule, due, id)
end
