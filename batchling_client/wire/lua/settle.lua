-- Ends a batch for ever, once each of its requests is answered or has moved on; its rows are freed.
-- KEYS  1 schedule  2 batch  3 rows
-- ARGV  1 batch_id  2 token  3 state, a terminal one  4 keep_ms
-- Verdicts  'OK'  'STALE'
-- States  ended -> settled  ended -> failed  ended -> cancelled
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch, rows = KEYS[1], KEYS[2], KEYS[3]
local id, token, state, keep_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'ended' then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'state', state, 'settled_at', now, 'updated_at', now, 'starts', 0)
redis.call('HINCRBY', batch, 'token', 1)
redis.call('HDEL', batch, 'silence')
redis.call('PEXPIRE', batch, keep_ms)
moved(batch, now, state)
redis.call('UNLINK', rows)
redis.call('ZREM', schedule, id)
return 'OK'
