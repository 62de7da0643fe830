-- Ends for ever a batch whose record cannot be read, in whatever state, once those of its callers that can be found
-- were told; its rows are freed.
-- KEYS  1 schedule  2 batch  3 rows
-- ARGV  1 batch_id  2 token  3 error in one sentence  4 keep_ms
-- Verdicts  'OK'  'STALE'
-- States  open, sealed, submitting, submitted, ended -> failed
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch, rows = KEYS[1], KEYS[2], KEYS[3]
local id, token, err, keep_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if not holds(batch, token) then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'state', 'failed', 'error', err, 'settled_at', now, 'updated_at', now, 'starts', 0)
redis.call('HSETNX', batch, 'unreadable_since', now)
redis.call('HINCRBY', batch, 'token', 1)
redis.call('PEXPIRE', batch, keep_ms)
moved(batch, now, 'given up: ' .. err)
redis.call('UNLINK', rows)
redis.call('ZREM', schedule, id)
return 'OK'
